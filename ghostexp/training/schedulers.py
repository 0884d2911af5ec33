"""Learning-rate schedules as functions of the optimizer step, which give the fraction of the peak rate.

Torch's schedulers chained by `SequentialLR` compute each rate from the one before, know no fractions of an epoch, and
have a state. A function of the step has none, so that a resumed run has the same rates to the bit.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal


@dataclass
class Schedule(ABC):
    """Base of all schedules: maps the number of optimizer steps done to the fraction of the peak learning rate.

    After a linear warm-up of `warmup_epochs`, from `warmup_start_factor` on, it is `factor`, a function of the epoch,
    with every step or once an epoch.
    horizon: rising epochs, the last of which is `epochs`; up to each of them the rates are those of a training that
    ends there. None: those of the whole training.
    Raises ValueError: a value out of its range, or a warm-up as long as the training.
    """

    epochs: int
    steps_per_epoch: int
    warmup_epochs: float = field(default=0, kw_only=True)
    warmup_start_factor: float = field(default=0.0, kw_only=True)
    interval: Literal["step", "epoch"] = field(default="step", kw_only=True)
    horizon: Sequence[int] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.interval not in ("step", "epoch"):
            raise ValueError(f"scheduler.interval={self.interval}: must be step or epoch")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"scheduler.warmup_epochs={self.warmup_epochs}: must be epochs >= 0 and "
                f"< trainer.max_epochs={self.epochs}"
            )
        for name in ("warmup_start_factor", "end_factor", "start_factor", "gamma", "pct_start"):
            value = getattr(self, name, 0)
            if not 0 <= value <= 1:
                raise ValueError(f"scheduler.{name}={value}: must be a fraction of the peak rate in [0, 1]")
        self._stages = self._build_stages()

    def _build_stages(self) -> list["Schedule"]:
        ends = list(self.horizon or ())
        if not ends:
            return []
        if ends[0] < 1 or ends != sorted(set(ends)) or ends[-1] != self.epochs:
            needed = f"must be rising epochs that end with trainer.max_epochs={self.epochs}, or null"
            raise ValueError(f"scheduler.horizon={ends}: {needed}")
        if not self.warmup_epochs < ends[0]:
            raise ValueError(f"scheduler.horizon={ends}: must begin after scheduler.warmup_epochs={self.warmup_epochs}")
        return [replace(self, epochs=end, horizon=None) for end in ends]

    def __call__(self, done: int) -> float:
        if self._stages:
            following = (stage for stage in self._stages if done < stage.epochs * self.steps_per_epoch)
            return next(following, self._stages[-1])(done)
        epoch = done // self.steps_per_epoch if self.interval == "epoch" else done / self.steps_per_epoch
        if epoch >= self.warmup_epochs:
            return self.factor(epoch)
        # The first step of a warm-up from 0 would have no effect: count the step that comes next.
        ahead = epoch + (1 if self.interval == "epoch" else 1 / self.steps_per_epoch)
        rise = self.factor(self.warmup_epochs) - self.warmup_start_factor
        return self.warmup_start_factor + rise * min(1.0, ahead / self.warmup_epochs)

    @abstractmethod
    def factor(self, epoch: float) -> float:
        """Compute the fraction of the peak rate after the warm-up, at an epoch from the start of training."""


@dataclass
class Constant(Schedule):
    """Keep the peak rate."""

    def factor(self, epoch: float) -> float:
        return 1.0


@dataclass(kw_only=True)
class Cosine(Schedule):
    """Anneal by half a cosine from the peak after warm-up to `end_factor` (arXiv 1608.03983, no restarts)."""

    end_factor: float = 0.0

    def factor(self, epoch: float) -> float:
        start = self.warmup_epochs
        return _cosine(1.0, self.end_factor, (epoch - start) / max(self.epochs - start, 1e-9))


@dataclass(kw_only=True)
class Linear(Schedule):
    """Fall in a straight line from the peak after warm-up to `end_factor`."""

    end_factor: float = 0.0

    def factor(self, epoch: float) -> float:
        start = self.warmup_epochs
        progress = min(1.0, (epoch - start) / max(self.epochs - start, 1e-9))
        return 1.0 + (self.end_factor - 1.0) * progress


@dataclass(kw_only=True)
class MultiStep(Schedule):
    """Multiply the rate by `gamma` at each milestone, in epochs from the start of training.

    A milestone below 1 is a fraction of the training: 0.5 is its middle. Those after the last epoch are never reached.
    """

    milestones: Sequence[float]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if list(self.milestones) != sorted(self.milestones) or any(milestone <= 0 for milestone in self.milestones):
            raise ValueError(f"scheduler.milestones={list(self.milestones)}: must be rising epochs > 0")

    def factor(self, epoch: float) -> float:
        decays = [milestone * self.epochs if milestone < 1 else milestone for milestone in self.milestones]
        return self.gamma ** sum(epoch >= decay - 1e-9 for decay in decays)


@dataclass(kw_only=True)
class Step(Schedule):
    """Multiply the rate by `gamma` every `step_size` epochs."""

    step_size: float
    gamma: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step_size <= 0:
            raise ValueError(f"scheduler.step_size={self.step_size}: must be a number of epochs > 0")

    def factor(self, epoch: float) -> float:
        return self.gamma ** math.floor(epoch / self.step_size + 1e-9)


@dataclass(kw_only=True)
class OneCycle(Schedule):
    """Rise by a cosine over the first `pct_start` of the training, and fall by one over the rest (arXiv 1708.07120)."""

    pct_start: float = 0.3
    start_factor: float = 0.04
    end_factor: float = 4e-6

    def factor(self, epoch: float) -> float:
        top = self.pct_start * self.epochs
        if epoch < top:
            return _cosine(self.start_factor, 1.0, epoch / top)
        return _cosine(1.0, self.end_factor, (epoch - top) / max(self.epochs - top, 1e-9))


def _cosine(begin: float, end: float, progress: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * min(1.0, max(0.0, progress)))) / 2
