"""Check arguments of datamodules; errors are one line that names the config key."""

import logging
import math
import sys

from lightning.pytorch.utilities import rank_zero_only

log = logging.getLogger(__name__)


def require(right: bool, key: str, value: object, needed: str) -> None:
    """Raise ValueError `datamodule.KEY=VALUE: NEEDED` unless right."""
    if not right:
        raise ValueError(f"datamodule.{key}={value}: {needed}")


@rank_zero_only
def notice(text: str) -> None:
    """Log and print a notice about the data, once for all processes of a run."""
    log.warning("%s", text)
    print(text, file=sys.stderr, flush=True)


def require_int(key: str, value: object, at_least: int) -> None:
    """Raise ValueError unless value is an integer >= at_least."""
    right = isinstance(value, int) and not isinstance(value, bool) and value >= at_least
    require(right, key, value, f"must be an integer >= {at_least}")


def require_number(key: str, value: object, at_least: float, at_most: float = math.inf) -> None:
    """Raise ValueError unless value is a finite number in [at_least, at_most]."""
    right = isinstance(value, int | float) and not isinstance(value, bool) and at_least <= value <= at_most
    right = right and value != math.inf
    allowed = f" >= {at_least:g}" if at_most == math.inf else f" in [{at_least:g}, {at_most:g}]"
    require(right, key, value, f"must be a number{allowed}")


def require_channels(key: str, value: object, in_chans: int) -> None:
    """Raise ValueError unless value is None or a list of in_chans numbers in [0, 1]."""
    is_list = isinstance(value, list | tuple) and len(value) == in_chans
    right = is_list and all(type(number) in (int, float) and 0 <= number <= 1 for number in value)  # pyright: ignore
    needed = f"must be a list of {in_chans} numbers in [0, 1], one for each channel, or null"
    require(value is None or right, key, value, needed)


def require_fraction(key: str, value: object) -> None:
    """Raise ValueError unless value is a number in (0, 1]."""
    right = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1
    require(right, key, value, "must be a number in (0, 1]")
