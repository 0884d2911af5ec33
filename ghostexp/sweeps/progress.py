"""Print the progress of a sweep: a line for each job that ends, and a progress bar on a terminal."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from ghostexp.runs.metrics import format_metric, primary_metric
from ghostexp.sweeps.jobs import JobStatus, SweepJob


class SweepProgress:
    """Counts of finished and failed jobs, with the estimated remaining time."""

    def __init__(self, jobs: list[SweepJob], n_jobs: int) -> None:
        self.total, self.n_jobs = len(jobs), n_jobs
        self.before = sum(job.state is JobStatus.FINISHED for job in jobs)
        self.done = self.before
        self.by_others = 0  # of the jobs that finished now
        self.failures: list[tuple[SweepJob, str]] = []
        self.seconds: list[float] = []  # of the jobs that finished now
        self.width = max((len(job.name) for job in jobs), default=0)
        self.console = Console(highlight=False, soft_wrap=True)
        columns = (BarColumn(), TextColumn("{task.fields[state]}"))
        self.bar = Bar(*columns, console=self.console, transient=True, disable=not self.console.file.isatty())
        self.task = self.bar.add_task("", total=self.total, completed=self.done, state="")

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        self.bar.start()
        if self.before:
            self.console.print(f"{self.before} of {self.total} jobs are finished already")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
        now = self.done - self.before
        others = f" ({self.by_others} by another command)" if self.by_others else ""
        seconds = format_seconds(time.monotonic() - self.started)
        self.console.print(f"{now} jobs finished in {seconds}{others}, {len(self.failures)} failed")

    def show(self, running: int, waiting: int) -> None:
        """Move the bar."""
        left = ""
        if self.seconds:
            mean = sum(self.seconds) / len(self.seconds)
            left = f", {format_seconds(mean * (waiting + running / 2) / self.n_jobs)} left"
        state = f"{self.done}/{self.total} done, {running} running, {len(self.failures)} failed{left}"
        self.bar.update(self.task, completed=self.done + len(self.failures), state=state)

    def note(self, job: SweepJob, text: str) -> None:
        """Print a line on a job that goes on."""
        self.console.print(f"{job.name}: {text}", markup=False)

    def finished(self, job: SweepJob, seconds: float | None = None, is_ours: bool = True) -> None:
        """Count and print a finished job; without seconds, those are of its own result."""
        result = job.run.read_result() or {}
        seconds = float(result.get("wall_seconds", 0)) if seconds is None else seconds
        self.done += 1
        self.seconds.append(seconds)
        self.by_others += not is_ours
        whose = "" if is_ours else "  by another command"
        self._line(job, f"{_metric(result)}{format_seconds(seconds):>8}{whose}")

    def failed(self, job: SweepJob, cause: str) -> None:
        """Count and print a failed job."""
        self.failures.append((job, cause))
        self._line(job, f"failed: {cause}")

    def print_failures(self, not_started: int = 0) -> int:
        """Print the failed jobs with their causes; returns the exit code."""
        for job, cause in self.failures:
            print(f"error: {job.name}: {cause}; see {job.run.log}", file=sys.stderr)
        if self.failures:
            left = f", {not_started} not started" if not_started else ""
            print(f"error: {len(self.failures)} failed{left}; the same command tries again", file=sys.stderr)
        return 1 if self.failures else 0

    def _line(self, job: SweepJob, text: str) -> None:
        count = f"[{self.done + len(self.failures):>{len(str(self.total))}}/{self.total}]"
        self.console.print(f"{count} {job.name:<{self.width}}  {text}", markup=False)


def print_dry_run(jobs: list[SweepJob], n_jobs: int) -> None:
    """Print the jobs that a sweep would run."""
    width = max(len(str(job.run.path)) for job in jobs)
    for job in jobs:
        cost = "" if job.params is None else f"{job.params:>12,} params {job.macs:>15,} MACs"
        print(f"{job.state.value:<9}  {job.run.path!s:<{width}}  {cost}".rstrip())
    counts = [f"{sum(job.state is state for job in jobs)} {state.value}" for state in JobStatus]
    print(f"{len(jobs)} jobs: {', '.join(counts)}; {n_jobs} at a time")


def _metric(result: Mapping[str, Any]) -> str:
    name = primary_metric(result)
    return f"{format_metric(name, result['metrics']['test'][name]):>8}  " if name else ""


def format_seconds(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
