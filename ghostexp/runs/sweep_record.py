"""Read and write sweep.yaml: the study's name and all jobs of a sweep, pending ones too."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ghostexp.runs.directory import SafeLoader
from ghostexp.runs.fingerprint import BATCHNORM_IMAGES, result_config
from ghostexp.runs.lock import locked
from ghostexp.runs.text_files import write_atomically

RECORD = "sweep.yaml"
LOCK_SECONDS = 60.0  # longer than any process holds the lock
RECIPES = ("experiment", "study", "pretrained")  # groups that may set any key
BATCH_KEYS = ("datamodule", "datamodule.batch_size", "trainer")  # that decide BATCHNORM_IMAGES, trainer.KEY too
DATA_DEPENDENT_KEYS = ("num_classes", "in_chans", "image_size")  # of the model, set from the data


@dataclass(frozen=True)
class SweepRecord:
    """Study name (None for a sweep without a study), and distinguishing overrides by job name.

    fixed: the values that are equal for all jobs, see `fixed_values`. search: that of a search, see `SearchRecord`.
    """

    study: str | None = None
    jobs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)


def is_sweep_dir(directory: Path) -> bool:
    """Return whether a directory contains a sweep."""
    return (directory / RECORD).is_file()


def find_sweep_name(directory: Path) -> str | None:
    """Return the name of the sweep that a run, or the run that a task reads, is part of; else None."""
    parents = directory.absolute().parents[:2]
    return next((parent.name for parent in parents if is_sweep_dir(parent)), None)


def read_sweep(directory: Path) -> SweepRecord:
    """Read the record of a sweep directory; empty if there is none.

    Raises ValueError that names the file: it is not one that a sweep has written.
    """
    path = directory / RECORD
    try:
        return SweepRecord(**yaml.load(path.read_bytes(), SafeLoader)) if path.is_file() else SweepRecord()
    except (yaml.YAMLError, TypeError) as error:
        raise ValueError(f"{path}: not the record of a sweep ({' '.join(str(error).split())})") from error


def record_sweep(directory: Path, added: SweepRecord) -> None:
    """Add jobs to the record of a sweep directory; safe with several commands at once.

    Raises ValueError: it contains another study, or a sweep with other fixed values.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with sweep_lock(directory):
        check_study(directory, added.study)
        check_fixed(directory, added)
        before = read_sweep(directory)
        jobs = {**before.jobs, **{name: list(overrides) for name, overrides in added.jobs.items()}}
        fixed = {**before.fixed, **added.fixed}
        fixed = _without(fixed, swept_keys(jobs.values()))
        write_sweep(directory, SweepRecord(added.study, jobs, fixed, added.search or before.search))


def write_sweep(directory: Path, record: SweepRecord) -> None:
    """Write the record of a sweep directory."""
    write_atomically(directory / RECORD, yaml.safe_dump(asdict(record), sort_keys=False))


@contextmanager
def sweep_lock(directory: Path) -> Iterator[None]:
    """Lock a sweep directory while a process claims or records jobs."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(directory, LOCK_SECONDS))
        except BlockingIOError:
            raise ValueError(f"{directory}: locked by another command for {LOCK_SECONDS:.0f} s") from None
        yield


def check_study(directory: Path, study: str | None) -> None:
    """Raise ValueError if a directory contains another study, or a sweep without the study."""
    if is_sweep_dir(directory):
        recorded = read_sweep(directory).study
        if recorded != study:
            requested = f"study={study}" if study else "a sweep without a study"
            found = f"study {recorded}" if recorded else "a sweep without a study"
            raise ValueError(f"{requested}: {directory} contains {found}; set another name=...")


def check_fixed(directory: Path, added: SweepRecord) -> None:
    """Raise ValueError if a directory contains jobs with other values of keys that neither sweep varies.

    Job names have swept values only, and a report groups by these: it would mix such jobs.
    """
    before = read_sweep(directory)
    swept = swept_keys([*before.jobs.values(), *added.jobs.values()])
    old, new = _without(before.fixed, swept), _without(added.fixed, swept)
    changed = [f"{path}: {old[path]} -> {new[path]}" for path in old if path in new and old[path] != new[path]]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise ValueError(
            f"{directory}: contains a sweep with other fixed values ({'; '.join(changed[:3])}{more}); "
            "name=... starts a new sweep, and -m KEY=VALUE,VALUE compares both in one"
        )


def fixed_values(jobs: Iterable[tuple[Sequence[str], Mapping[str, Any]]]) -> dict[str, Any]:
    """Return the result-deciding values of jobs that are not swept, by path.

    jobs: distinguishing overrides and configuration of each. Values that depend on a swept group are fixed for each
    of its options, with the path `model=ghostnet model.width`.
    """
    jobs = list(jobs)
    swept = swept_keys(overrides for overrides, _ in jobs)
    fixed: dict[str, Any] = {}
    varied: set[str] = set()
    for overrides, config in jobs:
        options = {key: f"{key}={value}" for key, value in map(override_pair, overrides) if key in swept}
        for path, value in result_config(config).items():
            causes = [text for key, text in options.items() if follows(path, [key])]
            label = " ".join([*causes, path])
            if fixed.setdefault(label, value) != value:
                varied.add(label)
    return {label: value for label, value in _without(fixed, swept).items() if label not in varied}


def swept_keys(overrides: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Return the keys in which the jobs of a sweep differ, except seeds."""
    keys = (override_pair(text)[0] for texts in overrides for text in texts)
    return tuple(dict.fromkeys(key for key in keys if not is_seed(key)))


def is_seed(key: str) -> bool:
    """Return whether a key is a seed, whose values repeat a run."""
    return key == "seed" or key.endswith(".seed")


def follows(path: str, keys: Sequence[str]) -> bool:
    """Return whether a path may change with one of the keys; `model@model.backbone` is a group at `model.backbone`."""
    places = [key.rpartition("@")[2] for key in keys]
    if any(place in RECIPES or path == place or path.startswith(f"{place}.") for place in places):
        return True
    if path == BATCHNORM_IMAGES:
        return any(place in BATCH_KEYS or place.startswith("trainer.") for place in places)
    return path.rpartition(".")[2] in DATA_DEPENDENT_KEYS and any(key.partition(".")[0] == "datamodule" for key in keys)


def override_pair(override: str) -> tuple[str, str]:
    """Return key and value of an override, without + or ~."""
    key, _, value = override.lstrip("+~").partition("=")
    return key, value


def _without(fixed: Mapping[str, Any], swept: Sequence[str]) -> dict[str, Any]:
    """Remove the values of swept keys and seeds."""
    return {
        label: value
        for label, value in fixed.items()
        if (path := label.rpartition(" ")[2]) not in swept and not is_seed(path)
    }
