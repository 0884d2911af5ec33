"""Count the processes of a run, and find the rank of this one."""

import os
from collections.abc import Mapping
from typing import Any

ON_SEVERAL_DEVICES = ("fit", "test")  # tasks that can run in several processes
# Others start their own processes (ddp_spawn, ddp_fork), always use the CPU (single_device), or shard the state that
# checkpoints and EMA here need unsharded (fsdp, deepspeed).
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true")


def rank() -> int:
    """Return the global rank of this process; 0 if it is the only one."""
    return int(os.environ.get("SLURM_PROCID", "0") if is_started_by_slurm() else os.environ.get("RANK", "0"))


def is_global_zero() -> bool:
    """Return whether this process writes the run's files: rank 0, or the parent of rank 0."""
    return rank() == 0 and os.environ.get("NODE_RANK", "0") == "0"


def without_ranks(environment: Mapping[str, str], several_machines: bool = False) -> dict[str, str]:
    """Return an environment without the ranks of a process that started this one, as torchrun or Kubernetes set them.

    several_machines: of a run on several, whose NODE_RANK is the user's.
    """
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", *(() if several_machines else ("NODE_RANK",)))
    return {name: value for name, value in environment.items() if name not in names}


def is_started_by_slurm() -> bool:
    """Return whether `srun` started this process as one of several tasks."""
    return "SLURM_PROCID" in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def check_task(task: str, count: int, nodes: int) -> None:
    """Raise ValueError for several processes in a task that runs in one."""
    if count * nodes > 1 and task not in ON_SEVERAL_DEVICES:
        raise ValueError(f"trainer.devices={count}, trainer.num_nodes={nodes}: task={task} runs in one process")


def check_strategy(strategy: Any) -> None:
    """Raise ValueError for a strategy that does not work here; one with a _target_ is not checked."""
    if not (isinstance(strategy, dict) and "_target_" in strategy) and strategy not in STRATEGIES:
        raise ValueError(f"trainer.strategy={strategy}: must be one of {', '.join(STRATEGIES)}")


def check_launch_environment(count: int, nodes: int, is_named: bool) -> None:
    """Raise ValueError if processes started by SLURM, torchrun or on several machines do not match the run."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise ValueError("torchrun: not needed; start the command alone, trainer.devices sets the number of processes")
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
    """Return the number of processes of a run on this machine: one per device.

    Raises ValueError: `trainer.devices` is not a number, `auto` or a list of numbers, or needs GPUs that do not exist.
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
            raise ValueError(f"trainer.devices={devices}: a list selects GPUs, but there is none; set a number")
        if wants_gpu and gpus == 0:
            raise ValueError(f"trainer.accelerator={accelerator}: no GPU found; use auto or cpu")
        if gpus and highest > gpus:
            hint = ""
            if is_started_by_slurm():  # srun --gpus-per-task=1 hides the GPUs of the other tasks
                hint = f"; every task has to see all GPUs of its machine: srun --gpus-per-node={highest}"
            raise ValueError(f"trainer.devices={devices}: only {gpus} GPU{'s' if gpus > 1 else ''} found{hint}")
        if trainer.get("sync_batchnorm") and gpus == 0:
            raise ValueError("trainer.sync_batchnorm=true: torch synchronises BatchNorm on GPUs only")
    return count


def parse_num_devices(devices: int | str | list[int]) -> int:
    """Return the number of processes of a run on each machine of a cluster.

    Raises ValueError: not a number (the machine is not known yet, so that its GPUs cannot be counted).
    """
    if type(devices) is not int or devices < 1:
        raise ValueError(f"trainer.devices={devices}: must be an integer >= 1 on a cluster")
    return devices


def count_gpus(accelerator: str) -> int:
    """Return the number of GPUs that a run can use."""
    if accelerator == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()
