"""Run the jobs of a sweep through submitit: on SLURM, or with its local executor on this machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import submitit

from ghostexp.runner.execute import execute
from ghostexp.runner.exit import end_process
from ghostexp.runner.ranks import is_started_by_slurm
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.lock import is_locked
from ghostexp.runs.sweep_record import sweep_lock
from ghostexp.runs.text_files import write_atomically
from ghostexp.sweeps.jobs import JobStatus, SweepJob, load_status, prepare_directory
from ghostexp.sweeps.progress import SweepProgress

LOOK = 2.0  # seconds between two polls of the queue
UNANSWERED = 150  # polls in a row, of five minutes, after which a sweep ends
JOB_ID = ".slurm"  # file in a run's directory
Submitted = dict[Path, submitit.Job[int]]  # by directory of the run
PORTS = 15000, 20000  # the first port of rank 0, and the number of ports


def run_with_submitit(jobs: list[SweepJob], launcher: Mapping[str, Any], directory: Path, fail_fast: bool) -> int:
    """Submit the jobs that are neither finished nor queued, and wait for all; returns the exit code.

    fail_fast: the first failure cancels the others. An interrupt ends the waiting only.
    """
    folder = directory / ".submitit"
    todo = {job.run.path: job for job in jobs if job.state is not JobStatus.FINISHED}
    is_slurm = launcher["backend"] == "slurm"
    with sweep_lock(directory):  # two commands at the same time queue each job once
        submitted = queued_before(list(todo.values()), folder) if is_slurm else {}
        new = [job for path, job in todo.items() if path not in submitted]
        for shape in sorted({(job.processes, job.nodes) for job in new}):
            alike = [job for job in new if (job.processes, job.nodes) == shape]
            submitted |= submit(alike, launcher, folder, *shape)
    with SweepProgress(jobs, len(jobs)) as progress:
        try:
            cancelled = _watch(todo, submitted, progress, is_slurm, fail_fast)
        except KeyboardInterrupt:
            print_interrupted([one.job_id for one in submitted.values()] if is_slurm else None)
            return 128 + signal.SIGINT
    return progress.print_failures(not_started=cancelled)


def print_interrupted(queued: Sequence[str] | None) -> None:
    """Print what an interrupt has left. queued: jobs on SLURM; None: on this machine, where the terminal ends all."""
    if queued is None:
        print("the jobs end too; the same command continues them", file=sys.stderr)
        return
    print("the jobs continue, and the same command waits for them; to cancel them:", file=sys.stderr)
    print("scancel", *queued, file=sys.stderr)


def submit(jobs: list[SweepJob], launcher: Mapping[str, Any], folder: Path, processes: int, nodes: int) -> Submitted:
    """Submit jobs with equal requirements as an array."""
    parameters = {key: value for key, value in launcher.items() if key not in ("backend", "gpus") and value is not None}
    parameters |= {"tasks_per_node": processes, "nodes": nodes}
    if launcher["gpus"]:
        parameters["gpus_per_node"] = processes
    try:
        executor = submitit.AutoExecutor(folder, cluster="slurm" if launcher["backend"] == "slurm" else "local")
        executor.update_parameters(**parameters)
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        raise ValueError(f"hydra/launcher: {' '.join(str(error).split())}") from error
    for job in jobs:
        prepare_directory(job)
    submitted = executor.submit_array([SubmittedJob(job.command_config, str(job.run.path)) for job in jobs])
    for job, one in zip(jobs, submitted, strict=True):
        write_atomically(job.run.path / JOB_ID, one.job_id)
    return {job.run.path: one for job, one in zip(jobs, submitted, strict=True)}


def queued_before(jobs: list[SweepJob], folder: Path, states: Mapping[str, str] | None = None) -> Submitted:
    """Return jobs of an earlier command that are still queued or running. states: those of the queue, if known."""
    states = queue_states() if states is None else states
    notes = {job.run.path: job.run.path / JOB_ID for job in jobs}
    ids = {path: note.read_text(encoding="utf-8") for path, note in notes.items() if note.is_file()}
    return {path: submitit.SlurmJob(folder, job_id) for path, job_id in ids.items() if job_id in states}


def queue_states() -> dict[str, str]:
    """Return state by id of this user's queued and running jobs; ValueError: squeue failed."""
    command = ["squeue", "--me", "--array", "--noheader", "--format=%i %T"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except FileNotFoundError:
        raise ValueError("hydra/launcher: needs SLURM; squeue was not found") from None
    except subprocess.CalledProcessError as error:
        raise ValueError(f"hydra/launcher: squeue failed ({' '.join(error.stderr.split())})") from None
    return dict(line.split(maxsplit=1) for line in lines)


def wait_for_states() -> dict[str, str]:
    """Return state by id of this user's jobs, while jobs run: a controller that does not answer is asked again."""
    for _ in range(UNANSWERED - 1):
        with suppress(ValueError):
            return queue_states()
        time.sleep(LOOK)
    return queue_states()


def _watch(
    todo: dict[Path, SweepJob], submitted: Submitted, progress: SweepProgress, is_slurm: bool, fail_fast: bool
) -> int:
    """Wait until every job has a result or a failure, or has left the queue without either.

    fail_fast: cancel the others after the first failure; returns their number.
    """
    left = dict(todo)
    while left:
        here = {} if is_slurm else {one.job_id: one.state for one in submitted.values() if not one.done()}
        states = wait_for_states() if is_slurm else here
        for path, job in list(left.items()):
            job_id = submitted[path].job_id
            if job.run.result.is_file():
                progress.finished(job)
            elif job_id in states or is_locked(job.run.path):  # or it runs in another command
                continue
            elif job.run.failure.is_file():
                progress.failed(job, job.run.read_failure())
            else:
                progress.failed(job, f"job {job_id} left the queue without a result (cancelled? out of memory?)")
            del left[path]
        if fail_fast and progress.failures:
            for path in left:
                submitted[path].cancel()
            return len(left)
        count = sum(states.get(submitted[path].job_id) == "RUNNING" for path in left)
        progress.show(count, len(left) - count)
        time.sleep(LOOK if left else 0)
    return 0


@dataclass(frozen=True)
class SubmittedJob:
    """One rank of a queued job; a requeued job continues from its last checkpoint."""

    config: dict[str, Any]
    path: str

    def __call__(self) -> int:
        """Run the task and return its exit code."""
        job = SweepJob(RunDirectory(Path(self.path)), (), self.config)
        load_status(job)
        if job.state is JobStatus.FINISHED:
            return 0
        started, out_of_time = time.time(), []

        def save_and_stop(signum: int, frame: FrameType | None) -> None:
            out_of_time.append(signum)
            if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
                raise KeyboardInterrupt  # before the training
            signal.raise_signal(signal.SIGTERM)

        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # until there is a training; submitit would ignore it
        signal.signal(signal.SIGUSR2, save_and_stop)  # sent `slurm_signal_delay_s`, or a minute more, before the end
        environment = submitit.JobEnvironment()
        if not is_started_by_slurm():
            _set_rank_environment(environment)
        code = execute(job.config, job.run)
        if code and out_of_time and environment.global_rank == 0:
            _requeue(job.run, started)
        if code and out_of_time and environment.global_rank:
            end_process(0)  # srun would end rank 0, which queues the job again
        if code:
            end_process(code)
        return code


def _requeue(run: RunDirectory, started: float) -> None:
    """Requeue a job that reached its time limit, if it saved a new checkpoint."""
    job_id = os.environ.get("SLURM_JOB_ID")
    if run.last.exists() and run.last.stat().st_mtime > started:
        if job_id:
            subprocess.run(["scontrol", "requeue", job_id], check=True)
            return
        message = "time limit reached; the same command continues the run"
        run.write_failure(TimeoutError(message), message)
    else:
        message = "time limit reached without a new checkpoint; set a longer hydra.launcher.timeout_min"
        run.write_failure(TimeoutError(message), message)


def _set_rank_environment(environment: submitit.JobEnvironment) -> None:
    """Set the variables of torch.distributed, which SLURM does not set."""
    if environment.num_tasks > 1:
        first, count = PORTS
        ranks = {
            "RANK": environment.global_rank,
            "LOCAL_RANK": environment.local_rank,
            "WORLD_SIZE": environment.num_tasks,
        }
        address = {"MASTER_ADDR": environment.hostnames[0], "MASTER_PORT": first + int(environment.raw_job_id) % count}
        os.environ.update(
            {key: str(value) for key, value in (ranks | address | {"NODE_RANK": environment.node}).items()}
        )
