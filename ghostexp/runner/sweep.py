"""Run the points of a sweep, each once, side by side where there is room; nothing that was finished is lost."""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

from rich.console import Console

from ghostexp.runner.check import check
from ghostexp.runner.data_check import changed_data
from ghostexp.runner.launch import Job, acting_on_signals
from ghostexp.runner.points import Point, State, look_up, take
from ghostexp.runner.progress import Progress, show_plan
from ghostexp.runner.slots import Slots, visible_gpus
from ghostexp.runs.signals import STOP_SIGNALS
from ghostexp.runs.sweep import record_sweep
from ghostexp.runs.wandb_mode import resolve_for_sweep

STOPPED = tuple(128 + signum for signum in (*STOP_SIGNALS, signal.SIGKILL))  # exit codes


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
        record_sweep(self.directory, self.study, planned)
        if engine != "local":
            return _cluster()(points, self.launcher, self.directory)
        return _Jobs(points, todo, slots, self.fail_fast).run()


def _is_measured(points: list[Point]) -> bool:
    """Whether time is what the jobs are about, so that they must not take it from each other."""
    return any(point.config["task"]["name"] == "profile" for point in points)


def _cluster() -> Callable[[list[Point], Mapping[str, Any], Path], int]:
    try:
        from ghostexp.runner.cluster import run_on_cluster
    except ImportError as error:
        raise ValueError('hydra/launcher: needs submitit: pip install "ghostexp[slurm]"') from error
    return run_on_cluster


class _Jobs:
    """The jobs of a sweep: waiting, running, done."""

    def __init__(self, points: list[Point], todo: list[Point], slots: Slots, fail_fast: bool) -> None:
        self.waiting, self.slots, self.fail_fast = todo, slots, fail_fast
        self.running: dict[Job, tuple[Point, float]] = {}
        self.progress = Progress(points, slots.n_jobs)
        self.stop = 0  # the signal to stop with, once that is to be
        self.told: set[Job] = set()

    def run(self) -> int:
        """Run them all; returns the exit code. The first stop signal has running jobs save, the second kills."""
        with self.progress, self._none_left(), acting_on_signals(self._act) as received:
            while self.running or (self.waiting and not self.stop):
                if not self.stop:
                    self._start()
                self._tell_running()
                connection.wait([sentinel for job in self.running for sentinel in job.sentinels], timeout=0.5)
                self.progress.show(len(self.running), len(self.waiting))
                for job in list(self.running):
                    if (code := job.poll()) is not None:
                        self._end(job, code)
        code = self.progress.tell_failures(not_started=len(self.waiting))
        if received:
            print(f"stopped by {signal.Signals(received[0]).name}; the same command does the rest", file=sys.stderr)
            return 128 + received[0]
        return code

    def _act(self, signum: int, is_first: bool) -> None:
        self.stop = self.stop or signum
        for job in () if is_first else self.running:
            job.signal(signal.SIGKILL)

    def _tell_running(self) -> None:
        """Have every running job save and stop, once, when it is time to; one that was only just started too."""
        for job in self.running if self.stop else ():
            if job not in self.told:
                job.signal(self.stop)
                self.told.add(job)

    def _start(self) -> None:
        """Start what fits, in order."""
        while self.waiting:
            point = self.waiting[0]
            if point.run.result.is_file():  # another command was faster
                self.waiting.pop(0)
                self.progress.finished(point)
                continue
            slot = self.slots.take(point.processes, isinstance(point.config["trainer"]["devices"], list))
            if slot is None:
                return
            self.waiting.pop(0)
            take(point)
            self.running[Job(point.config, point.run, point.processes, slot, quiet=True)] = point, time.monotonic()

    def _end(self, job: Job, code: int) -> None:
        """Note how a job ended."""
        point, started = self.running.pop(job)
        self.slots.give_back(job.slot)
        if code == 0:
            self.progress.finished(point, time.monotonic() - started)
        elif not (self.stop and code in STOPPED):
            self.progress.failed(point, _cause(job, code))
            if self.fail_fast:
                self.stop = signal.SIGTERM

    @contextmanager
    def _none_left(self) -> Iterator[None]:
        try:
            yield
        finally:
            for job in self.running:
                job.kill()


def _cause(job: Job, code: int) -> str:
    """Why a job failed."""
    cause = job.cause()
    if cause is not None:
        job.run.write_failure(RuntimeError(cause), cause)
    if job.run.failure.is_file():
        return job.run.read_failure()
    return "was told to stop by somebody else" if code in STOPPED else f"ended with exit code {code}"


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
