"""Decide between trials by further seeds, which all of them share: a paired t-test drops those that cannot win."""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence

from ghostexp.report.statistics import paired

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


def next_run(
    figures: Figures, started: Collection[tuple[int, int]], seeds: Sequence[int], drops: bool = True
) -> tuple[int, int] | None:
    """Return trial and seed to run next, the first seeds first; None: none is left.

    drops: only trials that may still win; else all.
    """
    candidates = surviving(figures) if drops else list(figures)
    open_ = [(number, seed) for number in candidates for seed in seeds if (number, seed) not in {*started}]
    return min(open_, key=lambda run: seeds.index(run[1]), default=None)


def winner(figures: Figures, seeds: Sequence[int]) -> int | None:
    """Return the surviving trial of the highest mean; None while it lacks a seed."""
    best = next(iter(surviving(figures)), None)
    return best if best is not None and {*figures[best]} >= {*seeds} else None
