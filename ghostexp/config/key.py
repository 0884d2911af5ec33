"""Describe one config key: its types, range, choices and a one-line description."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
LOWER, UPPER = {"least": ">=", "above": ">"}, {"most": "<=", "below": "<"}


def kind_of(value: object) -> str:
    """Return JSON Schema's name for the type of a value."""
    return "null" if value is None else KINDS.get(type(value), type(value).__name__)


@dataclass(frozen=True)
class Key:
    """Description of a config key and its allowed values.

    kinds: type names as in JSON Schema; `number` includes integers. choices: allowed strings.
    needed: the end of an error message, such as `must be a number > 0`.
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
        """Return whether a value has one of the types and lies in the range."""
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
        """Whether every value is text, even one that looks like a number (1_1)."""
        return "string" in self.kinds and not self.choices and not {"integer", "number", "boolean"} & set(self.kinds)

    def or_null(self) -> "Key":
        """Return the same key with null allowed."""
        return replace(self, kinds=(*self.kinds, "null"), needed=f"{self.needed} or null")


Keys = dict[str, Key]


def boolean(about: str) -> Key:
    """Build a key whose value is true or false."""
    return Key(about, ("boolean",), "must be true or false")


def integer(about: str, least: int | None = None, odd: bool = False, needed: str = "") -> Key:
    """Build a key whose value is an integer."""
    bound = "" if least is None else f" >= {least}"
    needed = needed or f"must be an {'odd ' if odd else ''}integer{bound}"
    return Key(about, ("integer",), needed, least=least, odd=odd)


def number(about: str, needed: str = "", **bounds: float) -> Key:
    """Build a key whose value is a number; bounds are `least`, `above`, `most` and `below`."""
    return replace(Key(about, ("number",), needed or f"must be a number{_range(bounds)}"), **bounds)


def _range(bounds: dict[str, float]) -> str:
    lower = next((name for name in bounds if name in LOWER), None)
    upper = next((name for name in bounds if name in UPPER), None)
    if lower and upper:
        left, right = "[" if lower == "least" else "(", "]" if upper == "most" else ")"
        return f" in {left}{bounds[lower]:g}, {bounds[upper]:g}{right}"
    one = lower or upper
    return f" {(LOWER | UPPER)[one]} {bounds[one]:g}" if one else ""


def string(about: str, also: Sequence[str] = ()) -> Key:
    """Build a key whose value is text, used as typed; also: other types that are allowed."""
    return Key(about, ("string", *also), "must be text (in YAML: in quotes)")


def choice(about: str, *choices: str, needed: str = "", also: Sequence[str] = ()) -> Key:
    """Build a key whose value is one of some words; also: other types that are allowed."""
    return Key(about, ("string", *also), needed or f"must be one of {', '.join(choices)}", choices=choices)


def array(about: str, needed: str = "must be a list, [A,B]", also: Sequence[str] = ()) -> Key:
    """Build a key whose value is a list; also: other types that are allowed."""
    return Key(about, ("array", *also), needed)


def mapping(about: str, needed: str = "must be a mapping, {KEY:VALUE}") -> Key:
    """Build a key whose value is a mapping."""
    return Key(about, ("object",), needed)
