"""How many processes a run needs, and which of them this one is."""

import os
from typing import Any


def rank() -> int:
    """This process's number among all of its run; 0 where there is only one."""
    for name in ("RANK", "SLURM_PROCID"):
        if name in os.environ and (name == "RANK" or started_by_slurm()):
            return int(os.environ[name])
    return 0


def started_by_slurm() -> bool:
    """Whether `srun` started this process as one of several tasks."""
    return "SLURM_PROCID" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1


def exist_already() -> bool:
    """Whether somebody else started the ranks: `srun`, `torchrun`, or this project's launcher."""
    return started_by_slurm() or "LOCAL_RANK" in os.environ


def processes(trainer: dict[str, Any]) -> int:
    """How many processes a run needs on this machine: one for each device.

    Raises ValueError: `trainer.devices` is none of a number, `auto` and a list of numbers, or asks for GPUs that are
    not there.
    """
    accelerator, devices = trainer["accelerator"], trainer["devices"]
    if isinstance(devices, str) and devices.lstrip("-").isdigit():
        devices = int(devices)
    if devices in ("auto", -1):
        return max(1, _gpus(accelerator))
    if isinstance(devices, list) and devices and all(type(device) is int and device >= 0 for device in devices):
        count, highest = len(devices), max(devices) + 1
    elif type(devices) is int and devices >= 1:
        count = highest = devices
    else:
        raise ValueError(f"trainer.devices={devices}: a number >= 1, auto, or a list such as [0,2] is needed")
    wants_gpu = accelerator in ("gpu", "cuda")
    if wants_gpu or count > 1 or trainer.get("sync_batchnorm"):
        gpus = _gpus(accelerator)
        if wants_gpu and gpus == 0:
            raise ValueError(f"trainer.accelerator={accelerator}: no GPU is there; use auto or cpu")
        if gpus and highest > gpus:
            raise ValueError(f"trainer.devices={devices}: only {gpus} GPU{'s are' if gpus > 1 else ' is'} there")
        if trainer.get("sync_batchnorm") and gpus == 0:
            raise ValueError("trainer.sync_batchnorm=true: torch synchronises BatchNorm on GPUs only")
    return count


def _gpus(accelerator: str) -> int:
    if accelerator == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()
