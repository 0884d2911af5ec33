"""Run the steps of searches through submitit: on SLURM, or with its local executor on this machine."""

import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ghostexp.runs.lock import is_locked
from ghostexp.runs.sweep_record import sweep_lock
from ghostexp.sweeps import submitit_launcher
from ghostexp.sweeps.jobs import JobStatus, SweepJob, load_status
from ghostexp.sweeps.search.steps import Steps


def run_with_submitit(steps: Steps, launcher: Mapping[str, Any], directory: Path, slots: int, fail_fast: bool) -> int:
    """Submit jobs, at most `slots` at a time, until the searches are over; returns the exit code.

    An interrupt ends the waiting only; the same command waits for what is queued.
    """
    queue = Queue(launcher, directory)
    with steps.progress:
        try:
            _run(steps, queue, slots, fail_fast)
        except KeyboardInterrupt:
            ids = [one.job_id for _, one in queue.jobs.values()]
            submitit_launcher.print_interrupted(ids if launcher["backend"] == "slurm" else None)
            return 128 + signal.SIGINT
    code = steps.progress.print_failures()
    if code == 0:
        steps.close()
    return code


def _run(steps: Steps, queue: "Queue", slots: int, fail_fast: bool) -> None:
    has_failed = False
    while True:
        while (
            len(queue.jobs) < slots
            and not (has_failed and (fail_fast or steps.lacks_metric))
            and (job := steps.next_job())
        ):
            try:
                load_status(job)
            except ValueError as error:  # its directory has another run
                has_failed |= steps.ended(job, str(error))
            else:
                queue.submit(job)
        if not queue.jobs:
            return
        for job in queue.ended():
            cause = job.run.read_failure() if job.run.failure.is_file() and not job.run.result.is_file() else None
            has_failed |= steps.ended(job, cause)
        steps.progress.show(len(queue.jobs), 0)
        time.sleep(submitit_launcher.LOOK if queue.jobs else 0)


class Queue:
    """Jobs in a queue, by the directory of the run."""

    def __init__(self, launcher: Mapping[str, Any], directory: Path) -> None:
        self.launcher, self.directory, self.folder = launcher, directory, directory / ".submitit"
        self.is_slurm = launcher["backend"] == "slurm"
        self.jobs: dict[Path, tuple[SweepJob, Any]] = {}
        if self.is_slurm:
            submitit_launcher.queue_states()  # without SLURM, the search does not begin

    def submit(self, job: SweepJob) -> None:
        """Submit a job, unless it is queued already or finished; ValueError: wrong values of hydra/launcher."""
        with sweep_lock(self.directory):
            states = submitit_launcher.wait_for_states() if self.is_slurm else {}
            before = submitit_launcher.queued_before([job], self.folder, states) if self.is_slurm else {}
            if job.state is JobStatus.FINISHED:
                before = {job.run.path: None}
            shape = job.processes, job.nodes
            queued = before or submitit_launcher.submit([job], self.launcher, self.folder, *shape)
        self.jobs[job.run.path] = job, queued[job.run.path]

    def ended(self) -> list[SweepJob]:
        """Remove and return the jobs that have left the queue."""
        states = submitit_launcher.wait_for_states() if self.is_slurm else {}
        left = [
            path
            for path, (_, one) in self.jobs.items()
            if not is_locked(path) and (one is None or (one.job_id not in states if self.is_slurm else one.done()))
        ]
        return [self.jobs.pop(path)[0] for path in left]
