"""Build the names and directories of runs and sweeps."""

import glob
import hashlib
import itertools
import os
import re
import secrets
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ghostexp.runs.config_keys import STUDY_TASKS
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.fingerprint import fingerprint
from ghostexp.runs.text_files import write_atomically

FILE_LIMIT = 255  # bytes in the name of a file or directory
JOB_LIMIT = 128  # characters in a job's name
DIGEST = 8  # characters
IDENTITY = ".identity"  # file in a run's directory
# Beginning of a value that is several in a sweep, or a range of a search.
SWEEP_FUNCTION = re.compile(r"(range|choice|interval|glob|sort|shuffle|tag|int|float)\(")


def run_dir(
    output_dir: str,
    name: str,
    task: str,
    run: str | None,
    resume: str | None,
    runs: str | Sequence[str] | None = None,
) -> str:
    """Return the directory of a run: a new one, the resumed one, or a subdirectory of `run`.

    The directory of a report or dashboard is beside its runs, in their common parent.
    """
    if task in STUDY_TASKS:
        parent = _common_directory(runs) if runs else ""
        return f"{parent if os.path.isdir(parent) else f'{output_dir}/{name}'}/{task}"
    if resume is not None:
        return resume
    return f"{run}/{task}" if run is not None else f"{output_dir}/{name}/{stamp()}"


def run_name(name: str | None, choices: Mapping[str, str | None]) -> str:
    """Return the name of a run: `name`, the study, the recipe, or network and data.

    The recipe cifar10/vgg16 becomes cifar10_vgg16. Swept groups are part of job names only.
    """
    if name is not None:
        return name
    for group in ("study", "experiment"):
        if choices.get(group):
            return str(choices[group]).replace("/", "_")
    typed = _typed_overrides()
    parts = [_chosen(group, choices, typed) for group in ("model", "datamodule")]
    return "_".join(filter(None, parts)) or "sweep"


def _chosen(group: str, choices: Mapping[str, str | None], typed: Mapping[str, str]) -> str:
    """Return the option of a group, or the name of the typed `_target_` in its place; empty if it is swept."""
    target = typed.get(f"{group}._target_", "")
    if is_sweep_value(typed.get(group, "")) or is_sweep_value(target):
        return ""
    return str(choices.get(group) or target.rpartition(".")[2])


def record_subdir(resume: str | None, directory: str) -> str | None:
    """Return the subdirectory of Hydra's files; none where there are those of a run's first command."""
    run, is_training = RunDirectory(Path(directory)), False
    if run.config.is_file():
        try:
            is_training = run.read_config().get("task", {}).get("name") == "fit"
        except ValueError:  # it cannot be read, which is reported later
            is_training = True
    return None if resume is not None or is_training else ".hydra"


def stamp() -> str:
    """Return a unique directory name: the SLURM step, equal for all its tasks, or the time."""
    job = os.environ.get("SLURM_JOB_ID")
    if job and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return f"slurm-{job}-{os.environ.get('SLURM_STEP_ID', '0')}"
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")[:-3]


def _common_directory(runs: str | Sequence[str]) -> str:
    """Return the common parent directory of paths and globs."""
    paths = [Path(str(text)).expanduser().absolute() for text in ([runs] if isinstance(runs, str) else runs)]
    fixed = [Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)) for path in paths]
    return os.path.commonpath(fixed)


def sweep_dir(output_dir: str, name: str, task: str) -> str:
    """Return the directory of a sweep; other tasks than fit have a directory separate from the trainings."""
    return f"{output_dir}/{name}" if task in ("fit", *STUDY_TASKS) else f"{output_dir}/{name}_{task}"


def digest(text: str) -> str:
    """Return the first hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:DIGEST]


def check_directory(path: Path, key: str = "name") -> None:
    """Raise ValueError for a path with a name that is too long for a file system."""
    for part in path.parts:
        if (size := len(os.fsencode(part))) > FILE_LIMIT:
            raise ValueError(f"{key}={part[:20]}...: must be at most {FILE_LIMIT} bytes long, got {size}")


def job_dirname(pairs: Sequence[tuple[str, str]], is_taken: bool = False) -> str:
    """Return the directory name of a job from its swept values: `model.ratio=2 seed=1` becomes `ratio-2_seed-1`.

    Two keys with the same last part keep their full path.
    It has letters, digits, `-`, `_` and `.` only, because Hydra does not parse `=` in a value without quotes.
    A digest of the values is appended if it is truncated, has non-ASCII letters, or another job has the name.
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
    """Return the values of the command line by key."""
    return {key.lstrip("+~"): value for key, _, value in (argument.partition("=") for argument in sys.argv[1:])}


def is_sweep_value(value: str) -> bool:
    """Return whether a typed value is a sweep of several values: `2,3`, not `[0,2]`, `{a:1,b:2}` or `"2,3"`."""
    if SWEEP_FUNCTION.match(value):
        return True
    return "," in re.sub(r"\[.*?\]|\{.*?\}|'.*?'|\".*?\"", "", value)


def _to_dirname(value: str) -> str:
    """Replace characters not allowed in directory names: `[0,2]` becomes `0-2`, `[]` none."""
    value = re.sub(r"(?<=\d)e\+(?=\d)", "e", value)  # 1e+30 is 1e30, and not 1e-30
    inner = re.sub(r"^[^\w.-]+|[^\w.-]+$", "", value, flags=re.ASCII)
    return re.sub(r"[^\w.-]+", "-", inner, flags=re.ASCII) or "none"


def run_title(path: Path) -> str:
    """Return the title of a run: the last two parts of its directory."""
    return "/".join(path.absolute().parts[-2:])


def record_identity(run: RunDirectory, config: Mapping[str, Any]) -> None:
    """Give a run that is new to W&B an identity of its own: an earlier one in a directory of that name was another."""
    began = any(path.exists() for path in (run.path / IDENTITY, run.path / "wandb", run.last))
    if "wandb" in (config.get("logger") or {}) and not began:
        write_atomically(run.path / IDENTITY, secrets.token_hex(6) + "\n")


def run_identity(path: Path, config: Mapping[str, Any]) -> str:
    """Return twelve hexadecimal digits, equal for a run and its resumption: those of `record_identity`, if any."""
    if (path / IDENTITY).is_file():
        return (path / IDENTITY).read_text(encoding="utf-8").strip()
    text = f"{run_title(path)} {fingerprint(config)}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]
