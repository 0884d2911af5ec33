"""Read the space of a search from Hydra's grammar: choice, range, interval, with the tag log, and int."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

DIGITS = 4  # significant ones of a real number: what is trained is what a command can repeat
FINITE = 1000  # integers up to which an interval counts as finite
TAGS = {"log", "int", "float"}
Values = dict[str, str]  # of a trial, by key, as in an override


@dataclass(frozen=True)
class Dimension:
    """Values of one key: a choice of texts, or numbers from low to high.

    choices: all values of a choice, a range or a few integers, as in an override; empty: an interval.
    """

    key: str
    text: str  # as typed
    kind: Literal["choice", "int", "float"]
    low: float = 0
    high: float = 0
    step: float | None = None
    is_log: bool = False
    choices: tuple[str, ...] = ()

    @property
    def is_finite(self) -> bool:
        return bool(self.choices)

    @property
    def corners(self) -> list[str]:
        """Return the values to check before a search: all of a choice, the ends of numbers."""
        if self.kind == "choice":
            return list(self.choices)
        return list(dict.fromkeys((self.as_text(self.low), self.as_text(self.high))))

    def as_text(self, value: Any) -> str:
        """Return a value as in an override."""
        if self.kind == "choice":
            return str(value)
        if self.choices:
            return min(self.choices, key=lambda text: abs(float(text) - value))
        if self.kind == "int":
            return str(int(value))
        return repr(min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high))

    def from_text(self, text: str) -> Any:
        """Return the value that an override has."""
        return text if self.kind == "choice" else int(text) if self.kind == "int" else float(text)


def is_searched(override: Override) -> bool:
    """Return whether an override has a range of its own, and not single values, `1,2,3`, which are a grid."""
    value = override.value()
    return isinstance(value, IntervalSweep | RangeSweep) or (isinstance(value, ChoiceSweep) and not value.simple_form)


def count_trials(space: Sequence[Dimension]) -> float:
    """Return the number of different trials: of a finite space, all combinations."""
    return math.prod(len(dimension.choices) if dimension.is_finite else math.inf for dimension in space)


def corners(space: Sequence[Dimension]) -> list[Values]:
    """Return the values to check before a search: the first corner, and from it each end or choice of each key."""
    first = {dimension.key: dimension.corners[0] for dimension in space}
    return [first, *(first | {one.key: text} for one in space for text in one.corners[1:])]


def read_dimension(override: Override) -> Dimension:
    """Convert a range of Hydra.

    Raises ValueError: an empty one, an unknown tag, a logarithm of numbers <= 0, or a logarithm of steps.
    """
    key, text, value = override.get_key_element(), str(override.input_line), override.value()
    assert isinstance(value, IntervalSweep | RangeSweep | ChoiceSweep)
    if unknown := value.tags - TAGS:
        raise ValueError(f"{text}: tag must be log or int, got {sorted(unknown)[0]}")
    if isinstance(value, ChoiceSweep) and value.shuffle:
        raise ValueError(f"{text}: must not be shuffled: a search has an order of its own, the same at each command")
    typed = text.partition("=")[2]
    choices = () if isinstance(value, IntervalSweep) else tuple(override.sweep_string_iterator())
    if isinstance(value, ChoiceSweep):
        return Dimension(key, typed, "choice", choices=tuple(dict.fromkeys(choices)))
    found = _range(key, typed, choices) if isinstance(value, RangeSweep) else _interval(key, typed, value)
    if not found.low < found.high:
        raise ValueError(f"{text}: must have a lower end below its upper end")
    if found.is_log and found.low <= 0:
        raise ValueError(f"{text}: must be numbers > 0 with tag(log)")
    if value.tags & {"log"} and isinstance(value, RangeSweep):
        raise ValueError(f"{text}: tag(log) needs an interval")
    return found


def _range(key: str, typed: str, choices: tuple[str, ...]) -> Dimension:
    if len(choices) < 2:
        raise ValueError(f"{key}={typed}: must have several values")
    kind = "int" if all(text.lstrip("-").isdigit() for text in choices) else "float"
    if kind == "float":  # without the rounding errors of sums: 0.3, not 0.30000000000000004
        choices = tuple(_rounded(float(text)) for text in choices)
    choices = tuple(sorted(choices, key=float))
    numbers = [float(text) for text in choices]
    step = float(_rounded(numbers[1] - numbers[0]))
    return Dimension(key, typed, kind, numbers[0], numbers[-1], step, choices=choices)


def _rounded(number: float) -> str:
    return repr(float(f"{number:.10g}"))


def _interval(key: str, typed: str, value: IntervalSweep) -> Dimension:
    low, high = value.start, value.end
    assert low is not None
    assert high is not None
    kind = "int" if isinstance(low, int) or "int" in value.tags else "float"
    if kind == "int" and (low != int(low) or high != int(high)):
        raise ValueError(f"{key}={typed}: must be integers with int")
    is_short = kind == "int" and high - low < FINITE
    choices = tuple(map(str, range(int(low), int(high) + 1))) if is_short else ()
    return Dimension(key, typed, kind, low, high, is_log="log" in value.tags, choices=choices)
