"""One key of the configuration: its types, its range, its choices, and one sentence about it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
LOWER, UPPER = {"least": ">=", "above": ">"}, {"most": "<=", "below": "<"}


def kind_of(value: object) -> str:
    """JSON Schema's name for the type of a value."""
    return "null" if value is None else KINDS.get(type(value), type(value).__name__)


@dataclass(frozen=True)
class Key:
    """What one key may be.

    kinds: names of types as in JSON Schema; `number` allows whole numbers too. choices: those of strings.
    needed: the end of an error's line, such as `a number > 0 is needed`.
    """

    about: str
    kinds: tuple[str, ...] = ()  # none: anything
    needed: str = ""
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    odd: bool = False

    def allows(self, value: object) -> bool:
        """Whether a value has one of the types and lies in the range."""
        kind = kind_of(value)
        if not self.kinds or kind == "null":
            return not self.kinds or "null" in self.kinds
        if kind not in self.kinds and not (kind == "integer" and "number" in self.kinds):
            return False
        if self.choices and kind in ("string", "integer"):
            return str(value) in self.choices
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self._is_in_range(value)
        return True

    def _is_in_range(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
            and (not self.odd or value % 2 == 1)
        )

    @property
    def is_text(self) -> bool:
        """Whether a value is text however it looks, so that 1_1 is no number."""
        return "string" in self.kinds and not self.choices and not {"integer", "number", "boolean"} & set(self.kinds)

    def or_null(self) -> "Key":
        """The same key, which may be null too."""
        needed = self.needed.removesuffix(" is needed")
        return replace(self, kinds=(*self.kinds, "null"), needed=f"{needed}, or null, is needed")


def boolean(about: str) -> Key:
    """True or false."""
    return Key(about, ("boolean",), "true or false is needed")


def integer(about: str, least: int | None = None, odd: bool = False, needed: str = "") -> Key:
    """A whole number."""
    bound = "" if least is None else f" >= {least}"
    said = needed or f"{'an odd' if odd else 'a'} whole number{bound} is needed"
    return Key(about, ("integer",), said, least=least, odd=odd)


def number(about: str, needed: str = "", **bounds: float) -> Key:
    """A number; bounds are `least`, `above`, `most` and `below`."""
    return replace(Key(about, ("number",), needed or f"a number{_range(bounds)} is needed"), **bounds)


def _range(bounds: dict[str, float]) -> str:
    lower = next((name for name in bounds if name in LOWER), None)
    upper = next((name for name in bounds if name in UPPER), None)
    if lower and upper:
        left, right = "[" if lower == "least" else "(", "]" if upper == "most" else ")"
        return f" in {left}{bounds[lower]:g}, {bounds[upper]:g}{right}"
    one = lower or upper
    return f" {(LOWER | UPPER)[one]} {bounds[one]:g}" if one else ""


def string(about: str, also: Sequence[str] = ()) -> Key:
    """Text, taken as it is typed; also: other types that are allowed beside it."""
    return Key(about, ("string", *also), "text (in YAML: in quotes) is needed")


def choice(about: str, *choices: str, needed: str = "", also: Sequence[str] = ()) -> Key:
    """One of some words; also: other types that are allowed beside them."""
    return Key(about, ("string", *also), needed or f"one of {', '.join(choices)} is needed", choices=choices)


def array(about: str, needed: str = "values in brackets are needed", also: Sequence[str] = ()) -> Key:
    """A list; also: other types that are allowed."""
    return Key(about, ("array", *also), needed)


def mapping(about: str, needed: str = "values by key are needed") -> Key:
    """Values by key."""
    return Key(about, ("object",), needed)
