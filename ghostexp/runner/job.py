"""One task in one process: what it returns becomes result.json, what it raises failure.json."""

import fcntl
import importlib
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Any

from ghostexp.runner.errors import one_line, report
from ghostexp.runner.ranks import rank, started_by_slurm
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.fingerprint import fingerprint
from ghostexp.runs.provenance import git_revision, versions
from ghostexp.runs.signals import stop_signals

log = logging.getLogger(__name__)
LOCK_ATTEMPTS = 20  # ten in a second


class Interrupted(BaseException):
    """A stop signal came outside of training, where there is nothing to save."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


def execute(config: dict[str, Any], run: RunDirectory, threads: int | None = None) -> int:
    """Run the task of a configuration; the exit code says how it ended.

    threads: this process's share of the processor, where the configuration leaves it open.
    """
    try:
        with _locked(run), _interruptible():
            return _execute(config, run, threads)
    except BlockingIOError:  # which is no failure of the run that is here
        report(ValueError(f"{run.path}: another process is running here"), config["traceback"])
        return 1


def _execute(config: dict[str, Any], run: RunDirectory, threads: int | None) -> int:
    started, clock = datetime.now().astimezone(), time.perf_counter()
    source = {"versions": versions(), "git": git_revision()}  # now: a commit may come while this runs
    try:
        keep_log(run)
        _prepare(config, threads)
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
        for attempt in range(LOCK_ATTEMPTS):  # a process that was killed this moment may hold it still
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == LOCK_ATTEMPTS - 1:
                    raise
                time.sleep(0.1)
        yield


@contextmanager
def _interruptible() -> Iterator[None]:
    """Raise `Interrupted` at stop signals; SIGINT is Python's own KeyboardInterrupt."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(signum)

    before = {signum: signal.signal(signum, interrupt) for signum in stop_signals() if signum != signal.SIGINT}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _stopped(error: BaseException, run: RunDirectory) -> int:
    """Say how to continue. Lightning turns an interrupt outside of training into SystemExit."""
    signum = getattr(error, "signum", None)
    if signum is None and not isinstance(error, KeyboardInterrupt | SystemExit):
        raise error
    said = str(error) if signum is not None else "interrupted"
    if rank() == 0:
        log.info(said)  # for the terminal may be closed
        print(f"{said}; to continue: python -m ghostexp resume={run.path}", file=sys.stderr)
    return 128 + (signum or signal.SIGINT)


def _prepare(config: dict[str, Any], share: int | None) -> None:
    """Set what holds for the whole process, before anything is computed."""
    if not started_by_slurm():
        os.environ.pop("SLURM_NTASKS", None)  # by which Lightning takes a batch script's process for one of several

    threads = share if config["threads"] is None else config["threads"]
    if threads is not None:
        if threads < 1:
            raise ValueError(f"threads={threads}: a number >= 1, or null, is needed")
        import torch  # here, for a task that needs none opens at once

        torch.set_num_threads(threads)


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
