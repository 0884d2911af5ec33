"""Compute means over seeds, and paired differences of two variants over common seeds, with 95 % intervals."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from scipy.special import stdtrit

LEVEL = 0.95
Seed = int | str  # of a run; with several that differ, their text
OneSeed = TypeVar("OneSeed", bound=Seed)
FEWEST = 3  # values with an interval; that of two values spans 12.7 standard errors to each side


@dataclass(frozen=True)
class Estimate:
    """A mean of n values. A single value has no standard deviation, and fewer than three have no interval."""

    n: int
    mean: float
    sd: float | None = None  # of the sample: n - 1 in the denominator
    interval: tuple[float, float] | None = None
    values: tuple[float, ...] = ()  # only where there are several, but fewer than three


@dataclass(frozen=True)
class Paired:
    """A difference to a baseline over common seeds; other seeds are left out."""

    estimate: Estimate
    differences: Mapping[Seed, float]  # by seed
    left_out: tuple[Seed, ...]  # seeds of only one of the two


def estimate(values: Sequence[float], possible: tuple[float, float] = (-math.inf, math.inf)) -> Estimate:
    """Compute mean, standard deviation and Student's t-interval of the mean, clipped to the possible range.

    Raises ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values to take the mean of")
    n, mean = len(values), statistics.fmean(values)
    if n == 1:
        return Estimate(n, mean)
    sd = statistics.stdev(values)
    if n < FEWEST:
        return Estimate(n, mean, sd, None, tuple(values))
    # scipy.stats' interval is the same, takes seconds more to import, and warns of equal values.
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * sd / math.sqrt(n)
    low, high = possible
    return Estimate(n, mean, sd, (max(low, mean - half), min(high, mean + half)))


def paired(
    values: Mapping[OneSeed, float],
    baseline: Mapping[OneSeed, float],
    possible: tuple[float, float] = (-math.inf, math.inf),
) -> Paired | None:
    """Compute the paired difference of two variants, each a value by seed, with its t-interval.

    None if no seed is common.
    """
    shared = sorted(values.keys() & baseline.keys(), key=_order)
    if not shared:
        return None
    differences: dict[Seed, float] = {seed: values[seed] - baseline[seed] for seed in shared}
    left_out = tuple(sorted(values.keys() ^ baseline.keys(), key=_order))
    return Paired(estimate(list(differences.values()), possible), differences, left_out)


def _order(seed: Seed) -> tuple[bool, Seed]:
    return isinstance(seed, str), seed
