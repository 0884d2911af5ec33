"""Learning-rate schedules as functions of time.

A schedule is built by `schedule(epochs, steps_per_epoch)` and gives, for the number of optimizer steps done, the
fraction of the peak learning rate. Being a plain function, it can be drawn, and a resumed run needs no state of it.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

Schedule = Callable[[int], float]
Interval = Literal["step", "epoch"]


def constant(
    epochs: int,
    steps_per_epoch: int,
    *,
    warmup_epochs: float = 0,
    warmup_start_factor: float = 0.0,
    interval: Interval = "step",
) -> Schedule:
    """The peak rate throughout."""
    return _schedule(lambda epoch: 1.0, epochs, steps_per_epoch, warmup_epochs, warmup_start_factor, interval)


def cosine(
    epochs: int,
    steps_per_epoch: int,
    *,
    end_factor: float = 0.0,
    warmup_epochs: float = 0,
    warmup_start_factor: float = 0.0,
    interval: Interval = "step",
) -> Schedule:
    """Half a cosine from the peak at the end of the warm-up to `final` at the end (arXiv 1608.03983, no restarts)."""
    _check_fraction("end_factor", end_factor)

    def factor(epoch: float) -> float:
        return _cosine(1.0, end_factor, (epoch - warmup_epochs) / max(epochs - warmup_epochs, 1e-9))

    return _schedule(factor, epochs, steps_per_epoch, warmup_epochs, warmup_start_factor, interval)


def multistep(
    epochs: int,
    steps_per_epoch: int,
    *,
    milestones: Sequence[float],
    gamma: float = 0.1,
    warmup_epochs: float = 0,
    warmup_start_factor: float = 0.0,
    interval: Interval = "step",
) -> Schedule:
    """The rate times `gamma` at each milestone, in epochs from the start of training; later ones are never reached.

    A milestone below 1 is a share of the training: 0.5 is its middle, whatever its length.
    """
    _check_fraction("gamma", gamma)
    if list(milestones) != sorted(milestones) or any(milestone <= 0 for milestone in milestones):
        raise ValueError(f"scheduler.milestones={list(milestones)}: must be rising epochs > 0")
    falls = [milestone * epochs if milestone < 1 else milestone for milestone in milestones]

    def factor(epoch: float) -> float:
        return gamma ** sum(epoch >= fall - 1e-9 for fall in falls)

    return _schedule(factor, epochs, steps_per_epoch, warmup_epochs, warmup_start_factor, interval)


def step(
    epochs: int,
    steps_per_epoch: int,
    *,
    step_size: float,
    gamma: float = 0.1,
    warmup_epochs: float = 0,
    warmup_start_factor: float = 0.0,
    interval: Interval = "step",
) -> Schedule:
    """The rate times `gamma` every `step_size` epochs."""
    _check_fraction("gamma", gamma)
    if step_size <= 0:
        raise ValueError(f"scheduler.step_size={step_size}: a number of epochs > 0 is needed")
    return _schedule(
        lambda epoch: gamma ** math.floor(epoch / step_size + 1e-9),
        epochs,
        steps_per_epoch,
        warmup_epochs,
        warmup_start_factor,
        interval,
    )


def onecycle(
    epochs: int,
    steps_per_epoch: int,
    *,
    pct_start: float = 0.3,
    start_factor: float = 0.04,
    end_factor: float = 4e-6,
    warmup_epochs: float = 0,
    warmup_start_factor: float = 0.0,
    interval: Interval = "step",
) -> Schedule:
    """A cosine up over the first `pct_start` of the training, a cosine down over the rest (arXiv 1708.07120)."""
    for name, value in (("pct_start", pct_start), ("start_factor", start_factor), ("end_factor", end_factor)):
        _check_fraction(name, value)
    top = max(pct_start * epochs, 1e-9)

    def factor(epoch: float) -> float:
        if epoch < top:
            return _cosine(start_factor, 1.0, epoch / top)
        return _cosine(1.0, end_factor, (epoch - top) / max(epochs - top, 1e-9))

    return _schedule(factor, epochs, steps_per_epoch, warmup_epochs, warmup_start_factor, interval)


def _schedule(
    factor: Callable[[float], float],
    epochs: int,
    steps_per_epoch: int,
    warmup_epochs: float,
    warmup_start_factor: float,
    interval: Interval,
) -> Schedule:
    """Turn a function of epochs into one of steps, with a linear warm-up to what it gives at the warm-up's end.

    Raises ValueError: an interval that is neither, or a warm-up outside the training.
    """
    if interval not in ("step", "epoch"):
        raise ValueError(f"scheduler.interval={interval}: step or epoch")
    if not 0 <= warmup_epochs < epochs:
        raise ValueError(
            f"scheduler.warmup_epochs={warmup_epochs}: epochs, at least 0 and fewer than trainer.max_epochs={epochs}"
        )
    _check_fraction("warmup_start_factor", warmup_start_factor)

    def at(done: int) -> float:
        epoch = done // steps_per_epoch if interval == "epoch" else done / steps_per_epoch
        if epoch >= warmup_epochs:
            return factor(epoch)
        # The first step of a warm-up from nothing would be lost: count the step that is about to be taken.
        ahead = epoch + (1 if interval == "epoch" else 1 / steps_per_epoch)
        return warmup_start_factor + (factor(warmup_epochs) - warmup_start_factor) * min(1.0, ahead / warmup_epochs)

    return at


def _cosine(begin: float, end: float, progress: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * min(1.0, max(0.0, progress)))) / 2


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"scheduler.{name}={value}: a fraction of the peak rate in [0, 1] is needed")
