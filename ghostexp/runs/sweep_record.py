"""What a sweep's directory says of it: sweep.yaml, the study's name and every job, those still to come too."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ghostexp.runs.directory import SafeLoader
from ghostexp.runs.fingerprint import result_config
from ghostexp.runs.lock import locked
from ghostexp.runs.text_files import write_atomically

RECORD = "sweep.yaml"
LOCK_SECONDS = 60.0  # which a process that works on the record never takes
RECIPES = ("experiment", "study", "pretrained")  # groups that may set any key
DATA_DEPENDENT_KEYS = ("num_classes", "in_chans", "image_size")  # which a model takes from its data


@dataclass(frozen=True)
class SweepRecord:
    """A study's name, None of a sweep that is none, and what tells its jobs apart: overrides by name.

    fixed: the values that no job varies, see `fixed_values`.
    """

    study: str | None = None
    jobs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)


def is_sweep_dir(directory: Path) -> bool:
    """Whether a directory holds a sweep."""
    return (directory / RECORD).is_file()


def find_sweep_name(directory: Path) -> str | None:
    """The name of the sweep that a run is of, or that the run is of at which a task looks; None of any other."""
    parents = directory.absolute().parents[:2]
    return next((parent.name for parent in parents if is_sweep_dir(parent)), None)


def read_sweep(directory: Path) -> SweepRecord:
    """What a directory's record says; without one, no jobs."""
    path = directory / RECORD
    return SweepRecord(**yaml.load(path.read_bytes(), SafeLoader)) if path.is_file() else SweepRecord()


def record_sweep(directory: Path, added: SweepRecord) -> None:
    """Add jobs to a directory's record, which several commands may do at once.

    Raises ValueError: it holds another study, or a sweep with other fixed values.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with sweep_lock(directory):
        check_study(directory, added.study)
        check_fixed(directory, added)
        before = read_sweep(directory)
        jobs = {**before.jobs, **{name: list(overrides) for name, overrides in added.jobs.items()}}
        fixed = {**before.fixed, **added.fixed}
        record = SweepRecord(added.study, jobs, _without(fixed, swept_keys(jobs.values())))
        write_atomically(directory / RECORD, yaml.safe_dump(asdict(record), sort_keys=False))


@contextmanager
def sweep_lock(directory: Path) -> Iterator[None]:
    """Hold a sweep's directory, in which its jobs are claimed and recorded by one process at a time."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(directory, LOCK_SECONDS))
        except BlockingIOError:
            raise ValueError(f"{directory}: kept locked by another command for {LOCK_SECONDS:.0f} s") from None
        yield


def check_study(directory: Path, study: str | None) -> None:
    """Raise ValueError where a directory holds another study, or none where one is to be."""
    if is_sweep_dir(directory):
        there = read_sweep(directory).study
        if there != study:
            asked = f"study={study}" if study else "a sweep without a study"
            holds = f"study {there}" if there else "a sweep that is no study"
            raise ValueError(f"{asked}: {directory} holds {holds}; name=... puts it elsewhere")


def check_fixed(directory: Path, added: SweepRecord) -> None:
    """Raise ValueError where a directory holds jobs with other values of keys that neither sweep varies.

    The names of jobs show swept values only, and a report compares these: it could not count such jobs together.
    """
    before = read_sweep(directory)
    swept = swept_keys([*before.jobs.values(), *added.jobs.values()])
    old, new = _without(before.fixed, swept), _without(added.fixed, swept)
    changed = [f"{path}: {old[path]} -> {new[path]}" for path in old if path in new and old[path] != new[path]]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise ValueError(
            f"{directory}: holds a sweep with other fixed values ({'; '.join(changed[:3])}{more}); "
            "name=... starts a new sweep, and -m KEY=VALUE,VALUE compares both in one"
        )


def fixed_values(jobs: Iterable[tuple[Sequence[str], Mapping[str, Any]]]) -> dict[str, Any]:
    """Return the values that decide the results of jobs and that are not swept, by path.

    jobs: the overrides that tell each from the others, and its configuration. What follows from a swept group is
    fixed for each of its options, by `model=ghostnet model.width`.
    """
    jobs = list(jobs)
    swept = swept_keys(overrides for overrides, _ in jobs)
    fixed: dict[str, Any] = {}
    varied: set[str] = set()
    for overrides, config in jobs:
        options = {key: f"{key}={value}" for key, value in map(_pair, overrides) if key in swept}
        for path, value in result_config(config).items():
            causes = [text for key, text in options.items() if follows(path, [key])]
            label = " ".join([*causes, path])
            if fixed.setdefault(label, value) != value:
                varied.add(label)
    return {label: value for label, value in _without(fixed, swept).items() if label not in varied}


def swept_keys(overrides: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Return the keys that the jobs of a sweep differ in, but for the seed."""
    keys = (_pair(text)[0] for texts in overrides for text in texts)
    return tuple(dict.fromkeys(key for key in keys if not is_seed(key)))


def is_seed(key: str) -> bool:
    """Return whether a key's values repeat a run, and do not change what it asks."""
    return key == "seed" or key.endswith(".seed")


def follows(path: str, keys: Sequence[str]) -> bool:
    """Return whether a path may change because one of the keys does."""
    if any(key in RECIPES or path == key or path.startswith(f"{key}.") for key in keys):
        return True
    return path.rpartition(".")[2] in DATA_DEPENDENT_KEYS and any(key.partition(".")[0] == "datamodule" for key in keys)


def _pair(override: str) -> tuple[str, str]:
    key, _, value = override.lstrip("+~").partition("=")
    return key, value


def _without(fixed: Mapping[str, Any], swept: Sequence[str]) -> dict[str, Any]:
    """The values of keys that are not swept themselves; `model=ghostnet model.width` is not, where `model` is."""
    return {
        label: value
        for label, value in fixed.items()
        if (path := label.rpartition(" ")[2]) not in swept and not is_seed(path)
    }
