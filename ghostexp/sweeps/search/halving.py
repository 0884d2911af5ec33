"""Choose which trial goes on: asynchronous successive halving (arXiv 1810.05934)."""

import math
from collections.abc import Collection, Mapping, Sequence

Figures = Mapping[int, float]  # by number of the trial; more is better, and -inf is that of a diverged one


def promotable(rungs: Sequence[Figures], gone_on: Sequence[Collection[int]], factor: float, is_closed: bool) -> int:
    """Return the rung of which a trial may go on, the highest first; -1: none.

    rungs: figures of the trials that have reached each. gone_on: those that have left it, or are about to.
    is_closed: no further trial will reach any of them: then the best of each goes on, however few there are.
    """
    for number in reversed(range(len(rungs))):
        if best_waiting(rungs[number], gone_on[number], factor, is_closed) is not None:
            return number
    return -1


def best_waiting(figures: Figures, gone_on: Collection[int], factor: float, is_closed: bool) -> int | None:
    """Return the best trial of a rung that is in its best 1 / factor and has not gone on; None if there is none."""
    allowed = math.floor(len(figures) / factor)
    if is_closed:
        allowed = max(1, allowed)
    ranked = sorted((number for number in figures if figures[number] > -math.inf), key=lambda n: (-figures[n], n))
    return next((number for number in ranked[:allowed] if number not in gone_on), None)
