"""How many processes a run needs, and which of them this one is."""

import os
from typing import Any

ON_SEVERAL_DEVICES = ("fit", "test")  # the tasks that share their work among processes
# Others start processes of their own (ddp_spawn, ddp_fork), take the CPU whatever is there (single_device), or shard
# the state that checkpoints and the moving average here hold whole (fsdp, deepspeed).
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true")


def rank() -> int:
    """This process's number among all of its run; 0 where there is only one."""
    return int(os.environ.get("SLURM_PROCID", "0") if is_started_by_slurm() else os.environ.get("RANK", "0"))


def is_global_zero() -> bool:
    """Whether this process, a rank or the one that will start a machine's ranks, is the one that writes for the run."""
    return rank() == 0 and os.environ.get("NODE_RANK", "0") == "0"


def is_started_by_slurm() -> bool:
    """Whether `srun` started this process as one of several tasks."""
    return "SLURM_PROCID" in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def check_task(task: str, count: int, nodes: int) -> None:
    """Raise ValueError where several processes are asked for, and each would do the whole task."""
    if count * nodes > 1 and task not in ON_SEVERAL_DEVICES:
        raise ValueError(f"trainer.devices={count}, trainer.num_nodes={nodes}: task={task} runs in one process")


def check_strategy(strategy: Any) -> None:
    """Raise ValueError for a strategy that does not train in this project's processes; one with a _target_ may."""
    if not (isinstance(strategy, dict) and "_target_" in strategy) and strategy not in STRATEGIES:
        raise ValueError(f"trainer.strategy={strategy}: must be one of {', '.join(STRATEGIES)}")


def check_launch_environment(count: int, nodes: int, is_named: bool) -> None:
    """Raise ValueError where processes that somebody started, or machines, do not fit what a run needs."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise ValueError("torchrun: not needed; start the command by itself and trainer.devices starts its processes")
    if is_started_by_slurm():
        tasks = int(os.environ["SLURM_STEP_NUM_TASKS"])
        if tasks != count * nodes:
            raise ValueError(
                f"trainer.devices={count}, trainer.num_nodes={nodes}: srun started {tasks} tasks, not {count * nodes}"
            )
    elif nodes > 1:
        missing = [name for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing or not is_named:
            needed = ", ".join([*missing, *([] if is_named else ["hydra.run.dir=DIR on a shared disk"])])
            raise ValueError(f"trainer.num_nodes={nodes}: every machine needs {needed}")


def num_processes(trainer: dict[str, Any]) -> int:
    """How many processes a run needs on this machine: one for each device.

    Raises ValueError: `trainer.devices` is none of a number, `auto` and a list of numbers, or asks for GPUs that are
    not there.
    """
    accelerator, devices = trainer["accelerator"], trainer["devices"]
    if isinstance(devices, str) and devices.lstrip("-").isdigit():
        devices = int(devices)
    if devices in ("auto", -1):
        return max(1, count_gpus(accelerator))
    if isinstance(devices, list) and devices and all(type(device) is int and device >= 0 for device in devices):
        count, highest = len(devices), max(devices) + 1
    elif type(devices) is int and devices >= 1:
        count = highest = devices
    else:
        raise ValueError(f"trainer.devices={devices}: must be an integer >= 1, auto or a list such as [0,2]")
    wants_gpu = accelerator in ("gpu", "cuda")
    if wants_gpu or isinstance(devices, list) or count > 1 or trainer.get("sync_batchnorm"):
        gpus = count_gpus(accelerator)
        if isinstance(devices, list) and gpus == 0:
            raise ValueError(f"trainer.devices={devices}: a list names GPUs, and none is there; give a number")
        if wants_gpu and gpus == 0:
            raise ValueError(f"trainer.accelerator={accelerator}: no GPU is there; use auto or cpu")
        if gpus and highest > gpus:
            raise ValueError(f"trainer.devices={devices}: only {gpus} GPU{'s are' if gpus > 1 else ' is'} there")
        if trainer.get("sync_batchnorm") and gpus == 0:
            raise ValueError("trainer.sync_batchnorm=true: torch synchronises BatchNorm on GPUs only")
    return count


def parse_num_devices(devices: int | str | list[int]) -> int:
    """How many processes a run needs on each machine of a cluster.

    Raises ValueError: a machine that is not known yet cannot be asked.
    """
    if type(devices) is not int or devices < 1:
        raise ValueError(f"trainer.devices={devices}: must be an integer >= 1 on a cluster")
    return devices


def count_gpus(accelerator: str) -> int:
    """How many GPUs a run can use."""
    if accelerator == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()
