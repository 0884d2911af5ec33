"""Overlay a command line on an earlier run's configuration (`run=`, `resume=`) and claim its directory."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ghostexp.config.arguments import quoted, unquoted
from ghostexp.runner.ranks import is_global_zero
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.fingerprint import differences

OVERRIDABLE_GROUPS = ("trainer", "logger", "datamodule", "callbacks", "threads", "channels_last", "compile", "name")
COMMAND_KEYS = ("task", "run", "resume", "traceback", "output_dir", "debug", "hydra")


@dataclass(frozen=True)
class ParsedCommand:
    """A command line, taken apart. Without `run=` or `resume=`, all of it is for Hydra."""

    hydra_args: list[str]
    key: str = ""  # run or resume
    earlier: RunDirectory | None = None
    config: dict[str, Any] = field(default_factory=dict)  # the earlier run's
    groups: list[str] = field(default_factory=list)  # what is to be taken whole from what Hydra composes
    changes: list[str] = field(default_factory=list)  # overrides of the earlier run's values


def parse_command_line(arguments: Sequence[str]) -> ParsedCommand:
    """Find the earlier run, and send each override to where its key is; arguments are those for Hydra.

    Raises ValueError: no run there, several at once, or a change of what an earlier run brings.
    """
    given = dict(argument.split("=", 1) for argument in arguments if argument.startswith(("run=", "resume=")))
    given = {key: unquoted(value) for key, value in given.items() if value not in ("null", "")}
    if not given:
        return ParsedCommand(list(arguments))
    if len(given) > 1:
        raise ValueError("run= and resume=: one of them; resume= continues a run, run= looks at it")
    ((key, value),) = given.items()
    if any(argument in ("-m", "--multirun") for argument in arguments):
        raise ValueError(f"{key}={value}: takes one run, and no -m; a repeated sweep continues its jobs")
    earlier = RunDirectory(Path(value).absolute())
    command = ParsedCommand([f"{key}={quoted(str(earlier.path))}"], key, earlier, earlier.read_config(key))
    first_flag = next((number for number, text in enumerate(arguments) if text.startswith("-")), len(arguments))
    for argument in arguments[:first_flag]:
        if not argument.startswith(f"{key}="):
            _send(argument, command)
    command.hydra_args.extend(arguments[first_flag:])
    return command


def _send(argument: str, command: ParsedCommand) -> None:
    path = argument.lstrip("+~").partition("=")[0]
    head = path.partition(".")[0].partition("@")[0].partition("/")[0]
    if head in COMMAND_KEYS:
        command.hydra_args.append(argument)
    elif head not in OVERRIDABLE_GROUPS:
        raise ValueError(f"{argument}: {command.key}= brings its own {head}; leave it out")
    elif path == head and isinstance(command.config.get(head), dict):
        command.hydra_args.append(argument)
        command.groups.append(head)
    else:
        command.changes.append(argument)


def claim_run_dir(run: RunDirectory, config: dict[str, Any]) -> bool:
    """Write the run's configuration into its directory; False where there is nothing left to do.

    Raises ValueError: the directory holds another run, or cannot be written.
    """
    is_fit = config["task"]["name"] == "fit"
    if config["resume"] is not None and run.path.resolve() != Path(config["resume"]).resolve():
        raise ValueError(f"resume={config['resume']}: continues where that run is; leave out hydra.run.dir={run.path}")
    if is_fit and run.config.is_file() and config["resume"] is None and is_global_zero():
        _refuse(run, config)
    if is_fit and run.result.is_file():
        if is_global_zero():
            print(f"{run.path}: finished already", file=sys.stderr)
        return False
    if is_global_zero():
        run.write_config(config)
        run.result.unlink(missing_ok=True)  # of another task, which is repeated in its directory
    return True


def _refuse(run: RunDirectory, config: dict[str, Any]) -> None:
    changed = differences(run.read_config("hydra.run.dir"), config)
    if changed:
        raise ValueError(f"{run.path}: holds a run of another configuration ({'; '.join(changed[:3])})")
    how = "is finished" if run.result.is_file() else f"goes on with {run.resume_command}"
    raise ValueError(f"hydra.run.dir={run.path}: holds a run already, which {how}; choose another directory")


@contextmanager
def cleanup_unused_run_dir(run: RunDirectory) -> Iterator[None]:
    """Remove a directory in which Hydra alone has written, if the run turns out not to start."""
    try:
        yield
    except ValueError:
        if {path.name for path in run.path.iterdir()} == {".hydra"}:
            shutil.rmtree(run.path)
        raise
