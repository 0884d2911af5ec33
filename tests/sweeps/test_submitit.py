"""Test sweeps on a cluster with a fake queue; experiments/slurm runs a real one."""

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from ghostexp.runs.directory import RunDirectory
from ghostexp.sweeps import preflight, submitit_launcher
from ghostexp.sweeps.jobs import SweepJob
from tests.cli import TINY, command

SLURM = ("hydra/launcher=submitit_slurm", "hydra.launcher.slurm_partition=gpu", "hydra.launcher.timeout_min=60")


class Queue:
    """Fake of submitit's executor and SLURM's queue, in which every job finishes at once."""

    def __init__(self) -> None:
        self.parameters: list[dict[str, Any]] = []
        self.jobs: list[submitit_launcher.SubmittedJob] = []

    def __call__(self, folder: Path, cluster: str) -> "Queue":
        assert cluster == "slurm"
        return self

    def update_parameters(self, **parameters: Any) -> None:
        self.parameters.append(parameters)

    def submit_array(self, jobs: list[submitit_launcher.SubmittedJob]) -> list[SimpleNamespace]:
        self.jobs += jobs
        for job in jobs:
            RunDirectory(Path(job.path)).write_result({"task": "fit"})
        return [SimpleNamespace(job_id=f"7_{number}") for number in range(len(jobs))]


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    """Replace SLURM's queue by an empty fake."""
    queue = Queue()
    monkeypatch.setattr(submitit_launcher.submitit, "AutoExecutor", queue)
    monkeypatch.setattr(submitit_launcher, "queue_states", dict)
    return queue


def test_jobs_with_equal_devices_are_one_array(queue: Queue, tmp_path: Path) -> None:
    assert command("-m", *TINY, *SLURM, "trainer.devices=1,4", "seed=0,1,2", "name=sweep") == 0
    shapes = [
        (parameters["tasks_per_node"], parameters["gpus_per_node"], parameters["nodes"])
        for parameters in queue.parameters
    ]
    assert shapes == [(1, 1, 1), (4, 4, 1)]
    assert queue.parameters[0]["slurm_partition"] == "gpu"
    assert queue.parameters[0]["slurm_additional_parameters"] == {"requeue": True}
    assert len(queue.jobs) == 6
    assert (tmp_path / "outputs" / "sweep" / "devices-4_seed-2" / ".slurm").read_text() == "7_2"
    assert command("-m", *TINY, *SLURM, "trainer.devices=1,4", "seed=0,1,2", "name=sweep") == 0
    assert len(queue.jobs) == 6


def test_queued_job_is_not_submitted_again(queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(tmp_path / "run")
    job = SweepJob(run, (), {})
    run.path.mkdir()
    (run.path / ".slurm").write_text("9_0")
    monkeypatch.setattr(submitit_launcher, "queue_states", lambda: {"9_0": "PENDING", "9_1": "RUNNING"})
    assert [one.job_id for one in submitit_launcher.queued_before([job], tmp_path).values()] == ["9_0"]
    monkeypatch.setattr(submitit_launcher, "queue_states", lambda: {"9_1": "RUNNING"})
    assert submitit_launcher.queued_before([job], tmp_path) == {}


def test_job_is_requeued_only_with_a_new_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    scontrol = SimpleNamespace(run=lambda command, check: commands.append(command))
    monkeypatch.setattr(submitit_launcher, "subprocess", scontrol)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    run = RunDirectory(tmp_path)
    run.last.parent.mkdir()
    run.last.touch()
    submitit_launcher._requeue(run, started=time.time() + 1)
    assert commands == []
    assert "set a longer hydra.launcher.timeout_min" in run.read_failure()
    submitit_launcher._requeue(run, started=time.time() - 1)
    assert commands == [["scontrol", "requeue", "12"]]
    monkeypatch.delenv("SLURM_JOB_ID")  # with submitit_local
    submitit_launcher._requeue(run, started=time.time() - 1)
    assert run.read_failure() == "time limit reached; the same command continues the run"
    assert len(commands) == 1


@pytest.mark.parametrize(("rank", "wanted"), [(0, 143), (1, 0)])
def test_other_ranks_do_not_end_the_step_before_it_is_queued_again(
    rank: int, wanted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitit_launcher, "execute", lambda config, run: os.kill(os.getpid(), signal.SIGUSR2) or 143)
    environment = SimpleNamespace(global_rank=rank, num_tasks=1)
    monkeypatch.setattr(submitit_launcher.submitit, "JobEnvironment", lambda: environment)
    monkeypatch.setattr(submitit_launcher, "_requeue", lambda run, started: None)
    monkeypatch.setattr(signal, "raise_signal", lambda signum: None)
    monkeypatch.setattr(signal, "getsignal", lambda signum: None)
    codes: list[int] = []
    monkeypatch.setattr(submitit_launcher, "end_process", codes.append)
    before = {signum: signal.signal(signum, signal.SIG_DFL) for signum in (signal.SIGTERM, signal.SIGUSR2)}
    try:
        submitit_launcher.SubmittedJob({}, str(tmp_path))()
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    assert codes[0] == wanted


@pytest.mark.parametrize(
    ("backend", "wanted"),
    [
        ("slurm", "the jobs continue, and the same command waits for them; to cancel them:\nscancel 7_0\n"),
        ("submitit", "the jobs end too; the same command continues them\n"),
    ],
)
def test_interrupt_states_what_becomes_of_the_jobs(
    backend: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = SweepJob(RunDirectory(tmp_path / "run"), (), {"trainer": {"num_nodes": 1}})
    submitted = {job.run.path: SimpleNamespace(job_id="7_0")}
    monkeypatch.setattr(submitit_launcher, "queued_before", lambda jobs, folder: submitted)
    monkeypatch.setattr(submitit_launcher, "submit", lambda jobs, launcher, folder, *shape: submitted)
    monkeypatch.setattr(submitit_launcher, "_watch", Mock(side_effect=KeyboardInterrupt))
    launcher = {"backend": backend}
    assert submitit_launcher.run_with_submitit([job], launcher, tmp_path, fail_fast=False) == 128 + signal.SIGINT
    assert capsys.readouterr().err == wanted


def test_states_are_read_from_squeue(monkeypatch: pytest.MonkeyPatch) -> None:
    listing = SimpleNamespace(stdout="12_0 RUNNING\n12_1 PENDING\n13 COMPLETING\n")
    monkeypatch.setattr(submitit_launcher.subprocess, "run", lambda *args, **kwargs: listing)
    assert submitit_launcher.queue_states() == {"12_0": "RUNNING", "12_1": "PENDING", "13": "COMPLETING"}


def test_missing_or_failing_squeue_is_one_line_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command("-m", *TINY, *SLURM, "seed=0,1") == 1
    assert "error: hydra/launcher: needs SLURM; squeue was not found" in capfd.readouterr().err
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\necho slurm_load_jobs error: Unable to contact slurm controller >&2\nexit 1\n")
    squeue.chmod(0o755)
    assert command("-m", *TINY, *SLURM, "seed=0,1") == 1
    assert "error: hydra/launcher: squeue failed (slurm_load_jobs error: Unable to" in capfd.readouterr().err


def test_controller_that_does_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[object] = [ValueError("squeue failed"), {"1": "RUNNING"}, *[ValueError("squeue failed")] * 3]

    def look() -> object:
        answer = answers.pop(0)
        if isinstance(answer, ValueError):
            raise answer
        return answer

    monkeypatch.setattr(submitit_launcher, "queue_states", look)
    monkeypatch.setattr(submitit_launcher, "UNANSWERED", 3)
    monkeypatch.setattr(submitit_launcher, "LOOK", 0.0)
    assert submitit_launcher.wait_for_states() == {"1": "RUNNING"}
    with pytest.raises(ValueError, match="squeue failed"):
        submitit_launcher.wait_for_states()
    assert answers == []


def test_array_runs_n_jobs_at_a_time(queue: Queue, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("-m", *TINY, *SLURM, "seed=0,1,2", "name=sweep", "n_jobs=2", "dry_run=true") == 0
    assert "; 2 at a time" in capfd.readouterr().out
    assert command("-m", *TINY, *SLURM, "seed=0,1,2", "name=sweep", "n_jobs=2") == 0
    assert queue.parameters[0]["slurm_array_parallelism"] == 2
    assert command("-m", *TINY, "hydra/launcher=submitit_local", "seed=0,1", "n_jobs=2") == 1
    assert "n_jobs=2: must be null with hydra/launcher=submitit_local" in capfd.readouterr().err


@pytest.mark.parametrize("fail_fast", [True, False])
def test_first_failure_cancels_the_others_with_fail_fast(
    fail_fast: bool, queue: Queue, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cancelled: list[str] = []
    states = {f"7_{number}": "RUNNING" for number in range(3)}

    def submit_array(jobs: list[submitit_launcher.SubmittedJob]) -> list[SimpleNamespace]:
        RunDirectory(Path(jobs[1].path)).write_failure(ValueError("bad"), "bad")
        del states["7_1"]
        return [
            SimpleNamespace(job_id=f"7_{number}", cancel=lambda number=number: cancelled.append(f"7_{number}"))
            for number in range(len(jobs))
        ]

    def look() -> dict[str, str]:
        return dict(states) if fail_fast or not queue.parameters else {}

    monkeypatch.setattr(queue, "submit_array", submit_array)
    monkeypatch.setattr(submitit_launcher, "queue_states", look)
    assert command("-m", *TINY, *SLURM, "seed=0,1,2", "name=sweep", f"fail_fast={fail_fast}") == 1
    assert cancelled == (["7_0", "7_2"] if fail_fast else [])
    assert ("1 failed, 2 not started" if fail_fast else "3 failed") in capfd.readouterr().err


@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_sweep_on_several_gpus_needs_a_number_of_devices(
    gpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ghostexp.runner.ranks.count_gpus", lambda _: gpus)
    trainer = {"devices": "auto", "num_nodes": 1, "strategy": "auto", "accelerator": "auto"}
    config = {"trainer": trainer, "task": {"name": "fit"}}
    found = preflight._check(config, RunDirectory(tmp_path), Mock(monitor=None), is_here=True)
    refused = "trainer.devices=auto: must be a number or a list in a sweep on several GPUs" if gpus == 2 else None
    assert (found.error, found.processes) == (refused, 1)


def test_cluster_needs_a_number_of_devices(capfd: pytest.CaptureFixture[str]) -> None:
    assert command("-m", *TINY, *SLURM, "seed=0,1", "trainer.devices=auto") == 1
    assert "trainer.devices=auto: must be an integer >= 1 on a cluster" in capfd.readouterr().err


@pytest.mark.slow
def test_jobs_with_two_tasks_run_with_local_submitit(tmp_path: Path) -> None:
    sweep = ("-m", *TINY, "seed=0,1", "trainer.devices=2", "name=sweep", "hydra/launcher=submitit_local")
    assert command(*sweep) == 0
    for seed in range(2):
        result = json.loads((tmp_path / "outputs" / "sweep" / f"seed-{seed}" / "result.json").read_text())
        assert (result["devices"], result["seed"]) == (2, seed)
    assert "RANK" not in os.environ
