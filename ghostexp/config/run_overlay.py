"""Overlay a command line on an earlier run's configuration (`run=`, `resume=`) and claim its directory."""

import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ghostexp.config.arguments import quoted, unquoted
from ghostexp.config.plugins import installed_packages, modules_in, typed_config_dir
from ghostexp.config.trust import check_saved_config
from ghostexp.runner.ranks import is_global_zero
from ghostexp.runs.config_keys import COMMAND_KEYS, OVERRIDABLE_KEYS
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.fingerprint import differences
from ghostexp.runs.lock import ENDING, wait_until_free
from ghostexp.runs.naming import record_identity


@dataclass(frozen=True)
class ParsedCommand:
    """Parsed command line. Without `run=` or `resume=`, all of it is passed to Hydra."""

    hydra_args: list[str]
    key: str = ""  # run or resume
    earlier: RunDirectory | None = None
    config: dict[str, Any] = field(default_factory=dict)  # the earlier run's
    groups: list[str] = field(default_factory=list)  # replaced as a whole by the composed ones
    changes: list[str] = field(default_factory=list)  # overrides of the earlier run's values
    config_dir: Path | None = None  # typed, or remembered by an earlier run that the user trusts


def parse_command_line(arguments: Sequence[str]) -> ParsedCommand:
    """Find the earlier run, and separate overrides of its configuration from arguments of Hydra.

    Raises ValueError: no such run, both keys, or an override of a key that the earlier run fixes.
    """
    given = dict(argument.split("=", 1) for argument in arguments if argument.startswith(("run=", "resume=")))
    given = {key: unquoted(value) for key, value in given.items() if value not in ("null", "")}
    if not given:
        return ParsedCommand(list(arguments), config_dir=typed_config_dir(arguments))
    if len(given) > 1:
        raise ValueError(
            "run= and resume=: use either run= (test, predict, ... of a finished run) or resume= (continue training)"
        )
    ((key, value),) = given.items()
    if any(argument in ("-m", "--multirun") for argument in arguments):
        raise ValueError(f"{key}={value}: cannot be used with -m; repeat the sweep to continue its jobs")
    earlier = RunDirectory(Path(value).absolute())
    config = earlier.read_config(key)
    if any(re.match(r"(-c|--cfg)(=|$)", argument) for argument in arguments):
        raise ValueError(f"--cfg: must be used without {key}=; the configuration of that run is {earlier.config}")
    check_saved_config(config, earlier.path, _allowed(arguments))
    config_dir = typed_config_dir(arguments) or _remembered_config_dir(config, arguments)
    command = ParsedCommand([f"{key}={quoted(str(earlier.path))}"], key, earlier, config, config_dir=config_dir)
    first_flag = next((number for number, text in enumerate(arguments) if text.startswith("-")), len(arguments))
    for argument in arguments[:first_flag]:
        if not argument.startswith(f"{key}="):
            _route_override(argument, command)
    command.hydra_args.extend(arguments[first_flag:])
    if config_dir is not None and typed_config_dir(arguments) is None:
        command.hydra_args.extend(("--config-dir", str(config_dir)))
    return command


def _allowed(arguments: Sequence[str]) -> set[str]:
    """Return the packages that the user trusts: of `allow=`, of `--config-dir`, and installed ones that say so."""
    folder = typed_config_dir(arguments)
    return _typed_packages(arguments) | installed_packages() | (modules_in(folder) if folder else set())


def _typed_packages(arguments: Sequence[str]) -> set[str]:
    typed = next((argument.partition("=")[2] for argument in arguments if argument.startswith("allow=")), "")
    return set(re.findall(r"[\w.]+", typed))


def _remembered_config_dir(config: dict[str, Any], arguments: Sequence[str]) -> Path | None:
    """Return the `--config-dir` of an earlier run, if it has a module that `allow=` names: others are not trusted."""
    folder = Path(str(config.get("config_dir")))
    is_trusted = folder.is_dir() and {name.partition(".")[0] for name in _typed_packages(arguments)} & modules_in(
        folder
    )
    return folder if is_trusted else None


def _route_override(argument: str, command: ParsedCommand) -> None:
    path = argument.lstrip("+~").partition("=")[0]
    head = path.partition(".")[0].partition("@")[0].partition("/")[0]
    if head in COMMAND_KEYS:
        command.hydra_args.append(argument)
    elif head not in OVERRIDABLE_KEYS:
        raise ValueError(f"{argument.removeprefix('++')}: {command.key}= uses the {head} of that run; leave it out")
    elif path == head and isinstance(command.config.get(head), dict):
        command.hydra_args.append(argument)
        command.groups.append(head)
    else:
        command.changes.append(argument)


def claim_run_dir(run: RunDirectory, config: dict[str, Any]) -> bool:
    """Write the configuration to the run directory; returns False if the run is finished already.

    Raises ValueError: the directory contains another run, is in use, or cannot be written.
    """
    is_fit = config["task"]["name"] == "fit"
    if config["resume"] is not None and run.path.resolve() != Path(config["resume"]).resolve():
        raise ValueError(f"resume={config['resume']}: continues in that directory; leave out hydra.run.dir={run.path}")
    if is_global_zero() and run.config.is_file():
        if not run.result.is_file():
            _check_in_use(run)
        _check_task(run, config["task"]["name"])
        if is_fit and config["resume"] is None:
            _refuse(run, config)
    if is_fit and run.result.is_file():
        if is_global_zero():
            print(f"{run.path}: finished already", file=sys.stderr)
        return False
    if is_global_zero():
        run.write_config(config)
        record_identity(run, config)
        run.result.unlink(missing_ok=True)  # of an earlier task that is repeated in its directory
    return True


def _check_in_use(run: RunDirectory) -> None:
    """Raise ValueError if another process runs in the directory; one that is ending gets some time."""
    try:
        wait_until_free(run.path, ENDING)
    except BlockingIOError:
        raise ValueError(f"{run.path}: another process is running here") from None


def _check_task(run: RunDirectory, task: str) -> None:
    """Raise ValueError if the directory contains a run of another task, whose result would be lost."""
    earlier = run.read_config("hydra.run.dir").get("task", {}).get("name")
    if earlier != task:
        raise ValueError(f"hydra.run.dir={run.path}: contains a run of task={earlier}; choose another directory")


def _refuse(run: RunDirectory, config: dict[str, Any]) -> None:
    changed = differences(run.read_config("hydra.run.dir"), config)
    if changed:
        raise ValueError(f"{run.path}: contains a run of another configuration ({'; '.join(changed[:3])})")
    how = "is finished" if run.result.is_file() else f"is continued by {run.resume_command}"
    raise ValueError(f"hydra.run.dir={run.path}: already contains a run, which {how}; choose another directory")


@contextmanager
def cleanup_unused_run_dir(run: RunDirectory) -> Iterator[None]:
    """Remove a run directory that contains only Hydra's files if the run does not start."""
    try:
        yield
    except ValueError:
        if {path.name for path in run.path.iterdir()} == {".hydra"}:
            shutil.rmtree(run.path)
        raise
