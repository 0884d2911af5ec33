"""What a sweep's directory says of it: sweep.yaml, the study's name and every point, those still to come too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ghostexp.runs.text_files import write_atomically

RECORD = "sweep.yaml"


@dataclass(frozen=True)
class SweepRecord:
    """A study's name, None of a sweep that is none, and what tells its points apart: overrides by name."""

    study: str | None = None
    points: Mapping[str, Sequence[str]] = field(default_factory=dict)


def is_sweep(directory: Path) -> bool:
    """Whether a directory holds a sweep."""
    return (directory / RECORD).is_file()


def sweep_of(directory: Path) -> str | None:
    """The name of the sweep that a run is of, or that the run is of at which a task looks; None of any other."""
    parents = directory.absolute().parents[:2]
    return next((parent.name for parent in parents if is_sweep(parent)), None)


def read_sweep(directory: Path) -> SweepRecord:
    """What a directory's record says; without one, no points."""
    path = directory / RECORD
    return SweepRecord(**yaml.safe_load(path.read_bytes())) if path.is_file() else SweepRecord()


def record_sweep(directory: Path, study: str | None, points: Mapping[str, Sequence[str]]) -> None:
    """Add points to a directory's record."""
    known = {**read_sweep(directory).points, **{name: list(overrides) for name, overrides in points.items()}}
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / RECORD, yaml.safe_dump({"study": study, "points": known}, sort_keys=False))


def check_study(directory: Path, study: str | None) -> None:
    """Raise ValueError where a directory holds another study, or none where one is to be."""
    if is_sweep(directory):
        there = read_sweep(directory).study
        if there != study:
            asked = f"study={study}" if study else "a sweep without a study"
            holds = f"study {there}" if there else "a sweep that is no study"
            raise ValueError(f"{asked}: {directory} holds {holds}; name=... puts it elsewhere")
