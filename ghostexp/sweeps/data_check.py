"""Check that finished jobs of a sweep were trained on the data that are there now."""

import importlib
import logging
import os
import sys
from pathlib import Path
from typing import Any

from ghostexp.errors import format_error
from ghostexp.runner.fork_server import call_in_process
from ghostexp.runs.directory import RunDirectory
from ghostexp.sweeps.jobs import JobStatus, SweepJob


def changed_data(points: list[SweepJob]) -> list[tuple[str, str]]:
    """Names and errors of finished jobs whose data are others now, found in a process of its own.

    Generated data have no `datamodule.root`, and cannot change.
    """
    finished = [point for point in points if point.state is JobStatus.FINISHED and "root" in point.config["datamodule"]]
    if not finished:
        return []
    errors = call_in_process(_check_quietly, [(point.config, str(point.run.path)) for point in finished])
    return [(point.name, error) for point, error in zip(finished, errors, strict=True) if error is not None]


def _check_quietly(jobs: list[tuple[dict[str, Any], str]]) -> list[str | None]:
    """What happens in the other process; it is left to the runs to say what is noticed in their data."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    logging.disable()
    return _check_all(jobs)


def _check_all(jobs: list[tuple[dict[str, Any], str]]) -> list[str | None]:
    check_data = importlib.import_module("ghostexp.tasks.common.build_check").check_data
    errors: list[str | None] = []
    digests: dict[str, Any] = {}
    for config, path in jobs:
        try:
            check_data(config, RunDirectory(Path(path)), digests)
            errors.append(None)
        except ValueError as error:
            errors.append(format_error(error))
    return errors
