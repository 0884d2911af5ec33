"""The one place that builds a run's name."""

import glob
import hashlib
import itertools
import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ghostexp.runs.fingerprint import fingerprint

STUDY_TASKS = ("report", "dashboard")  # tasks about many runs, which live beside them
FILE_LIMIT = 255  # bytes in the name of a file or directory
JOB_LIMIT = 128  # characters in a job's name
DIGEST = 8  # characters


def run_dir(
    output_dir: str,
    name: str,
    task: str,
    run: str | None,
    resume: str | None,
    runs: str | Sequence[str] | None = None,
) -> str:
    """Where a run lives: a new directory, the one that is resumed, or one inside the run that a task looks at.

    A report or a dashboard lives beside the runs that it is about: in the directory that holds them all.
    """
    if task in STUDY_TASKS:
        holding = _common_directory(runs) if runs else ""
        return f"{holding if os.path.isdir(holding) else f'{output_dir}/{name}'}/{task}"
    if resume is not None:
        return resume
    return f"{run}/{task}" if run is not None else f"{output_dir}/{name}/{stamp()}"


def run_name(name: str | None, choices: Mapping[str, str | None]) -> str:
    """What runs of a kind are called: the name they were given, their study's, their recipe's, or network and data.

    A group that is swept names the jobs, not the sweep.
    """
    if name is not None:
        return name
    for group in ("study", "experiment"):
        if choices.get(group):
            return str(choices[group])
    typed = _typed_overrides()
    parts = [str(choices[group]) for group in ("model", "datamodule") if not is_sweep_value(typed.get(group, ""))]
    return "_".join(parts) or "sweep"


def record_subdir(resume: str | None) -> str | None:
    """Where Hydra records what it composed; a resumed run keeps the record of its first command."""
    return ".hydra" if resume is None else None


def stamp() -> str:
    """What tells apart the runs of one configuration: the SLURM step, equal for all its tasks, or the time."""
    job = os.environ.get("SLURM_JOB_ID")
    if job and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return f"slurm-{job}-{os.environ.get('SLURM_STEP_ID', '0')}"
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")[:-3]


def _common_directory(runs: str | Sequence[str]) -> str:
    """The directory that holds all that is named, by a path or by a glob."""
    paths = [Path(str(text)).absolute() for text in ([runs] if isinstance(runs, str) else runs)]
    fixed = [Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)) for path in paths]
    return os.path.commonpath(fixed)


def sweep_dir(output_dir: str, name: str, task: str) -> str:
    """Where the jobs of a sweep live; another task of the same points does not mix with their trainings."""
    return f"{output_dir}/{name}" if task in ("fit", *STUDY_TASKS) else f"{output_dir}/{name}_{task}"


def digest(text: str) -> str:
    """Return hexadecimal digits that tell a text from others."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:DIGEST]


def check_directory(path: Path, key: str = "name") -> None:
    """Raise ValueError for a path that no file system takes."""
    for part in path.parts:
        if (size := len(os.fsencode(part))) > FILE_LIMIT:
            raise ValueError(f"{key}={part[:20]}...: must be at most {FILE_LIMIT} bytes long, got {size}")


def job_dirname(pairs: Sequence[tuple[str, str]], is_taken: bool = False) -> str:
    """The directory of one job of a sweep, from what is swept: `model.ratio=2 seed=1` becomes `ratio-2_seed-1`.

    What is the same for all jobs is no part of it. Two keys that end alike keep their whole path.
    Letters, digits, `-`, `_` and `.` only, because Hydra does not parse `=` in a value without quotes.
    A digest of the values follows where letters beyond ASCII or the end are left out, or another job has the name.
    """
    keys = [key.lstrip("+~") for key, _ in pairs]
    ends = [key.rpartition(".")[2] for key in keys]
    names = [
        f"{key if ends.count(end) > 1 else end}-{_to_dirname(value)}"
        for key, end, (_, value) in zip(keys, ends, pairs, strict=True)
    ]
    name = "_".join(names) or "job"
    if len(name) <= JOB_LIMIT and all(value.isascii() for _, value in pairs) and not is_taken:
        return name
    return f"{name[: JOB_LIMIT - DIGEST - 1]}-{digest(' '.join(f'{key}={value}' for key, value in pairs))}"


def _typed_overrides() -> dict[str, str]:
    """The command line's values by key."""
    return {key: value for key, _, value in (argument.partition("=") for argument in sys.argv[1:])}


def is_sweep_value(value: str) -> bool:
    """Whether Hydra makes several jobs of a value as it was typed: `2,3`, not `[0,2]`, `{a:1,b:2}` or `"2,3"`."""
    if re.match(r"(range|choice|interval|glob|sort|shuffle)\(", value):
        return True
    return "," in re.sub(r"\[.*?\]|\{.*?\}|'.*?'|\".*?\"", "", value)


def _to_dirname(value: str) -> str:
    """A value without the characters that a directory's name must not have: `[0,2]` becomes `0-2`, `[]` none."""
    value = re.sub(r"(?<=\d)e\+(?=\d)", "e", value)  # 1e+30 is 1e30, and not 1e-30
    inner = re.sub(r"^[^\w.-]+|[^\w.-]+$", "", value, flags=re.ASCII)
    return re.sub(r"[^\w.-]+", "-", inner, flags=re.ASCII) or "none"


def run_title(path: Path) -> str:
    """How a run is called among others: its directory within its parent."""
    return "/".join(path.absolute().parts[-2:])


def run_identity(path: Path, config: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits, equal for a run and its resumption."""
    text = f"{run_title(path)} {fingerprint(config)}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]
