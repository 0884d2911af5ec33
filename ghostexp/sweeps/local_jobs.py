"""Run the jobs of a sweep in parallel on this machine, together with other commands that run the same sweep."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path

from ghostexp.runner.processes import RunProcesses, handle_signals
from ghostexp.runner.resources import ResourcePool
from ghostexp.runs.lock import is_locked
from ghostexp.runs.signals import STOP_SIGNALS
from ghostexp.runs.sweep_record import sweep_lock
from ghostexp.sweeps.jobs import JobStatus, SweepJob, load_status, prepare_directory
from ghostexp.sweeps.progress import SweepProgress

STOPPED = tuple(128 + signum for signum in (*STOP_SIGNALS, signal.SIGKILL))  # exit codes
STOP_SECONDS = 120.0  # for jobs to save and end after a signal; earlier checkpoints are kept in any case


class JobScheduler:
    """Scheduler of the jobs of a sweep: waiting, running here, running in another command, or done."""

    def __init__(self, directory: Path, jobs: list[SweepJob], pool: ResourcePool, fail_fast: bool) -> None:
        self.directory, self.pool, self.fail_fast = directory, pool, fail_fast
        self.waiting = [job for job in jobs if job.state is not JobStatus.FINISHED]
        self.running: dict[RunProcesses, tuple[SweepJob, float]] = {}
        self.elsewhere: list[SweepJob] = []
        self.progress = SweepProgress(jobs, pool.n_jobs)
        self.stop = 0  # signal to stop with; 0: do not stop
        self.deadline = 0.0  # for the jobs that are running then
        self.signalled: set[RunProcesses] = set()

    def run(self) -> int:
        """Run all jobs and return the exit code. At the first stop signal running jobs save, the second kills them."""
        with self.progress, self._none_left(), handle_signals(self._act) as received:
            while (not self.stop and self._has_more()) or self.running:
                if not self.stop:
                    self._look_elsewhere()
                    self._start()
                self._signal_running_jobs()
                connection.wait(
                    [sentinel for processes in self.running for sentinel in processes.sentinels], timeout=0.5
                )
                self.progress.show(len(self.running), len(self.waiting))
                for processes in list(self.running):
                    if (code := processes.poll()) is not None:
                        self._end(processes, code)
        code = self.progress.print_failures(not_started=len(self.waiting))
        if received:
            print(f"stopped by {signal.Signals(received[0]).name}; the same command continues", file=sys.stderr)
            return 128 + received[0]
        return code

    def _has_more(self) -> bool:
        """Return whether jobs are to be started, or waited for."""
        return bool(self.waiting or self.elsewhere)

    def _act(self, signum: int, is_first: bool) -> None:
        self.stop = self.stop or signum
        for processes in () if is_first else self.running:
            processes.signal(signal.SIGKILL)

    def _signal_running_jobs(self) -> None:
        """Send the stop signal to every running job, once, and kill those that do not end in time."""
        if not self.stop:
            return
        self.deadline = self.deadline or time.monotonic() + STOP_SECONDS
        for processes, (job, _) in self.running.items():
            if processes not in self.signalled:
                processes.signal(self.stop)
                self.signalled.add(processes)
            elif time.monotonic() > self.deadline:
                self.progress.note(job, f"did not stop within {STOP_SECONDS:.0f} s, killed")
                processes.kill()

    def _start(self) -> None:
        """Start waiting jobs in order while resources are free."""
        while self.waiting:
            job = self.waiting[0]
            resources = self.pool.acquire(job.processes, isinstance(job.config["trainer"]["devices"], list))
            if resources is None:
                return
            self.waiting.pop(0)
            if self._claim(job):
                self.running[RunProcesses(job.command_config, job.run, job.processes, resources, quiet=True)] = (
                    job,
                    time.monotonic(),
                )
            else:
                self.pool.release(resources)

    def _claim(self, job: SweepJob) -> bool:
        """Create a job's directory, unless another command has finished the job or runs it."""
        with sweep_lock(self.directory):
            try:
                load_status(job)
            except ValueError as error:
                self._fail(job, str(error))
                return False
            if job.state is JobStatus.FINISHED:
                self._finish(job)
            elif is_locked(job.run.path):
                self._leave(job)
            else:
                prepare_directory(job)
                return True
        return False

    def _leave(self, job: SweepJob) -> None:
        """Leave a job to the command that runs it, and wait for its result."""
        self.progress.note(job, "runs in another command; waiting for its result")
        self.elsewhere.append(job)

    def _look_elsewhere(self) -> None:
        """Collect the results of jobs that ran in other commands; continue those that were stopped there."""
        for job in [job for job in self.elsewhere if not is_locked(job.run.path)]:
            self.elsewhere.remove(job)
            if job.run.result.is_file():
                self._finish(job)
            elif job.run.failure.is_file():
                self._fail(job, job.run.read_failure())
            else:
                self.waiting.insert(0, job)

    def _end(self, processes: RunProcesses, code: int) -> None:
        """Record how a job ended."""
        job, started = self.running.pop(processes)
        self.pool.release(processes.resources)
        if code == 0:
            self._finish(job, time.monotonic() - started)
        elif not self.stop and (job.run.result.is_file() or (code == 1 and is_locked(job.run.path))):
            # Another command was faster. The loader workers of a killed process hold its lock for some milliseconds.
            self._leave(job)
        elif not (self.stop and code in STOPPED):
            self._fail(job, _cause(processes, code))

    def _finish(self, job: SweepJob, seconds: float | None = None) -> None:
        """Record a finished job; seconds: None if another command ran it."""
        self.progress.finished(job, seconds, is_ours=seconds is not None)

    def _fail(self, job: SweepJob, cause: str) -> None:
        """Record a failed job."""
        self.progress.failed(job, cause)
        if self.fail_fast:
            self.stop = signal.SIGTERM

    @contextmanager
    def _none_left(self) -> Iterator[None]:
        try:
            yield
        finally:
            for processes in self.running:
                processes.kill()


def _cause(processes: RunProcesses, code: int) -> str:
    """Return why a job failed."""
    cause = processes.explain()
    if cause is not None:
        return cause
    return "terminated by an external signal" if code in STOPPED else f"ended with exit code {code}"
