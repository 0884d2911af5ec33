"""Run a sweep: check all jobs, record them in sweep.yaml, and run those that are not finished."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from ghostexp.runner.resources import ResourcePool, list_visible_gpus
from ghostexp.runs.sweep_record import SweepRecord, check_fixed, fixed_values, record_sweep
from ghostexp.runs.wandb_mode import resolve_for_sweep
from ghostexp.sweeps.data_check import changed_data
from ghostexp.sweeps.jobs import JobStatus, SweepJob, error_lines, load_status
from ghostexp.sweeps.local_jobs import JobScheduler
from ghostexp.sweeps.preflight import check_jobs
from ghostexp.sweeps.progress import print_dry_run


@dataclass(frozen=True)
class Sweep:
    """Directory of a sweep and how to run it."""

    directory: Path
    study: str | None
    n_jobs: int | None = None
    fail_fast: bool = False
    dry_run: bool = False
    launcher: Mapping[str, Any] = field(default_factory=lambda: {"backend": "local"})

    def run(self, jobs: list[SweepJob], errors: list[tuple[str, str]], all_jobs: Mapping[str, Sequence[str]]) -> int:
        """Run the jobs that are not finished, unless any job has an error; returns the exit code.

        errors: name and message of jobs that could not be composed. all_jobs: overrides by name of these jobs and of
        those that the study still has to run.
        """
        if self.n_jobs is not None and (type(self.n_jobs) is not int or self.n_jobs < 1):
            raise ValueError(f"n_jobs={self.n_jobs}: must be an integer >= 1 or null")
        if self.n_jobs is not None and self.launcher["backend"] == "submitit":
            raise ValueError(f"n_jobs={self.n_jobs}: must be null with hydra/launcher=submitit_local, without a search")
        total = len(jobs) + len(errors)
        errors = [*errors, *_duplicates(jobs), *_conflicting(jobs), *changed_data(jobs)]
        record = SweepRecord(self.study, all_jobs, _fixed(jobs))
        if not errors:
            check_fixed(self.directory, record)
        todo = [job for job in jobs if job.state is not JobStatus.FINISHED]
        backend = self.launcher["backend"]
        with Console(stderr=True).status(f"building the network of {len(todo)} jobs"):
            found, gpus = check_jobs(todo, is_here=backend == "local") if todo else ([], 0)
        if errors or found:
            _print_errors(errors + found, total)
            return 1
        pinned = any(isinstance(job.config["trainer"]["devices"], list) for job in todo)
        max_processes_per_job = max(job.processes for job in jobs)
        needs_gpus = any(job.config["trainer"]["accelerator"] != "cpu" for job in todo)
        n_jobs = 1 if pinned or _is_measured(jobs) else self.n_jobs
        pool = ResourcePool(list_visible_gpus(gpus if needs_gpus else 0), n_jobs, max_processes_per_job, len(jobs))
        if self.dry_run:
            at_once = {"slurm": self._queue().get("slurm_array_parallelism", len(jobs)), "submitit": len(jobs)}
            print_dry_run(jobs, at_once.get(backend, pool.n_jobs))
            return 0
        if backend == "local":
            resolve_for_sweep(job.config for job in todo)
        record_sweep(self.directory, record)
        if backend != "local":
            return _cluster()(jobs, self._queue(), self.directory, self.fail_fast)
        return JobScheduler(self.directory, jobs, pool, self.fail_fast).run()

    def _queue(self) -> Mapping[str, Any]:
        """Return the values of hydra/launcher, with n_jobs as how many jobs of an array run at a time."""
        parallelism = {"slurm_array_parallelism": self.n_jobs} if self.n_jobs is not None else {}
        return {**self.launcher, **parallelism}


def _fixed(jobs: list[SweepJob]) -> dict[str, Any]:
    """Return the result-deciding values that are equal for all jobs."""
    return fixed_values(
        (job.distinguishing_overrides, job.config) for job in jobs if job.config["task"]["name"] == "fit"
    )


def _is_measured(jobs: list[SweepJob]) -> bool:
    """Return whether jobs measure time, and so must not run in parallel."""
    return any(job.config["task"]["name"] in ("profile", "plan") for job in jobs)


def _cluster() -> Callable[[list[SweepJob], Mapping[str, Any], Path, bool], int]:
    try:
        from ghostexp.sweeps.submitit_launcher import run_with_submitit
    except ImportError as error:
        raise ValueError('hydra/launcher: needs submitit: pip install "ghostexp[slurm]"') from error
    return run_with_submitit


def _duplicates(jobs: list[SweepJob]) -> Iterator[tuple[str, str]]:
    """Yield duplicate jobs: same directory name or same configuration."""
    names: set[str] = set()
    configs: dict[str, str] = {}
    for job in jobs:
        overrides, text = " ".join(job.distinguishing_overrides), json.dumps(job.config, sort_keys=True, default=str)
        if job.name in names:
            yield job.name, f"{overrides}: duplicate job"
        elif configs.setdefault(text, job.name) != job.name:
            yield job.name, f"{overrides}: same configuration as {configs[text]}"
        names.add(job.name)


def _conflicting(jobs: list[SweepJob]) -> Iterator[tuple[str, str]]:
    """Yield jobs whose directory contains another run; set the status of the others."""
    for job in jobs:
        try:
            load_status(job)
        except ValueError as error:
            yield job.name, str(error)


def _print_errors(errors: list[tuple[str, str]], total: int) -> None:
    """Print each error once, with the names of its jobs."""
    lines = error_lines(errors)
    print(*lines, sep="\n", file=sys.stderr)
    if len(lines) > 1:
        print(f"error: none of the {total} jobs was started", file=sys.stderr)
