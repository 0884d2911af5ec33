"""Means over seeds, and differences between arms over the seeds that they share, with 95 % intervals."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

LEVEL = 0.95
FEWEST = 3  # values that have an interval: of two, it is 12.7 standard errors wide to each side and tells nothing


@dataclass(frozen=True)
class Estimate:
    """A mean of n values. A single value has no standard deviation, and fewer than three have no interval."""

    n: int
    mean: float
    sd: float | None = None  # of the sample: n - 1 in the denominator
    interval: tuple[float, float] | None = None
    values: tuple[float, ...] = ()  # themselves, where there are several and yet too few

    def holds(self, value: float) -> bool:
        """Whether the interval, which there must be, holds a value."""
        assert self.interval is not None
        return self.interval[0] <= value <= self.interval[1]


@dataclass(frozen=True)
class Paired:
    """A difference to a baseline over the seeds that both have; the other seeds take no part in it."""

    estimate: Estimate
    differences: Mapping[int, float]  # by seed
    left_out: tuple[int, ...]  # seeds of only one of the two


def estimate(values: Sequence[float], possible: tuple[float, float] = (-math.inf, math.inf)) -> Estimate:
    """Mean, standard deviation and Student's t-interval of the mean, clipped to what is possible.

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
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * sd / math.sqrt(n)
    low, high = possible
    return Estimate(n, mean, sd, (max(low, mean - half), min(high, mean + half)))


def paired(
    values: Mapping[int, float],
    baseline: Mapping[int, float],
    possible: tuple[float, float] = (-math.inf, math.inf),
) -> Paired | None:
    """The difference of two arms, each a value by seed, with the t-interval of the differences of equal seeds.

    None where no seed is in both.
    """
    shared = sorted(values.keys() & baseline.keys())
    if not shared:
        return None
    differences = {seed: values[seed] - baseline[seed] for seed in shared}
    left_out = tuple(sorted(values.keys() ^ baseline.keys()))
    return Paired(estimate(list(differences.values()), possible), differences, left_out)
