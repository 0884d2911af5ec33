"""The runs that a report is about, each as what it is: finished, failed, unfinished, missing or unreadable."""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from ghostexp.runs.csv_table import read_rows
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.fingerprint import flatten, result_config
from ghostexp.runs.metrics import primary_metric
from ghostexp.runs.naming import run_title
from ghostexp.runs.sweep_record import is_sweep_dir, read_sweep


class RunStatus(Enum):
    """What a run is to a report; only the finished are averaged."""

    FINISHED = "finished"
    FAILED = "failed"
    UNFINISHED = "unfinished"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    INCOMPATIBLE = "foreign"  # differs from the others in more than what the study varies
    DUPLICATE = "repeated"  # an arm's seed once more


@dataclass(eq=False)
class Run:
    """What a run's directory says."""

    directory: RunDirectory
    name: str  # among the runs of a report
    state: RunStatus
    note: str = ""  # what there is to say of a run that is not finished
    config: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def values(self) -> dict[str, Any]:
        """All that was configured, by path, and the chosen option by group."""
        return flatten(self.config) | dict(self.config.get("choices", {}))

    @cached_property
    def decides(self) -> dict[str, Any]:
        """What of it decides the result."""
        return result_config(self.config)

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def accuracy(self) -> float:
        """Test accuracy in percent, or mAP."""
        test = self.result["metrics"]["test"]
        name = primary_metric(test)
        assert name is not None
        return test[name]

    @cached_property
    def curve(self) -> list[dict[str, Any]]:
        """The rows of metrics.csv."""
        return read_rows(self.directory.metrics)


@dataclass(frozen=True)
class RunSet:
    """Runs in the order of their names, and the sweep that they are of."""

    runs: list[Run]
    study: str | None = None
    jobs: Mapping[str, Sequence[str]] = field(default_factory=dict)  # overrides by name; empty: of no one sweep


def find_study(folder: Path) -> RunSet:
    """The runs of a study or another sweep, those too that its record says are still to come.

    Raises ValueError: there are none.
    """
    said = read_sweep(folder)
    names = [*said.jobs, *(name for name in _inside(folder) if name not in said.jobs)]
    runs = [run for name in names if (run := read_run(folder / name, name, name in said.jobs)) is not None]
    if not runs:
        raise ValueError(f"{folder}: no trainings there; study=NAME, name=NAME or task.runs=DIR is needed")
    return RunSet(runs, said.study, said.jobs)


def find_runs(patterns: Sequence[str]) -> RunSet:
    """The runs in directories, each a run's own or one that holds several, or named by globs; or a whole sweep's.

    Raises ValueError: a pattern matches no training.
    """
    if len(patterns) == 1 and is_sweep_dir(Path(patterns[0]).expanduser()):
        return find_study(Path(patterns[0]).expanduser())
    found: dict[Path, Run] = {}
    for pattern in patterns:
        runs = [run for path in directories(pattern) if (run := read_run(path, run_title(path))) is not None]
        if not runs:
            raise ValueError(f"task.runs={pattern}: no trainings there; run directories, or a glob of them, are needed")
        found |= {run.directory.path.absolute(): run for run in runs}
    return RunSet(list(found.values()))


def directories(pattern: str) -> list[Path]:
    """The run directories that a path, or a glob, names: runs' own, or those of what holds several."""
    paths = [Path(match) for match in sorted(glob.glob(str(Path(pattern).expanduser())))]
    inner = [[path] if (path / "config.yaml").is_file() else map(path.joinpath, _inside(path)) for path in paths]
    return [path for paths in inner for path in paths]


def read_run(path: Path, name: str, is_planned: bool = False) -> Run | None:
    """What is in a directory; None where it is no training's, unless it is planned to be one."""
    directory = RunDirectory(path)
    if not directory.config.is_file():
        return Run(directory, name, RunStatus.MISSING, "not started") if is_planned else None
    try:
        config = directory.read_config()
        if config["task"]["name"] != "fit":
            return None
        if missing := [key for key in ("seed", "choices") if key not in config]:
            raise ValueError(f"config.yaml has no {missing[0]}")
        return Run(directory, name, *_state(directory, config), config, directory.read_result() or {})
    except (ValueError, KeyError, TypeError, OSError) as error:
        return Run(directory, name, RunStatus.UNREADABLE, " ".join(f"{type(error).__name__}: {error}".split()))


def _state(directory: RunDirectory, config: Mapping[str, Any]) -> tuple[RunStatus, str]:
    result = directory.read_result()
    if result is not None:
        test = result["metrics"]["test"]
        float(test[primary_metric(test) or "test/acc1"])  # or what is raised for a result that has none
        return RunStatus.FINISHED, ""
    if directory.failure.is_file():
        return RunStatus.FAILED, directory.read_failure()
    rows = read_rows(directory.metrics)
    epochs = rows[-1]["epoch"] if rows else 0
    return (
        RunStatus.UNFINISHED,
        f"{epochs} of {config['trainer']['max_epochs']} epochs; it runs, or resume= continues it",
    )


def _inside(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("*/config.yaml"))
