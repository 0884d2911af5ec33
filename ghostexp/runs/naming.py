"""The one place that builds a run's name."""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ghostexp.runs.fingerprint import fingerprint


def run_dir(output_dir: str, name: str, task: str, run: str | None, resume: str | None) -> str:
    """Where a run lives: a new directory, the one that is resumed, or one inside the run that a task looks at."""
    if resume is not None:
        return resume
    return f"{run}/{task}" if run is not None else f"{output_dir}/{name}/{stamp()}"


def record_subdir(resume: str | None) -> str | None:
    """Where Hydra records what it composed; a resumed run keeps the record of its first command."""
    return ".hydra" if resume is None else None


def stamp() -> str:
    """What tells apart the runs of one configuration: the SLURM job, equal on all its nodes, or the time."""
    job = os.environ.get("SLURM_JOB_ID")
    if job and int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        return f"slurm-{job}"
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")[:-3]


def sweep_name(overrides: Sequence[str]) -> str:
    """The directory of one job of a sweep: `model.ratio=2 seed=1` becomes `ratio-2_seed-1`.

    Two keys that end alike keep their whole path. Letters, digits, `-`, `_` and `.` only, because Hydra does not
    parse `=` in a value without quotes.
    """
    pairs = [override.lstrip("+~").partition("=") for override in overrides]
    ends = [key.rpartition(".")[2] for key, _, _ in pairs]
    names = [f"{key if ends.count(end) > 1 else end}-{value}" for (key, _, value), end in zip(pairs, ends, strict=True)]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(names)).strip("-") or "job"


def run_title(path: Path) -> str:
    """How a run is called among others: its directory within its parent."""
    return "/".join(path.absolute().parts[-2:])


def run_identity(path: Path, config: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits, equal for a run and its resumption."""
    text = f"{run_title(path)} {fingerprint(config)}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]
