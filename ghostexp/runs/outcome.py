"""Separate a task's result from its optional outputs, whose failure must not lose the result."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


class Paused(BaseException):
    """A training was paused, as asked, after some of its epochs, its last checkpoint saved.

    Not an Exception: no library may swallow it.
    """


@dataclass
class Outputs:
    """Write tables, pictures and uploads; a failure affects neither the others nor the result."""

    failures: list[str] = field(default_factory=list)  # one line each

    def make(self, name: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Call a function; if it raises, log the error, add it to `failures` and return None."""
        try:
            return function(*args, **kwargs)
        except Exception as error:
            text = " ".join(str(error).split())
            self.failures.append(f"{name}: {type(error).__name__}" + (f": {text}" if text else ""))
            log.error("%s could not be written", name, exc_info=error)
            return None


@dataclass(frozen=True)
class Outcome:
    """Result of a task, and a function that writes its outputs once the result is saved."""

    result: dict[str, Any]
    make_outputs: Callable[[Outputs], None]
