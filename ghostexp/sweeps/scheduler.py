"""Run the points of a sweep, each once, side by side where there is room; nothing that was finished is lost."""

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
from ghostexp.sweeps.jobs import JobStatus, SweepJob, load_status
from ghostexp.sweeps.local_jobs import Jobs
from ghostexp.sweeps.preflight import check_jobs
from ghostexp.sweeps.progress import print_dry_run


@dataclass(frozen=True)
class Sweep:
    """A sweep's directory, and how it is run."""

    directory: Path
    study: str | None
    n_jobs: int | None = None
    fail_fast: bool = False
    dry_run: bool = False
    launcher: Mapping[str, Any] = field(default_factory=lambda: {"backend": "local"})

    def run(self, points: list[SweepJob], errors: list[tuple[str, str]], all_jobs: Mapping[str, Sequence[str]]) -> int:
        """Run the points that are not finished, unless any of all is wrong; returns the exit code.

        errors: name and what is wrong, of points that could not be composed. planned: overrides by name, of these
        points and those that the study still has to do.
        """
        if self.n_jobs is not None and (type(self.n_jobs) is not int or self.n_jobs < 1):
            raise ValueError(f"n_jobs={self.n_jobs}: a number >= 1, or null, is needed")
        jobs = len(points) + len(errors)
        errors = [*errors, *_duplicates(points), *_conflicting(points), *changed_data(points)]
        record = SweepRecord(self.study, all_jobs, _fixed(points))
        if not errors:
            check_fixed(self.directory, record)
        todo = [point for point in points if point.state is not JobStatus.FINISHED]
        backend = self.launcher["backend"]
        with Console(stderr=True).status(f"building each of {len(todo)} points once"):
            found, gpus = check_jobs(todo, is_here=backend == "local") if todo else ([], 0)
        if errors or found:
            _print_errors(errors + found, jobs)
            return 1
        pinned = any(isinstance(point.config["trainer"]["devices"], list) for point in todo)
        max_processes_per_job = max(point.processes for point in points)
        needs_gpus = any(point.config["trainer"]["accelerator"] != "cpu" for point in todo)
        n_jobs = 1 if pinned or _is_measured(points) else self.n_jobs
        slots = ResourcePool(list_visible_gpus(gpus if needs_gpus else 0), n_jobs, max_processes_per_job, len(points))
        if self.dry_run:
            print_dry_run(points, slots.n_jobs)
            return 0
        if backend == "local":
            resolve_for_sweep(point.config for point in todo)
        record_sweep(self.directory, record)
        if backend != "local":
            return _cluster()(points, self.launcher, self.directory)
        return Jobs(self.directory, points, slots, self.fail_fast).run()


def _fixed(points: list[SweepJob]) -> dict[str, Any]:
    """What no point varies of what decides a training."""
    return fixed_values(
        (point.distinguishing_overrides, point.config) for point in points if point.config["task"]["name"] == "fit"
    )


def _is_measured(points: list[SweepJob]) -> bool:
    """Whether time is what the jobs are about, so that they must not take it from each other."""
    return any(point.config["task"]["name"] == "profile" for point in points)


def _cluster() -> Callable[[list[SweepJob], Mapping[str, Any], Path], int]:
    try:
        from ghostexp.sweeps.submitit_launcher import run_with_submitit
    except ImportError as error:
        raise ValueError('hydra/launcher: needs submitit: pip install "ghostexp[slurm]"') from error
    return run_with_submitit


def _duplicates(points: list[SweepJob]) -> Iterator[tuple[str, str]]:
    """Points that are others once more."""
    names: set[str] = set()
    configs: dict[str, str] = {}
    for point in points:
        said, text = " ".join(point.distinguishing_overrides), json.dumps(point.config, sort_keys=True, default=str)
        if point.name in names:
            yield point.name, f"{said}: is there twice"
        elif configs.setdefault(text, point.name) != point.name:
            yield point.name, f"{said}: is the same as {configs[text]}"
        names.add(point.name)


def _conflicting(points: list[SweepJob]) -> Iterator[tuple[str, str]]:
    """Points whose directory holds another run; the others' states are found out."""
    for point in points:
        try:
            load_status(point)
        except ValueError as error:
            yield point.name, str(error)


def _print_errors(errors: list[tuple[str, str]], jobs: int) -> None:
    """Say what is wrong, once for all points that it is wrong with."""
    names: dict[str, list[str]] = {}
    for name, error in errors:
        names.setdefault(error, []).append(name)
    for error, wrong in names.items():
        others = f" and {len(wrong) - 1} others" if len(wrong) > 1 else ""
        print(f"error: {wrong[0]}{others}: {error}", file=sys.stderr)
    if len(names) > 1:
        print(f"error: none of the {jobs} jobs was started", file=sys.stderr)
