"""Check that the data of finished jobs of a sweep have not changed."""

import importlib
from pathlib import Path
from typing import Any

from ghostexp.errors import format_error
from ghostexp.runner.fork_server import call_quietly
from ghostexp.runs.directory import RunDirectory
from ghostexp.sweeps.jobs import JobStatus, SweepJob


def changed_data(jobs: list[SweepJob]) -> list[tuple[str, str]]:
    """Return names and errors of finished jobs whose data have changed; checked in a new process.

    Generated data have no `datamodule.root` and cannot change.
    """
    finished = [job for job in jobs if job.state is JobStatus.FINISHED and "root" in job.config["datamodule"]]
    if not finished:
        return []
    errors = call_quietly(_check_all, [(job.config, str(job.run.path)) for job in finished])
    return [(job.name, error) for job, error in zip(finished, errors, strict=True) if error is not None]


def _check_all(runs: list[tuple[dict[str, Any], str]]) -> list[str | None]:
    check_data = importlib.import_module("ghostexp.tasks.common.build_check").check_data
    errors: list[str | None] = []
    digests: dict[str, Any] = {}
    for config, path in runs:
        try:
            check_data(config, RunDirectory(Path(path)), digests)
            errors.append(None)
        except ValueError as error:
            errors.append(format_error(error))
    return errors
