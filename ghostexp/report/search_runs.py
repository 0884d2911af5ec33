"""Load a search for its report: the trials of each value of the grid, and who has won."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ghostexp.report.finalists import contender_figures, costs_of, finalists
from ghostexp.report.racing import surviving
from ghostexp.report.statistics import Estimate, Paired, estimate, paired
from ghostexp.report.variants import symbol
from ghostexp.runs.metrics import Metric, metric_of
from ghostexp.runs.sweep_record import read_sweep
from ghostexp.runs.trials import SearchRecord, TrialRun, read_trials, with_metric


@dataclass(eq=False)
class Group:
    """Search of one value of the grid."""

    name: str
    overrides: Sequence[str]
    record: SearchRecord
    runs: list[TrialRun]
    values: Mapping[int, Mapping[str, str]]  # of each trial, by key

    @property
    def label(self) -> str:
        """Return the values of the grid; empty if there is none."""
        pairs = [text.split("=", 1) for text in self.overrides]
        return ", ".join(f"{symbol(key)} = {value}" for key, value in pairs)

    @property
    def metric(self) -> Metric:
        """Return the searched metric, of the validation."""
        return Metric(self.record.metric, self.record.direction == "maximize")

    @property
    def test_metric(self) -> Metric:
        """Return the metric of the tests with fresh seeds."""
        return metric_of(next((run.result for run in self.runs if run.name.is_test and run.result), {}))

    def estimate_of_tests(self, number: int) -> Estimate | None:
        """Return mean and interval of a finalist's tests over fresh seeds."""
        figures = list(self.tests_of(number).values())
        return estimate(figures, self.test_metric.range) if figures else None

    @cached_property
    def trials(self) -> list[TrialRun]:
        """Return the runs of the first seed."""
        return [run for run in self.runs if not run.name.is_test and run.name.seed == self.record.seeds[0]]

    @cached_property
    def finalists(self) -> list[int]:
        """Return the number of the winner, or with a cost those of the Pareto set; empty while it is open."""
        return finalists(self.runs, self.record)

    @cached_property
    def figures(self) -> dict[int, dict[int, float]]:
        """Return the figures of the contenders by trial and seed, of which more is better."""
        return contender_figures(self.runs, self.record)

    @property
    def costs(self) -> dict[int, float]:
        """Return the costs of the trained trials; empty without a cost."""
        return costs_of(self.runs, self.record)

    @cached_property
    def first_figures(self) -> dict[int, float]:
        """Return the figures of the trials at the first rung; without rungs, the last ones of trained trials."""
        if self.record.rungs:
            first = self.record.rungs[0]
            return {run.name.number: run.figures[first] for run in self.trials if first in run.figures}
        return {run.name.number: run.figures[max(run.figures)] for run in self.trials if run.result and run.figures}

    def seeds_of(self, number: int) -> dict[int, float]:
        """Return the last figures of a trial by seed: of the first, and of further ones trained to the end."""
        first, *further = self.record.seeds
        runs = [run for run in self.runs if run.name.number == number and not run.name.is_test and run.figures]
        counted = [run for run in runs if run.name.seed == first or (run.name.seed in further and run.result)]
        return {run.name.seed: run.figures[max(run.figures)] for run in counted}

    def tests_of(self, number: int) -> dict[int, float]:
        """Return the test figures of a finalist by fresh seed."""
        found = [run for run in self.runs if run.name.is_test and run.result and run.name.number == number]
        return {run.name.seed: test_figure(run) for run in found}

    @property
    def has_tests(self) -> bool:
        return any(self.tests_of(number) for number in self.finalists)

    @property
    def runner_up(self) -> Paired | None:
        """Return the paired difference of the winner to the next best contender that still could have won."""
        if len(self.finalists) != 1 or self.record.cost:
            return None
        others = [number for number in surviving(self.figures) if number not in self.finalists]
        return paired(self.figures[self.finalists[0]], self.figures[others[0]]) if others else None

    @property
    def best(self) -> list[TrialRun]:
        """Return the trials, the furthest and best first."""
        return sorted(self.trials, key=lambda run: (run.name.number not in self.finalists, *self._rank(run)))

    def _rank(self, run: TrialRun) -> tuple[float, ...]:
        figures = self.seeds_of(run.name.number)
        mean = self.record.sign * statistics.fmean(figures.values()) if figures else float("-inf")
        return (run.is_diverged, -self.record.level(run), -mean, run.name.number)

    def estimate_of(self, number: int) -> Estimate | None:
        """Return mean and interval of a trial's figures over its seeds."""
        figures = list(self.seeds_of(number).values())
        return estimate(figures, self.metric.range) if figures else None

    @property
    def epochs(self) -> int:
        """Return the epochs trained with the first seed."""
        return sum(run.epochs for run in self.trials)

    @property
    def further_epochs(self) -> int:
        """Return the epochs trained with further seeds, the tests of the winner not counted."""
        return sum(run.epochs for run in self.runs if not run.name.is_test) - self.epochs


def test_figure(run: TrialRun) -> float:
    """Return the primary test metric of a run."""
    assert run.result is not None
    return run.result["metrics"]["test"][metric_of(run.result).name]


def load_search(folder: Path) -> list[Group]:
    """Load the searches in a directory.

    Raises ValueError: no trial has started.
    """
    sweep = read_sweep(folder)
    record = SearchRecord(**with_metric(sweep.search))
    runs = read_trials(folder, record.metric)
    if not runs:
        raise ValueError(f"{folder}: no trial of the search has started")
    sweep = read_sweep(folder)  # again: a running search records each trial before it starts
    groups = []
    for name, overrides in record.groups.items():
        ours = [run for run in runs if run.name.group == name]
        jobs = {run.name.number: dict(text.split("=", 1) for text in sweep.jobs[str(run.name)]) for run in ours}
        values = {number: {key: job[key] for key in record.space} for number, job in jobs.items()}
        groups.append(Group(name, overrides, record, ours, values))
    return groups
