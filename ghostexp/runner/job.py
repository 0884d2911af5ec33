"""One task in one process: what it returns becomes result.json, what it raises failure.json.

As a program, `python -m ghostexp.runner.job DIR`, it is one fresh process of the run in DIR: a job of a sweep, or one
rank of several.
"""

import importlib
import logging
import os
import sys
import threading
import time
import warnings
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
    keep_log(run)
    started = datetime.now().astimezone()
    clock = time.perf_counter()
    try:
        _prepare(config)
        task = importlib.import_module(f"ghostexp.tasks.{config['task']['name']}")
        _silence_libraries()
        outcome = task.run(config, run)
    except Exception as error:
        return _fail(error, config, run)
    except BaseException as error:  # told to stop
        signum = getattr(error, "signum", None)
        if signum is None and not isinstance(error, KeyboardInterrupt):
            raise
        if rank() == 0:
            print(f"{one_line(error)}; to continue: python -m ghostexp resume={run.path}", file=sys.stderr)
        return 128 + (signum or 2)
    if rank() == 0:
        run.write_result(
            {"task": config["task"]["name"], "name": config["name"], "fingerprint": fingerprint(config)}
            | {"seed": config["seed"]}
            | outcome
            | {"started": started.isoformat(timespec="seconds"), "wall_s": round(time.perf_counter() - clock, 2)}
            | {"versions": versions(), "git": git_revision()}
        )
    return 0


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


def end_with_parent() -> None:
    """End this process when the one that started it is gone: its end of our standard input closes then."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    """Run the task of the directory that the command line names."""
    end_with_parent()
    run = RunDirectory(Path(sys.argv[1]))
    return execute(run.read_config(), run)


if __name__ == "__main__":
    sys.exit(main())
