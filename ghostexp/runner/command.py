"""What a command line says to Hydra, and what it says to an earlier run's configuration."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ghostexp.runner.arguments import quoted, unquoted
from ghostexp.runs.directory import RunDirectory

CHANGEABLE = ("trainer", "logger", "datamodule", "callbacks", "threads", "channels_last", "compile", "name")
FROM_COMMAND = ("task", "run", "resume", "traceback", "output_dir", "debug", "hydra")


@dataclass(frozen=True)
class Command:
    """A command line, taken apart. Without `run=` or `resume=`, all of it is for Hydra."""

    for_hydra: list[str]
    key: str = ""  # run or resume
    earlier: RunDirectory | None = None
    config: dict[str, Any] = field(default_factory=dict)  # the earlier run's
    groups: list[str] = field(default_factory=list)  # what is to be taken whole from what Hydra composes
    changes: list[str] = field(default_factory=list)  # overrides of the earlier run's values


def take_apart(arguments: Sequence[str]) -> Command:
    """Find the earlier run, and send each override to where its key is; arguments are those for Hydra.

    Raises ValueError: no run there, several at once, or a change of what an earlier run brings.
    """
    given = dict(argument.split("=", 1) for argument in arguments if argument.startswith(("run=", "resume=")))
    given = {key: unquoted(value) for key, value in given.items() if value not in ("null", "")}
    if not given:
        return Command(list(arguments))
    if len(given) > 1:
        raise ValueError("run= and resume=: one of them; resume= continues a run, run= looks at it")
    ((key, value),) = given.items()
    if any(argument in ("-m", "--multirun") for argument in arguments):
        raise ValueError(f"{key}={value}: takes one run, and no -m; a repeated sweep continues its jobs")
    earlier = RunDirectory(Path(value).absolute())
    command = Command([f"{key}={quoted(str(earlier.path))}"], key, earlier, earlier.read_config(key))
    first_flag = next((number for number, text in enumerate(arguments) if text.startswith("-")), len(arguments))
    for argument in arguments[:first_flag]:
        if not argument.startswith(f"{key}="):
            _send(argument, command)
    command.for_hydra.extend(arguments[first_flag:])
    return command


def _send(argument: str, command: Command) -> None:
    path = argument.lstrip("+~").partition("=")[0]
    head = path.partition(".")[0].partition("@")[0].partition("/")[0]
    if head in FROM_COMMAND:
        command.for_hydra.append(argument)
    elif head not in CHANGEABLE:
        raise ValueError(f"{argument}: {command.key}= brings its own {head}; leave it out")
    elif path == head and isinstance(command.config.get(head), dict):
        command.for_hydra.append(argument)
        command.groups.append(head)
    else:
        command.changes.append(argument)
