"""Load the runs of a report, each with its status: finished, failed, unfinished, missing or unreadable."""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ghostexp.runs.csv_table import read_rows
from ghostexp.runs.directory import RunDirectory, SafeLoader
from ghostexp.runs.fingerprint import flatten, result_config
from ghostexp.runs.metrics import Metric, metric_of, primary_metric
from ghostexp.runs.naming import run_title
from ghostexp.runs.sweep_record import is_seed, is_sweep_dir, override_pair, read_sweep


class RunStatus(Enum):
    """Status of a run in a report; only finished runs are averaged."""

    FINISHED = "finished"
    FAILED = "failed"
    UNFINISHED = "unfinished"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    INCOMPATIBLE = "incompatible"  # differs from the others in more than the varied keys
    DUPLICATE = "duplicate"  # variant and seed of another run


@dataclass(eq=False)
class Run:
    """A run as its directory records it."""

    directory: RunDirectory
    name: str  # unique in a report
    state: RunStatus
    note: str = ""  # why a run is not averaged
    config: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, str] = field(default_factory=dict)  # of its sweep, by key; seeds included

    @cached_property
    def values(self) -> dict[str, Any]:
        """Return every configured value by path, and the chosen option by group."""
        return flatten(self.config) | dict(self.config.get("choices", {}))

    @cached_property
    def result_values(self) -> dict[str, Any]:
        """Return the values that decide the result, by path."""
        return result_config(self.config)

    @property
    def seed(self) -> int | str:
        """Return what tells it from the runs that repeat it: its seed, with other seeds that differ from it."""
        seed = self.config["seed"]
        others = {path: value for path, value in self.values.items() if is_seed(path) and value not in (seed, None)}
        return ", ".join([str(seed), *(f"{path}={value}" for path, value in others.items())]) if others else seed

    def has(self, key: str) -> bool:
        """Return whether the value of a key is known: not if the run has not started and its sweep has another key."""
        return key in self.values or key in self.result_values or key in self.overrides

    def value(self, key: str) -> Any:
        """Return the value of a swept key: a configured one, a chosen option, or what the sweep's override has."""
        for values in (self.values, self.result_values):
            if key in values:
                return values[key]
        return yaml.load(self.overrides[key], SafeLoader) if key in self.overrides else None

    @cached_property
    def metric(self) -> Metric:
        """Return the metric that compares it with others."""
        return metric_of(self.result)

    @property
    def accuracy(self) -> float:
        """Return the test accuracy or mAP in percent, or the metric of `monitor`."""
        return self.test[self.metric.name]

    @property
    def test(self) -> Mapping[str, float]:
        """Return the metrics of the test set by name; none of an unfinished run."""
        return self.result.get("metrics", {}).get("test", {})

    @property
    def has_original_data(self) -> bool:
        """Return whether its images may be those of the data set's authors: folders of CIFAR-10 may be other files."""
        return self.result.get("data_format") != "class folders"

    @property
    def machine(self) -> str:
        """Return what it trained on: `AMD EPYC (2 cores), 1 thread`, or `2 x NVIDIA H100`."""
        devices = self.result.get("devices", 1) * self.result.get("nodes", 1)
        threads = self.result.get("threads") if self.result.get("accelerator") == "cpu" else None
        text = f"{devices} x " * (devices > 1) + str(self.result.get("hardware", "unknown"))
        return text if threads is None else f"{text}, {threads} thread{'s' * (threads > 1)}"

    @cached_property
    def curve(self) -> list[dict[str, Any]]:
        """Return the rows of metrics.csv."""
        return read_rows(self.directory.metrics)


@dataclass(frozen=True)
class RunSet:
    """Runs in the order of their names, and the sweep that they belong to."""

    runs: list[Run]
    study: str | None = None
    jobs: Mapping[str, Sequence[str]] = field(default_factory=dict)  # overrides by name; empty: not one sweep


def find_study(folder: Path) -> RunSet:
    """Load the runs of a study or another sweep, jobs that have not started included.

    Raises ValueError: there are no training runs.
    """
    record = read_sweep(folder)
    names = [*record.jobs, *(name for name in _inside(folder) if name not in record.jobs)]
    runs = [run for name in names if (run := read_run(folder / name, name, name in record.jobs)) is not None]
    for run in runs:
        run.overrides = dict(map(override_pair, record.jobs.get(run.name, ())))
    if not runs:
        raise ValueError(f"{folder}: no training runs found; set study=NAME, name=NAME or task.runs=DIR")
    return RunSet(runs, record.study, record.jobs)


def find_runs(patterns: Sequence[str]) -> RunSet:
    """Load the runs in run directories, in folders of them, or matched by globs; or those of one sweep.

    Raises ValueError: a pattern matches no training run.
    """
    if len(patterns) == 1 and is_sweep_dir(Path(patterns[0]).expanduser()):
        return find_study(Path(patterns[0]).expanduser())
    found: dict[Path, Run] = {}
    for pattern in patterns:
        runs = [run for path in directories(pattern) if (run := read_run(path, run_title(path))) is not None]
        if not runs:
            raise ValueError(f"task.runs={pattern}: must match directories of training runs")
        found |= {run.directory.path.absolute(): run for run in runs}
    return RunSet(list(found.values()))


def directories(pattern: str) -> list[Path]:
    """Return the run directories that a path or a glob matches, or that lie in a matched folder."""
    path = Path(pattern).expanduser()
    paths = [path] if path.exists() else [Path(match) for match in sorted(glob.glob(str(path)))]
    inner = [[path] if (path / "config.yaml").is_file() else map(path.joinpath, _inside(path)) for path in paths]
    return [path for paths in inner for path in paths]


def read_run(path: Path, name: str, is_planned: bool = False) -> Run | None:
    """Load a run; None if the directory is not that of a training, unless it is planned to become one."""
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
        float(test[primary_metric(result) or "test/acc1"])  # raises if the result has no test metric
        return RunStatus.FINISHED, ""
    if directory.failure.is_file():
        return RunStatus.FAILED, directory.read_failure()
    rows = read_rows(directory.metrics)
    epochs = rows[-1]["epoch"] if rows else 0
    return (
        RunStatus.UNFINISHED,
        f"{epochs} of {config['trainer']['max_epochs']} epochs; still running, or to be continued by resume=",
    )


def _inside(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("*/config.yaml"))
