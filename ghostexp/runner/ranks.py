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
    """How many processes a run needs on this machine.

    Raises ValueError: `trainer.devices` is none of a number, `auto` and a list of numbers.
    """
    devices = trainer["devices"]
    if isinstance(devices, str) and devices.lstrip("-").isdigit():
        devices = int(devices)
    if devices in ("auto", -1):
        return max(1, _gpus(trainer["accelerator"]))
    if isinstance(devices, list) and devices and all(isinstance(device, int) and device >= 0 for device in devices):
        return len(devices)
    if isinstance(devices, int) and not isinstance(devices, bool) and devices >= 1:
        return devices
    raise ValueError(f"trainer.devices={devices}: a number >= 1, auto, or a list such as [0,2] is needed")


def _gpus(accelerator: str) -> int:
    if accelerator == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()
