"""The points of a sweep: one configuration and one directory each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.fingerprint import differences


class JobStatus(Enum):
    """How far a point is."""

    NEW = "new"
    STARTED = "started"
    FINISHED = "finished"


@dataclass
class SweepJob:
    """One job of a sweep."""

    run: RunDirectory
    distinguishing_overrides: tuple[str, ...]  # what tells it apart from the other points: model.ratio=2, seed=0
    config: dict[str, Any]
    record: Callable[[], Mapping[str, str]] = dict  # the files of .hydra/, made when the job starts
    processes: int = 1  # on each machine
    state: JobStatus = JobStatus.NEW
    params: int | None = None
    macs: int | None = None

    @property
    def name(self) -> str:
        return self.run.path.name

    @property
    def nodes(self) -> int:
        return self.config["trainer"]["num_nodes"]


def load_status(point: SweepJob) -> None:
    """Find out how far a point is, and what it took if it is finished; one that was started will go on from there.

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
    result = run.read_result()
    if result is not None:
        point.state, point.processes = JobStatus.FINISHED, result.get("devices", 1)
        point.params, point.macs = result.get("params"), result.get("macs")
    elif config["task"]["name"] == "fit":
        point.state, config["resume"] = JobStatus.STARTED, str(run.path)


def prepare_directory(point: SweepJob) -> None:
    """Make a point's directory, with its configuration and what was typed."""
    point.run.write_config(point.config)
    point.run.failure.unlink(missing_ok=True)
    folder = point.run.path / ".hydra"
    if not folder.is_dir():
        folder.mkdir()
        for name, text in point.record().items():
            (folder / name).write_text(text, encoding="utf-8")
