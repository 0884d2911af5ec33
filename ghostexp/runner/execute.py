"""Run one task in one process: its return value becomes result.json, its exception failure.json."""

import importlib
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from types import FrameType
from typing import Any

from ghostexp.errors import TargetNotFoundError, format_error, print_error
from ghostexp.runner.ranks import is_started_by_slurm, rank
from ghostexp.runs.config_keys import STUDY_TASKS
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.fingerprint import fingerprint
from ghostexp.runs.lock import ENDING, locked
from ghostexp.runs.outcome import Outcome, Outputs, Paused
from ghostexp.runs.provenance import git_revision, versions
from ghostexp.runs.signals import STOP_SIGNALS, stop_signals
from ghostexp.runs.text_files import ESCAPE, escape_streams

log = logging.getLogger(__name__)
Report = Callable[[BaseException], None]


class Interrupted(BaseException):
    """Stop signal outside of training, when there is nothing to save."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


def execute(config: dict[str, Any], run: RunDirectory, threads: int | None = None, report: Report | None = None) -> int:
    """Run the task of a configuration and return the exit code.

    threads: CPU threads of this process if the configuration has threads=null. report: is called with the error that
    ends it, instead of printing it.
    """
    escape_streams()
    try:
        with _locked(run), _interruptible():
            if rank() == 0 and run.result.is_file() and config["task"]["name"] not in STUDY_TASKS:
                return _finished_by_another(run)
            return _execute(config, run, threads, report)
    except BlockingIOError:  # not a failure of the run in this directory
        print_error(ValueError(f"{run.path}: another process is running here"), config["traceback"])
        return 1


def _execute(config: dict[str, Any], run: RunDirectory, threads: int | None, report: Report | None) -> int:
    started, clock = datetime.now().astimezone().isoformat(timespec="seconds"), time.perf_counter()
    source: dict[str, Any] = {}

    def record(outcome: dict[str, Any]) -> dict[str, Any]:
        about = {"task": config["task"]["name"], "name": config["name"], "fingerprint": fingerprint(config)}
        ran = {"started": started, "wall_seconds": round(time.perf_counter() - clock, 2)}
        return about | {"seed": config["seed"]} | outcome | ran | source

    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # blocked since the fork; see server_process
        source |= {"versions": versions(), "git": git_revision()}  # at the start: there may be commits while this runs
        setup_file_logging(run)
        if rank() == 0:
            run.failure.unlink(missing_ok=True)  # of an earlier process
        _prepare(config, threads)
        task = _find_task(config["task"])
        _silence_libraries()
        outcome = task(config, run)
        if rank() == 0:
            result = outcome.result if isinstance(outcome, Outcome) else outcome
            run.write_result(record(result))
            if isinstance(outcome, Outcome):
                failed = _make_outputs(outcome, run, config["task"]["name"])
                with suppress(OSError):  # such as a full disk; the first result is complete
                    run.write_result(record(result | failed))
    except Exception as error:
        return _fail(error, config, run, report, source)
    except Paused as pause:
        log.info("%s; to continue: %s", pause, run.resume_command)
    except BaseException as error:  # stop signal
        return _stopped(error, run)
    return 0


def _find_task(node: dict[str, Any]) -> Callable[[dict[str, Any], RunDirectory], Any]:
    """Import the function of a task: `task._target_`, or `run` of ghostexp.tasks.NAME.

    Raises ValueError: there is no such function.
    """
    target = node.get("_target_", f"ghostexp.tasks.{node['name']}.run")
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"task._target_={target}: not found ({error})") from error


def _make_outputs(outcome: Outcome, run: RunDirectory, task: str) -> dict[str, list[str]]:
    """Write the optional outputs; print failures and return them for result.json."""
    outputs = Outputs()
    outcome.make_outputs(outputs)
    if not outputs.failures:
        return {}
    lines = [f"warning: {failure}" for failure in outputs.failures]
    again = "" if task == "test" else f"; task=test run={run.path} writes them again"
    print(*lines, f"warning: the result is complete without these{again}", sep="\n", file=sys.stderr)
    return {"failed_outputs": outputs.failures}


@contextmanager
def _locked(run: RunDirectory) -> Iterator[None]:
    """Lock the run directory in rank 0, so that no other run uses it at the same time.

    Raises BlockingIOError: another process holds the lock.
    """
    if rank() != 0:
        yield
        return
    with locked(run.path, ENDING):
        yield


@contextmanager
def _interruptible() -> Iterator[None]:
    """Raise `Interrupted` at stop signals; Python raises KeyboardInterrupt at SIGINT."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(signum)

    before = {signum: signal.signal(signum, interrupt) for signum in stop_signals() if signum != signal.SIGINT}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _finished_by_another(run: RunDirectory) -> int:
    """Keep a result that another process wrote since this one was started; returns the exit code.

    With several ranks the code is not 0, which ends those that wait for this one.
    """
    print(f"{run.path}: finished already, by another process", file=sys.stderr)
    return 0 if os.environ.get("WORLD_SIZE", "1") == "1" else 1


def _stopped(error: BaseException, run: RunDirectory) -> int:
    """Print how to continue. Lightning turns an interrupt outside of training into SystemExit."""
    signum = getattr(error, "signum", None)
    if signum is None and not isinstance(error, KeyboardInterrupt | SystemExit):
        raise error
    message = str(error) if signum is not None else "interrupted"
    if rank() == 0:
        log.info(message)  # the terminal may be closed
        how = "the result is written" if run.result.exists() else f"to continue: {run.resume_command}"
        print(f"{message}; {how}", file=sys.stderr)
    return 128 + (signum or signal.SIGINT)


def _prepare(config: dict[str, Any], num_threads: int | None) -> None:
    """Set the environment and number of threads of this process."""
    if not is_started_by_slurm():
        os.environ.pop(
            "SLURM_NTASKS", None
        )  # else Lightning treats the process of a batch script as one of several tasks

    threads = num_threads if config["threads"] is None else config["threads"]
    if threads is not None:
        if threads < 1:
            raise ValueError(f"threads={threads}: must be an integer >= 1 or null")
        import torch  # not at the top: tasks without torch start faster

        torch.set_num_threads(threads)


def _fail(
    error: Exception, config: dict[str, Any], run: RunDirectory, report: Report | None, source: dict[str, Any]
) -> int:
    if isinstance(error, TargetNotFoundError) and (earlier := config["run"] or config["resume"]):
        error = error.of_run(earlier)
    log.error("failed", exc_info=error)
    if report is not None:
        report(error)
    if report is None or config["traceback"]:
        print_error(error, traceback=config["traceback"])
    if rank() == 0:
        try:
            run.write_failure(error, format_error(error), source)
        except OSError as second:
            print_error(second, traceback=False)
    return 1


def setup_file_logging(run: RunDirectory) -> None:
    """Write all log messages and warnings to run.log, or to that of this rank, instead of the terminal."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, logging.FileHandler):
            root.removeHandler(handler)
            handler.close()
    handler = logging.FileHandler(run.rank_log(rank()), encoding="utf-8", errors=ESCAPE, delay=rank() != 0)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.setLevel(logging.INFO if rank() == 0 else logging.WARNING)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a full disk must not end the run at a log message
    warnings.simplefilter("default")


def _silence_libraries() -> None:
    """Remove the handlers of library loggers, so that each message is logged once."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
