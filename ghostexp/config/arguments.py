"""From arguments as a shell passes them to those that Hydra reads: flags anywhere, text and switches as typed."""

import os
import re
import shlex
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from ghostexp.config.key import Key
from ghostexp.config.schema import key_of

SWITCHES = {"yes": "true", "on": "true", "no": "false", "off": "false"}  # as in YAML files
OF_ALL_JOBS = ("name", "output_dir", "data_dir", "hydra.sweep.dir")  # where commas make no sweep
SWEEP = re.compile(r"(range|choice|interval|glob|sort|shuffle)\(.*\)$", re.DOTALL)


def hydra_args(arguments: Sequence[str]) -> list[str]:
    """Overrides first, then flags; without the carriage returns of a script with Windows line ends.

    Raises ValueError: a flag that Hydra does not have, or one without its value.
    """
    arguments = [argument.rstrip("\r") for argument in arguments]
    arguments = [argument for argument in arguments if argument]
    parsed = _parser().parse_intermixed_args(arguments)
    flags = list(arguments)
    for override in reversed(parsed.overrides):
        del flags[len(flags) - 1 - flags[::-1].index(override)]
    if parsed.shell_completion:
        return [*parsed.overrides, *flags]
    typed = dict(override.split("=", 1) for override in parsed.overrides if "=" in override)
    sweeps = parsed.multirun or typed.get("study", "null") != "null" or typed.get("hydra.mode") == "MULTIRUN"
    return [*(_as_typed(override, typed.get("task", "fit"), sweeps) for override in parsed.overrides), *flags]


def quoted(text: str) -> str:
    """A text as Hydra has to be given it, whatever letters it has: as it is, or in quotes."""
    return text if _read(text) == text else QuotedString(text, Quote.single).with_quotes()


def unquoted(value: str) -> str:
    """The text of a value that `hydra_args` gave: without its quotes, if it has some."""
    read = _read(value) if _has_quotes(value) else value
    return read if isinstance(read, str) else value


def form_to_type(override: str) -> str:
    """How to type an override whose value has letters that mean something to Hydra, to the shell, or to both."""
    key, _, value = override.partition("=")
    if value[:1] == "[" and value[-1:] == "]":
        values = [part.strip().strip("\"'") for part in value[1:-1].split(",")]
        return shlex.quote(f"{key}=[{','.join(_in_quotes(part) for part in values)}]")
    return shlex.quote(f"{key}={_in_quotes(value)}")


def _in_quotes(text: str) -> str:
    return QuotedString(text, Quote.double).with_quotes()


def _parser() -> ArgumentParser:
    """Hydra's parser, whose errors are one line."""

    def error(message: str) -> NoReturn:
        raise ValueError(f"{message}; python -m ghostexp --hydra-help shows the flags")

    parser = get_args_parser()
    parser.error = error
    return parser


def _as_typed(override: str, task: str, sweeps: bool) -> str:
    """An override whose value Hydra reads as what the schema says of its key: text as it is, on and off as booleans."""
    name, equals, value = override.partition("=")
    key = key_of(name.lstrip("+~"), task)
    if not equals or key is None or not value or value == "null":
        return override
    if sweeps and name not in OF_ALL_JOBS and not os.path.exists(value):
        if SWEEP.match(value):
            return override
        return f"{name}={','.join(_value(part, key) for part in _split(value))}"
    return f"{name}={_value(value, key)}"


def _value(value: str, key: Key) -> str:
    if "boolean" in key.kinds:
        return SWITCHES.get(value.lower(), value)
    takes_list = "array" in key.kinds or "object" in key.kinds
    if not key.is_text or value == "null" or (takes_list and value[:1] in "[{"):
        return value
    read = _read(value)
    if isinstance(read, str) and _has_quotes(value) and not os.path.exists(value):
        return value
    return quoted(read if isinstance(read, str) and "\\" in value else value)  # Hydra's own escapes: \= and the like


def _has_quotes(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"


def _read(value: str) -> object:
    """What Hydra makes of a value; None where it cannot read it."""
    try:
        return OverridesParser.create().parse_override(f"key={value}").value()
    except HydraException:
        return None


def _split(value: str) -> Iterator[str]:
    """The parts of a sweep: at commas that are not in quotes or brackets. What is never closed closes nothing."""
    depth, quote, start = 0, "", 0
    for position, letter in enumerate(value):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'" and letter in value[position + 1 :]:
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth = max(0, depth - 1)
        elif letter == "," and depth == 0:
            yield value[start:position].strip()
            start = position + 1
    yield value[start:].strip()
