"""Collect the provenance of a result: package versions, git revision, CPU, GPU driver."""

import os
import platform
import re
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("ghostexp", "torch", "torchvision", "lightning", "hydra-core", "omegaconf", "torchmetrics", "wandb")
VECTOR_INSTRUCTIONS = {  # by the flag of Linux, the best first
    "amx_bf16": "AMX",
    "avx512_bf16": "AVX-512 with bfloat16",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> str | None:
    """Return the commit of the source tree, with `-dirty` for uncommitted changes; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None


def nvidia_driver() -> str | None:
    """Return the version of NVIDIA's kernel driver, None where there is none."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)", text)
    return found[1] if found else None


def machine() -> dict[str, Any]:
    """Describe the machine without importing torch: the CPU and, of a GPU, its driver, and its name if it is in use."""
    found: dict[str, Any] = {"cpu": cpu()}
    if driver := nvidia_driver():
        found["gpu"] = {"driver": driver}
        torch = sys.modules.get("torch")
        with suppress(Exception):  # after an error of CUDA, each further call may raise it again
            if torch is not None and torch.cuda.is_initialized():
                found["gpu"]["name"] = torch.cuda.get_device_name()
    return found


def cpu() -> str:
    """Return the CPU's name, its vector instructions on Linux, and the number of cores that this process may use.

    Virtual machines hide the model behind one name, and whether bfloat16 is fast depends on the instructions.
    """
    lines: list[tuple[str, str, str]] = []
    info = Path("/proc/cpuinfo")
    if info.is_file():
        text = info.read_text(encoding="utf-8", errors="replace")
        lines = [line.partition(":") for line in text.splitlines()]
    names = [value.strip() for key, _, value in lines if "model name" in key]
    flags = next((value.split() for key, _, value in lines if key.strip() == "flags"), [])
    name = names[0] if names else platform.processor() or platform.machine()  # on Linux, processor() starts a process
    vectors = next((f", {title}" for flag, title in VECTOR_INSTRUCTIONS.items() if flag in flags), "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}{vectors} ({cores} cores)"
