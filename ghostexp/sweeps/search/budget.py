"""Count what a search has spent of its budget of epochs and time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ghostexp.sweeps.search.trial_search import TrialSearch


@dataclass
class Budget:
    """Budget of all trials together, of which each search has an equal part; None: no limit.

    The time is that of this command.
    """

    epochs: int | None
    hours: float | None
    started: float = field(default_factory=time.monotonic)

    def allows(self, search: TrialSearch, epochs: int, searches: int = 1) -> bool:
        """Return whether one of several searches may start so many epochs."""
        return not self.is_over and (self.epochs is None or self.spent([search]) + epochs <= self.epochs / searches)

    @property
    def is_over(self) -> bool:
        """Return whether the time has passed."""
        return self.hours is not None and time.monotonic() - self.started >= 3600 * self.hours

    @staticmethod
    def spent(searches: Sequence[TrialSearch]) -> int:
        """Return the epochs trained, and those that running trials are about to."""
        steps = [step for search in searches for step in search.running.values() if not step.name.is_test]
        return Budget.trained(searches) + sum(step.epochs for step in steps)

    @staticmethod
    def trained(searches: Sequence[TrialSearch]) -> int:
        """Return the epochs trained, the tests of the winners not counted."""
        return sum(run.epochs for search in searches for run in search.runs.values() if not run.name.is_test)

    def left(self, searches: Sequence[TrialSearch]) -> str:
        """Describe what is left."""
        parts = []
        if self.epochs is not None:
            parts.append(f"{max(0, self.epochs - self.spent(searches))} of {self.epochs} epochs left")
        if self.hours is not None:
            hours = max(0.0, self.hours - (time.monotonic() - self.started) / 3600)
            parts.append(f"{hours:.2f} of {self.hours:g} hours left")
        return ", ".join(parts)
