"""Separate a task's result from the outputs that are made of it: none of these may cost the result."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Outputs:
    """Make tables, pictures and uploads one by one; one that fails costs neither the others nor the result."""

    failures: list[str] = field(default_factory=list)  # a line each

    def make(self, name: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Call a function; None, and a line in `failures` and the log, where it raises."""
        try:
            return function(*args, **kwargs)
        except Exception as error:
            text = " ".join(str(error).split())
            self.failures.append(f"{name}: {type(error).__name__}" + (f": {text}" if text else ""))
            log.error("%s could not be made", name, exc_info=error)
            return None


@dataclass(frozen=True)
class Outcome:
    """A task's result, and what to make once it is written."""

    result: dict[str, Any]
    make_outputs: Callable[[Outputs], None]
