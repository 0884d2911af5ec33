"""Convert the arguments of a shell to those of Hydra: flags at any position, text and switches as typed."""

import os
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
from ghostexp.runs.naming import SWEEP_FUNCTION

SWITCHES = {"yes": "true", "on": "true", "no": "false", "off": "false"}  # as in YAML files
OF_ALL_JOBS = ("name", "output_dir", "data_dir", "hydra.sweep.dir")  # in which a comma is no sweep
REPLACED = ("model", "datamodule", "optimizer", "scheduler", "task")  # groups whose option a typed target replaces


def hydra_args(arguments: Sequence[str]) -> list[str]:
    """Sort overrides before flags, quote texts, and strip the carriage returns of scripts with Windows line ends.

    Raises ValueError: an unknown flag, or one without its value.
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
    overrides = [_as_typed(override, typed.get("task", "fit"), sweeps) for override in parsed.overrides]
    return [*_with_targets(overrides), *flags]


def _with_targets(overrides: Sequence[str]) -> list[str]:
    """Let a typed `_target_` begin its node anew, and the overrides beside it add keys.

    `optimizer._target_=torch.optim.Adam` replaces the option of the group: its other keys belong to another target.
    """
    keys = [override.lstrip("+~").partition("=")[0] for override in overrides]
    nodes = {key.rpartition(".")[0] for key in keys if key.endswith("._target_")}
    if not nodes:
        return list(overrides)
    of_earlier = any(key in ("run", "resume") for key in keys)
    opened = [
        f"{'+' if of_earlier else '++'}{override.lstrip('+')}"
        if any(key.startswith(f"{node}.") for node in nodes) and override[0] != "~"
        else override
        for key, override in zip(keys, overrides, strict=True)
    ]
    if of_earlier:
        return opened
    replaced = [node for node in sorted(nodes) if node in REPLACED and node not in keys]
    if "task" in replaced and "task.name" not in keys:
        target = next(override for override in opened if override.startswith("++task._target_="))
        opened.append(f"++task.name={target.rpartition('.')[2]}")
    return [*(f"~{node}" for node in replaced), *opened]


def quoted(text: str) -> str:
    """Return a text as an override value of Hydra: in quotes where its grammar needs them."""
    return text if _read(text) == text else QuotedString(text, Quote.single).with_quotes()


def unquoted(value: str) -> str:
    """Return the text of a value of `hydra_args`, without its quotes."""
    read = _read(value) if _has_quotes(value) else value
    return read if isinstance(read, str) else value


def form_to_type(override: str) -> str:
    """Return how to type an override whose value has characters that are special in Hydra or in a shell."""
    key, _, value = override.partition("=")
    if value[:1] == "[" and value[-1:] == "]":
        values = [part.strip().strip("\"'") for part in value[1:-1].split(",")]
        return shlex.quote(f"{key}=[{','.join(_in_quotes(part) for part in values)}]")
    return shlex.quote(f"{key}={_in_quotes(value)}")


def _in_quotes(text: str) -> str:
    return QuotedString(text, Quote.double).with_quotes()


def _parser() -> ArgumentParser:
    """Build Hydra's parser with errors of one line."""

    def error(message: str) -> NoReturn:
        raise ValueError(f"{message}; python -m ghostexp --hydra-help shows the flags")

    parser = get_args_parser()
    parser.error = error
    return parser


def _as_typed(override: str, task: str, sweeps: bool) -> str:
    """Convert an override by the type of its key: quote text, replace on and off by booleans."""
    name, equals, value = override.partition("=")
    key = key_of(name.lstrip("+~"), task)
    if not equals or key is None or not value or value == "null":
        return override
    if sweeps and name not in OF_ALL_JOBS and not os.path.exists(value):
        if SWEEP_FUNCTION.match(value) and value.endswith(")"):
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
    """Parse a value with Hydra's grammar; None if that fails."""
    try:
        return OverridesParser.create().parse_override(f"key={value}").value()
    except HydraException:
        return None


def _split(value: str) -> Iterator[str]:
    """Split the values of a sweep at commas outside of quotes and brackets; unclosed quotes are ignored."""
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
