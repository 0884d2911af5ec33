"""Run the points of a sweep, each once, side by side where there is room; nothing that was finished is lost."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from ghostexp.runner.check import check
from ghostexp.runner.data_check import changed_data
from ghostexp.runner.jobs import Jobs
from ghostexp.runner.points import Point, State, look_up
from ghostexp.runner.progress import show_plan
from ghostexp.runner.slots import Slots, visible_gpus
from ghostexp.runs.sweep import SweepRecord, check_fixed, fixed_values, record_sweep
from ghostexp.runs.wandb_mode import resolve_for_sweep


@dataclass(frozen=True)
class Sweep:
    """A sweep's directory, and how it is run."""

    directory: Path
    study: str | None
    n_jobs: int | None = None
    fail_fast: bool = False
    plan: bool = False
    launcher: Mapping[str, Any] = field(default_factory=lambda: {"engine": "local"})

    def run(self, points: list[Point], errors: list[tuple[str, str]], planned: Mapping[str, Sequence[str]]) -> int:
        """Run the points that are not finished, unless any of all is wrong; returns the exit code.

        errors: name and what is wrong, of points that could not be composed. planned: overrides by name, of these
        points and those that the study still has to do.
        """
        if self.n_jobs is not None and (type(self.n_jobs) is not int or self.n_jobs < 1):
            raise ValueError(f"n_jobs={self.n_jobs}: a number >= 1, or null, is needed")
        jobs = len(points) + len(errors)
        errors = [*errors, *_doubles(points), *_foreign(points), *changed_data(points)]
        record = SweepRecord(self.study, planned, _fixed(points))
        if not errors:
            check_fixed(self.directory, record)
        todo = [point for point in points if point.state is not State.FINISHED]
        engine = self.launcher["engine"]
        with Console(stderr=True).status(f"building each of {len(todo)} points once"):
            found, gpus = check(todo, is_here=engine == "local") if todo else ([], 0)
        if errors or found:
            _tell(errors + found, jobs)
            return 1
        pinned = any(isinstance(point.config["trainer"]["devices"], list) for point in todo)
        widest = max(point.processes for point in points)
        needs_gpus = any(point.config["trainer"]["accelerator"] != "cpu" for point in todo)
        n_jobs = 1 if pinned or _is_measured(points) else self.n_jobs
        slots = Slots(visible_gpus(gpus if needs_gpus else 0), n_jobs, widest, len(points))
        if self.plan:
            show_plan(points, slots.n_jobs)
            return 0
        if engine == "local":
            resolve_for_sweep(point.config for point in todo)
        record_sweep(self.directory, record)
        if engine != "local":
            return _cluster()(points, self.launcher, self.directory)
        return Jobs(self.directory, points, slots, self.fail_fast).run()


def _fixed(points: list[Point]) -> dict[str, Any]:
    """What no point varies of what decides a training."""
    return fixed_values((point.telling, point.config) for point in points if point.config["task"]["name"] == "fit")


def _is_measured(points: list[Point]) -> bool:
    """Whether time is what the jobs are about, so that they must not take it from each other."""
    return any(point.config["task"]["name"] == "profile" for point in points)


def _cluster() -> Callable[[list[Point], Mapping[str, Any], Path], int]:
    try:
        from ghostexp.runner.cluster import run_on_cluster
    except ImportError as error:
        raise ValueError('hydra/launcher: needs submitit: pip install "ghostexp[slurm]"') from error
    return run_on_cluster


def _doubles(points: list[Point]) -> Iterator[tuple[str, str]]:
    """Points that are others once more."""
    names: set[str] = set()
    configs: dict[str, str] = {}
    for point in points:
        said, text = " ".join(point.telling), json.dumps(point.config, sort_keys=True, default=str)
        if point.name in names:
            yield point.name, f"{said}: is there twice"
        elif configs.setdefault(text, point.name) != point.name:
            yield point.name, f"{said}: is the same as {configs[text]}"
        names.add(point.name)


def _foreign(points: list[Point]) -> Iterator[tuple[str, str]]:
    """Points whose directory holds another run; the others' states are found out."""
    for point in points:
        try:
            look_up(point)
        except ValueError as error:
            yield point.name, str(error)


def _tell(errors: list[tuple[str, str]], jobs: int) -> None:
    """Say what is wrong, once for all points that it is wrong with."""
    names: dict[str, list[str]] = {}
    for name, error in errors:
        names.setdefault(error, []).append(name)
    for error, wrong in names.items():
        others = f" and {len(wrong) - 1} others" if len(wrong) > 1 else ""
        print(f"error: {wrong[0]}{others}: {error}", file=sys.stderr)
    if len(names) > 1:
        print(f"error: none of the {jobs} jobs was started", file=sys.stderr)
