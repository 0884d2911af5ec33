"""Fork server with heavy modules preloaded, so that each job starts in a fresh process without import cost."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from multiprocessing import connection, forkserver, process
from pathlib import Path
from typing import Any, TypeVar

from ghostexp.errors import format_error
from ghostexp.runner.execute import execute
from ghostexp.runner.exit import end_process
from ghostexp.runner.streams import outlive_terminal
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.third_party import texts

# A fresh process takes 0.03 s instead of 8; on macOS a fork after loading frameworks crashes.
CONTEXT = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")

MAX_ERROR_LENGTH = 10_000  # characters of an error: a full pipe would block its sender

Result = TypeVar("Result")


def warm_up(modules: Iterable[str]) -> None:
    """Start the fork server, which imports these modules in the background."""
    if sys.platform == "linux":
        CONTEXT.set_forkserver_preload(["ghostexp.runner.server_process", *modules])
        # Counting GPUs through CUDA itself would make them unusable in forked processes.
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        forkserver.ensure_running()


def end_server() -> None:
    """Kill the fork server, whose processes have ended; one that is still importing would do so for seconds."""
    pid = getattr(forkserver._forkserver, "_forkserver_pid", None)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


def targets(node: Any) -> set[str]:
    """Return the modules of all `_target_` of a configuration."""
    return {text.rpartition(".")[0] for key, text in texts(node) if key.rpartition(".")[2] == "_target_"}


def call_in_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function in a new process, which ends with the call, and return its result.

    Raises what the function raises; ValueError: its process was killed.
    """
    receiver, sender = CONTEXT.Pipe(duplex=False)
    callee = CONTEXT.Process(target=_answer, args=(sender, function, arguments))
    callee.start()
    sender.close()
    try:
        result, error = receiver.recv()
    except EOFError:
        raise ValueError("the process that checks the jobs was killed (out of memory?)") from None
    finally:
        callee.kill()
        callee.join()
    if error is not None:
        raise error
    return result


def call_quietly(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function in a new process, whose log messages and warnings are discarded; see `call_in_process`."""
    return call_in_process(_quietly, function, arguments)


def _quietly(function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    logging.disable()
    return function(*arguments)


def _answer(sender: connection.Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.setsid()
    _end_with_parent()
    try:
        sender.send((function(*arguments), None))
    except Exception as error:
        sender.send((None, error))


def work(
    config: dict[str, Any],
    path: str,
    cwd: str,
    threads: int,
    signals: Iterable[signal.Signals],
    environment: dict[str, str],
    log: Path | None,
    reports: connection.Connection,
) -> None:
    """Run one rank of a run in this process.

    signals: stop signals. environment: replaces that of the server. log: file for what is printed to stderr.
    reports: gets the time of the error that ends this rank, and a FloatingPointError or RuntimeError with its text.
    """
    os.setsid()
    for signum in signals:
        signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
    multiprocessing.set_start_method(None, force=True)  # else each data-loading worker would import torch again
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    if log is not None:
        _redirect_output(log)
    outlive_terminal()
    _end_with_parent()

    def report(error: BaseException) -> None:
        kind = FloatingPointError if isinstance(error, FloatingPointError) else RuntimeError
        reports.send((time.time(), kind(format_error(error)[:MAX_ERROR_LENGTH])))

    end_process(execute(config, RunDirectory(Path(path)), threads, report))


def _redirect_output(log: Path) -> None:
    """Redirect standard error to a file, and discard standard output."""
    with log.open("ab") as errors, open(os.devnull, "wb") as nowhere:
        os.dup2(errors.fileno(), 2)
        os.dup2(nowhere.fileno(), 1)


def _end_with_parent() -> None:
    """End this process when its parent has ended."""
    parent = process.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)  # its data-loading workers too

    threading.Thread(target=watch, daemon=True).start()
