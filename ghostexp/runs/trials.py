"""Read the trials of a search from their run directories, which alone decide what has been done."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ghostexp.runs.csv_table import read_rows
from ghostexp.runs.directory import RunDirectory

NAME = re.compile(r"(?:(?P<group>.+)_)?(?P<kind>trial|test)-(?P<number>\d+)_seed-(?P<seed>\d+)")
DIVERGED = "FloatingPointError"  # type of the failure of a run whose loss is not finite
FOLDER = "search"  # in the directory of a search: Optuna's journal, and
HISTORY = "history.csv"  # the order of the steps, for the curve of a report


@dataclass(frozen=True, order=True)
class TrialName:
    """Name of a trial's run: `ratio-2_trial-0007_seed-0`, or, of the winner's test with fresh seeds, `test-0007`.

    group: values of the keys of the grid, for each of which there is a search; empty: there is only one.
    """

    group: str
    number: int
    seed: int
    is_test: bool = False

    def __str__(self) -> str:
        name = f"{'test' if self.is_test else 'trial'}-{self.number:04}_seed-{self.seed}"
        return f"{self.group}_{name}" if self.group else name


@dataclass(frozen=True)
class SearchRecord:
    """What defines a search, in sweep.yaml. Values with a default are those of the last command.

    space: ranges by key, as typed. groups: overrides by name. epochs: of a whole training.
    """

    sampler: str
    seed: int
    space: Mapping[str, str]
    groups: Mapping[str, Sequence[str]]
    metric: str  # a column of metrics.csv
    direction: str
    epochs: int
    rungs: Sequence[int]
    factor: float
    horizon: str
    trials: int | None = None
    seeds: Sequence[int] = ()
    test_seeds: Sequence[int] = ()
    contenders: int = 1
    cost: str | None = None  # second objective: a key of result.json
    budget: int | None = None  # epochs of all trials together
    hours: float | None = None  # of one command
    startup: int | None = None  # trials with random values first
    test_overrides: Sequence[str] = ()
    tune_on_test: bool = False

    @property
    def stages(self) -> list[int]:
        """Return the epochs at which trials are compared, the end of the training included."""
        return [*self.rungs, self.epochs]

    def further_runs(self, size: float) -> int:
        """Return how many runs with further seeds there can be; with a cost, of a Pareto set of one trial.

        size: number of different trials.
        """
        limit = min(self.contenders, math.inf if self.trials is None else self.trials, size)
        return (1 if self.cost else int(limit)) * (len(self.seeds) - 1)

    @property
    def directions(self) -> list[str]:
        """Return the direction of each objective."""
        return [self.direction, *(["minimize"] if self.cost else [])]

    @property
    def sign(self) -> int:
        """Return the factor after which more is better."""
        return 1 if self.direction == "maximize" else -1

    def level(self, trial: "TrialRun") -> int:
        """Return how many stages a trial has reached; all only once it is tested too."""
        return len(self.stages) if trial.result is not None else sum(rung in trial.figures for rung in self.rungs)


@dataclass
class TrialRun:
    """A run of a trial as its directory has it."""

    name: TrialName
    run: RunDirectory
    figures: Mapping[int, float] = field(default_factory=dict)  # of the compared metric, by epoch
    epochs: int = 0  # trained
    result: Mapping[str, Any] | None = None  # once it is trained to the end and tested
    failure: str | None = None
    is_diverged: bool = False


def parse_name(name: str) -> TrialName | None:
    """Return a run's name in its parts; None if it is not that of a trial."""
    found = NAME.fullmatch(name)
    if found is None:
        return None
    return TrialName(found["group"] or "", int(found["number"]), int(found["seed"]), found["kind"] == "test")


def with_metric(search: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a saved search; earlier versions saved no default metric."""
    return {**search, "metric": search["metric"] or "val/acc1"}


def read_trial(directory: Path, name: TrialName, metric: str) -> TrialRun:
    """Read a run of a trial, started or not."""
    run = RunDirectory(directory / str(name))
    rows = [row for row in read_rows(run.metrics) if row.get("epoch") and _is_of_epoch(row)]
    trial = TrialRun(name, run, _figures(rows, metric), max((int(row["epoch"]) for row in rows), default=0))
    trial.result = run.read_result()
    if run.failure.is_file() and trial.result is None:
        failure = json.loads(run.failure.read_bytes())
        trial.failure, trial.is_diverged = failure["error"], failure["type"] == DIVERGED
    return trial


def read_trials(directory: Path, metric: str) -> list[TrialRun]:
    """Read all started runs of a search, in the order of their names."""
    names = (parse_name(path.parent.name) for path in directory.glob("*/config.yaml"))
    return [read_trial(directory, name, metric) for name in sorted(name for name in names if name is not None)]


def _is_of_epoch(row: Mapping[str, Any]) -> bool:
    """Return whether a row of metrics.csv is of a whole epoch, and not of a step within one."""
    return any(value and "/" in name and not name.endswith("_step") for name, value in row.items())


def _figures(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[int, float]:
    values = {int(row["epoch"]): float(row[metric]) for row in rows if row.get(metric)}
    return {epoch: value for epoch, value in values.items() if math.isfinite(value)}
