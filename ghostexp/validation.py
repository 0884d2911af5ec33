"""Check arguments of the datamodules: errors of one line that name the config key."""

import logging
import math
import sys

from lightning.pytorch.utilities import rank_zero_only

log = logging.getLogger(__name__)


def require(is_valid: bool, key: str, value: object, expected: str) -> None:
    """Raise ValueError `datamodule.KEY=VALUE: EXPECTED` unless is_valid."""
    if not is_valid:
        raise ValueError(f"datamodule.{key}={value}: {expected}")


@rank_zero_only
def notice(text: str) -> None:
    """Write a message to the log and to stderr, once for all processes of a run."""
    log.warning("%s", text)
    print(text, file=sys.stderr, flush=True)


def require_int(key: str, value: object, at_least: int) -> None:
    """Raise ValueError unless value is an integer >= at_least."""
    is_valid = isinstance(value, int) and not isinstance(value, bool) and value >= at_least
    require(is_valid, key, value, f"must be an integer >= {at_least}")


def require_number(key: str, value: object, at_least: float, at_most: float = math.inf) -> None:
    """Raise ValueError unless value is a finite number in [at_least, at_most]."""
    is_valid = isinstance(value, int | float) and not isinstance(value, bool) and at_least <= value <= at_most
    bounds = f">= {at_least:g}" if at_most == math.inf else f"in [{at_least:g}, {at_most:g}]"
    require(is_valid and value != math.inf, key, value, f"must be a number {bounds}")


def require_channels(key: str, value: object, in_chans: int) -> None:
    """Raise ValueError unless value is None or a list of in_chans numbers in [0, 1]."""
    is_list = isinstance(value, list | tuple) and len(value) == in_chans
    is_valid = is_list and all(type(number) in (int, float) and 0 <= number <= 1 for number in value)  # pyright: ignore
    expected = f"must be a list of {in_chans} numbers in [0, 1], one for each channel, or null"
    require(value is None or is_valid, key, value, expected)


def require_fraction(key: str, value: object) -> None:
    """Raise ValueError unless value is a number in (0, 1]."""
    is_valid = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1
    require(is_valid, key, value, "must be a number in (0, 1]")
