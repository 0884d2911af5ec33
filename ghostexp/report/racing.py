"""Decide between trials by further seeds, which all of them share: a paired t-test drops those that cannot win."""

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence

from ghostexp.report.statistics import paired
from ghostexp.runs.trials import SearchRecord, TrialRun

Figures = Mapping[int, Mapping[int, float]]  # by trial and seed; more is better


def contenders(figures: Mapping[int, float], count: int) -> list[int]:
    """Return the best trials by the figure of the first seed, the best first."""
    ranked = sorted(figures, key=lambda number: (-figures[number], number))
    return [number for number in ranked if figures[number] > -math.inf][:count]


def surviving(figures: Figures) -> list[int]:
    """Return the trials that may still win, the best mean first.

    Left out are those whose figures are lower than the leader's on the seeds that both have: the 95 % interval of the
    paired difference, from three seeds on, lies below zero; or a run of theirs has diverged.
    """
    alive = [number for number in figures if all(value > -math.inf for value in figures[number].values())]
    ranked = sorted(alive, key=lambda number: (-statistics.fmean(figures[number].values()), number))
    if not ranked:
        return []
    most = max(len(figures[number]) for number in ranked)
    leader = next(number for number in ranked if len(figures[number]) == most)
    return [number for number in ranked if number == leader or not _is_worse(figures[number], figures[leader])]


def _is_worse(values: Mapping[int, float], leader: Mapping[int, float]) -> bool:
    difference = paired(values, leader)
    interval = difference.estimate.interval if difference else None
    return interval is not None and interval[1] < 0


def next_run(figures: Figures, started: Collection[tuple[int, int]], seeds: Sequence[int]) -> tuple[int, int] | None:
    """Return trial and seed to run next: of those that may still win, one with the fewest seeds; None: none is left."""
    open_ = [
        (number, seed) for number in surviving(figures) for seed in seeds if (number, seed) not in {*started}
    ]  # surviving: the best first
    return min(open_, key=lambda run: seeds.index(run[1]), default=None)


def winner(figures: Figures, seeds: Sequence[int]) -> int | None:
    """Return the surviving trial of the highest mean that has all seeds; None if none has."""
    return next((number for number in surviving(figures) if {*figures[number]} >= {*seeds}), None)


def signed_figure(trial: TrialRun, record: SearchRecord) -> float:
    """Return the last figure of a trained trial, of which more is better; -inf if it has diverged."""
    if trial.is_diverged or not trial.figures:
        return -math.inf
    return record.sign * trial.figures[max(trial.figures)]


def contender_figures(runs: Iterable[TrialRun], record: SearchRecord) -> dict[int, dict[int, float]]:
    """Return the figures of the contenders of one search, by trial and seed."""
    ended = [run for run in runs if not run.name.is_test and (run.result is not None or run.is_diverged)]
    figures = {(run.name.number, run.name.seed): signed_figure(run, record) for run in ended}
    first = {number: value for (number, seed), value in figures.items() if seed == record.seeds[0]}
    return {
        number: {seed: figures[number, seed] for seed in record.seeds if (number, seed) in figures}
        for number in contenders(first, record.contenders)
    }
