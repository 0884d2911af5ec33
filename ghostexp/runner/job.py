"""One task in one process: what it returns becomes result.json, what it raises failure.json.

As a program, `python -m ghostexp.runner.job DIR`, it is one fresh process of the run in DIR, a job of a sweep or one
rank of several, and its configuration is the first line of its standard input, as JSON.
"""

import fcntl
import importlib
import json
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from ghostexp.runner.errors import one_line, report
from ghostexp.runner.ranks import rank
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.fingerprint import fingerprint
from ghostexp.runs.provenance import git_revision, versions

log = logging.getLogger(__name__)


def execute(config: dict[str, Any], run: RunDirectory) -> int:
    """Run the task of a configuration; the exit code says how it ended."""
    try:
        with _locked(run):
            return _execute(config, run)
    except BlockingIOError:  # which is no failure of the run that is here
        report(ValueError(f"{run.path}: another process is running here"), config["traceback"])
        return 1


def _execute(config: dict[str, Any], run: RunDirectory) -> int:
    started, clock = datetime.now().astimezone(), time.perf_counter()
    source = {"versions": versions(), "git": git_revision()}  # now: a commit may come while this runs
    try:
        keep_log(run)
        _prepare(config)
        task = importlib.import_module(f"ghostexp.tasks.{config['task']['name']}")
        _silence_libraries()
        outcome = task.run(config, run)
    except Exception as error:
        return _fail(error, config, run)
    except BaseException as error:  # told to stop
        return _stopped(error, run)
    if rank() == 0:
        run.write_result(
            {"task": config["task"]["name"], "name": config["name"], "fingerprint": fingerprint(config)}
            | {"seed": config["seed"]}
            | outcome
            | {"started": started.isoformat(timespec="seconds"), "wall_s": round(time.perf_counter() - clock, 2)}
            | source
        )
    return 0


@contextmanager
def _locked(run: RunDirectory) -> Iterator[None]:
    """Keep a second process from running in this directory while this one, the first of its run, does.

    Raises BlockingIOError: there is one.
    """
    if rank() != 0:
        yield
        return
    with (run.path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _stopped(error: BaseException, run: RunDirectory) -> int:
    """Say how to continue. Lightning turns an interrupt outside of training into SystemExit."""
    signum = getattr(error, "signum", None)
    if signum is None and not isinstance(error, KeyboardInterrupt | SystemExit):
        raise error
    said = one_line(error) if signum is not None else "interrupted"
    if rank() == 0:
        print(f"{said}; to continue: python -m ghostexp resume={run.path}", file=sys.stderr)
    return 128 + (signum or signal.SIGINT)


def _prepare(config: dict[str, Any]) -> None:
    """Set what holds for the whole process, before anything is computed."""
    import torch

    if config["threads"] is not None:
        if config["threads"] < 1:
            raise ValueError(f"threads={config['threads']}: a number >= 1, or null, is needed")
        torch.set_num_threads(config["threads"])


def _fail(error: Exception, config: dict[str, Any], run: RunDirectory) -> int:
    log.error("failed", exc_info=error)
    report(error, traceback=config["traceback"])
    if rank() == 0:
        try:
            run.write_failure(error, one_line(error))
        except OSError as second:
            report(second, traceback=False)
    return 1


def keep_log(run: RunDirectory) -> None:
    """Send everything that is logged or warned about to run.log, and nothing of it to the terminal."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, logging.FileHandler):
            root.removeHandler(handler)
            handler.close()
    if rank() == 0:
        handler = logging.FileHandler(run.log)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a full disk ends the run where it matters, not at a line of the log
    warnings.simplefilter("default")


def _silence_libraries() -> None:
    """Leave the loggers of libraries without handlers of their own, so that each message is written once."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True


def first_line() -> bytes:
    """The first line of standard input, past Python's buffer, whose lock a waiting thread would hold at the end."""
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(0, 1 << 16)
    return line


def end_with_parent() -> None:
    """End this process when the one that started it is gone: its end of our standard input closes then."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    """Run a task for the process that started this one."""
    config = json.loads(first_line())
    end_with_parent()
    return execute(config, RunDirectory(Path(sys.argv[1])))


if __name__ == "__main__":
    sys.exit(main())
