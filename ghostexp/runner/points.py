"""The points of a sweep: one configuration and one directory each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from ghostexp.runs.directory import RunDirectory, write_atomically
from ghostexp.runs.fingerprint import differences

RECORD = "sweep.yaml"


class State(Enum):
    """How far a point is."""

    NEW = "new"
    STARTED = "started"
    FINISHED = "finished"


@dataclass
class Point:
    """One job of a sweep."""

    run: RunDirectory
    telling: tuple[str, ...]  # what tells it apart from the other points: model.ratio=2, seed=0
    config: dict[str, Any]
    record: Mapping[str, str] = field(default_factory=dict)  # files of .hydra/
    processes: int = 1  # on each machine
    state: State = State.NEW
    params: int | None = None
    macs: int | None = None

    @property
    def name(self) -> str:
        return self.run.path.name

    @property
    def nodes(self) -> int:
        return self.config["trainer"]["num_nodes"]


def look_up(point: Point) -> None:
    """Find out how far a point is; where it has a checkpoint, it will go on from there.

    Raises ValueError: its directory holds a run of another configuration.
    """
    run, config = point.run, point.config
    if not run.config.is_file():
        return
    before = run.read_config("hydra.sweep.dir")
    changed = differences(before, config)
    if changed or before["task"] != config["task"]:
        what = "; ".join(changed[:3]) or f"task: {before['task']} -> {config['task']}"
        raise ValueError(f"{run.path}: holds a run of another configuration ({what}); name=... starts a new sweep")
    if run.result.is_file():
        point.state = State.FINISHED
    elif config["task"]["name"] == "fit":
        point.state, config["resume"] = State.STARTED, str(run.path)


def take(point: Point) -> None:
    """Make a point's directory, with its configuration and what was typed."""
    point.run.write_config(point.config)
    point.run.failure.unlink(missing_ok=True)
    folder = point.run.path / ".hydra"
    if not folder.is_dir():
        folder.mkdir()
        for name, text in point.record.items():
            (folder / name).write_text(text)


def record_sweep(directory: Path, study: str | None, points: Mapping[str, Sequence[str]]) -> None:
    """Add points to what the directory's sweep.yaml says is there or is still to come."""
    known = read_sweep(directory)["points"]
    record = {"study": study, "points": {**known, **{name: list(overrides) for name, overrides in points.items()}}}
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / RECORD, yaml.safe_dump(record, sort_keys=False))


def read_sweep(directory: Path) -> dict[str, Any]:
    """What sweep.yaml says: the study's name, and overrides by point."""
    path = directory / RECORD
    return yaml.safe_load(path.read_text()) if path.is_file() else {"study": None, "points": {}}


def check_study(directory: Path, study: str | None) -> None:
    """Raise ValueError where a directory holds another study, or none where one is to be."""
    if (directory / RECORD).is_file():
        there = read_sweep(directory)["study"]
        if there != study:
            asked = f"study={study}" if study else "a sweep without a study"
            holds = f"study {there}" if there else "a sweep that is no study"
            raise ValueError(f"{asked}: {directory} holds {holds}; name=... puts it elsewhere")
