"""The jobs of a sweep on this machine: start them where there is room, wait, and take the results of other commands."""

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
STOP_SECONDS = 120.0  # that jobs have to save and end after a signal; what they saved before is kept in any case


class JobScheduler:
    """The jobs of a sweep: waiting, running here, running in another command that was given the same jobs, done."""

    def __init__(self, directory: Path, jobs: list[SweepJob], slots: ResourcePool, fail_fast: bool) -> None:
        self.directory, self.slots, self.fail_fast = directory, slots, fail_fast
        self.waiting = [job for job in jobs if job.state is not JobStatus.FINISHED]
        self.running: dict[RunProcesses, tuple[SweepJob, float]] = {}
        self.elsewhere: list[SweepJob] = []
        self.progress = SweepProgress(jobs, slots.n_jobs)
        self.stop = 0  # the signal to stop with, once that is to be
        self.deadline = 0.0  # for what is running then
        self.signalled: set[RunProcesses] = set()

    def run(self) -> int:
        """Run them all; returns the exit code. The first stop signal has running jobs save, the second kills."""
        with self.progress, self._none_left(), handle_signals(self._act) as received:
            while self.running or (not self.stop and (self.waiting or self.elsewhere)):
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
            print(f"stopped by {signal.Signals(received[0]).name}; the same command does the rest", file=sys.stderr)
            return 128 + received[0]
        return code

    def _act(self, signum: int, is_first: bool) -> None:
        self.stop = self.stop or signum
        for processes in () if is_first else self.running:
            processes.signal(signal.SIGKILL)

    def _signal_running_jobs(self) -> None:
        """Have every running job save and stop, once, when it is time to; kill those that do not."""
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
        """Start what fits, in order."""
        while self.waiting:
            job = self.waiting[0]
            slot = self.slots.acquire(job.processes, isinstance(job.config["trainer"]["devices"], list))
            if slot is None:
                return
            self.waiting.pop(0)
            if self._claim(job):
                self.running[RunProcesses(job.config, job.run, job.processes, slot, quiet=True)] = (
                    job,
                    time.monotonic(),
                )
            else:
                self.slots.release(slot)

    def _claim(self, job: SweepJob) -> bool:
        """Make a job's directory, unless another command has finished the job, or runs it."""
        with sweep_lock(self.directory):
            try:
                load_status(job)
            except ValueError as error:
                self.progress.failed(job, str(error))
                return False
            if job.state is JobStatus.FINISHED:
                self.progress.finished(job, is_ours=False)
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
        """Take the results of jobs that ran in other commands; one that was stopped there goes on here."""
        for job in [job for job in self.elsewhere if not is_locked(job.run.path)]:
            self.elsewhere.remove(job)
            if job.run.result.is_file():
                self.progress.finished(job, is_ours=False)
            elif job.run.failure.is_file():
                self.progress.failed(job, job.run.read_failure())
            else:
                self.waiting.insert(0, job)

    def _end(self, processes: RunProcesses, code: int) -> None:
        """Note how a job ended."""
        job, started = self.running.pop(processes)
        self.slots.release(processes.slot)
        if code == 0:
            self.progress.finished(job, time.monotonic() - started)
        elif not self.stop and (job.run.result.is_file() or is_locked(job.run.path)):
            self._leave(job)  # another command was faster
        elif not (self.stop and code in STOPPED):
            self.progress.failed(job, _cause(processes, code))
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
    """Why a job failed."""
    cause = processes.cause()
    if cause is not None:
        processes.run.write_failure(RuntimeError(cause), cause)
    if processes.run.failure.is_file():
        return processes.run.read_failure()
    return "was told to stop by somebody else" if code in STOPPED else f"ended with exit code {code}"
