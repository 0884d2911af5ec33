"""Sweeps on a cluster: what is asked of the queue, and what a job does in it. experiments/slurm tries a real one."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ghostexp.runs.directory import RunDirectory
from ghostexp.sweeps import submitit_launcher
from ghostexp.sweeps.jobs import SweepJob
from tests.cli import TINY, command

SLURM = ("hydra/launcher=submitit_slurm", "hydra.launcher.slurm_partition=gpu", "hydra.launcher.timeout_min=60")


class Queue:
    """Stands for submitit's executor, and for SLURM's queue, in which every job is done at once."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.jobs: list[submitit_launcher.SubmittedJob] = []

    def __call__(self, folder: Path, cluster: str) -> "Queue":
        assert cluster == "slurm"
        return self

    def update_parameters(self, **parameters: Any) -> None:
        self.asked.append(parameters)

    def submit_array(self, jobs: list[submitit_launcher.SubmittedJob]) -> list[SimpleNamespace]:
        self.jobs += jobs
        for job in jobs:
            RunDirectory(Path(job.path)).write_result({"task": "fit"})
        return [SimpleNamespace(job_id=f"7_{number}") for number in range(len(jobs))]


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    """A queue that is asked instead of SLURM's, and is empty."""
    queue = Queue()
    monkeypatch.setattr(submitit_launcher.submitit, "AutoExecutor", queue)
    monkeypatch.setattr(submitit_launcher, "_states", dict)
    return queue


def test_jobs_that_need_the_same_are_an_array_with_a_task_for_each_device(queue: Queue, tmp_path: Path) -> None:
    assert command("-m", *TINY, *SLURM, "trainer.devices=1,4", "seed=0,1,2", "name=sweep") == 0
    shapes = [(asked["tasks_per_node"], asked["gpus_per_node"], asked["nodes"]) for asked in queue.asked]
    assert shapes == [(1, 1, 1), (4, 4, 1)]
    assert queue.asked[0]["slurm_partition"] == "gpu"
    assert queue.asked[0]["slurm_additional_parameters"] == {"requeue": True}
    assert len(queue.jobs) == 6
    assert (tmp_path / "outputs" / "sweep" / "devices-4_seed-2" / ".slurm").read_text() == "7_2"
    assert command("-m", *TINY, *SLURM, "trainer.devices=1,4", "seed=0,1,2", "name=sweep") == 0
    assert len(queue.jobs) == 6


def test_a_job_that_is_queued_already_is_not_queued_again(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(tmp_path / "run")
    job = SweepJob(run, (), {})
    run.path.mkdir()
    (run.path / ".slurm").write_text("9_0")
    monkeypatch.setattr(submitit_launcher, "_states", lambda: {"9_0": "PENDING", "9_1": "RUNNING"})
    assert [one.job_id for one in submitit_launcher._queued_before([job], tmp_path).values()] == ["9_0"]
    monkeypatch.setattr(submitit_launcher, "_states", lambda: {"9_1": "RUNNING"})
    assert submitit_launcher._queued_before([job], tmp_path) == {}


def test_a_job_out_of_time_is_queued_again_only_if_it_came_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(submitit_launcher.subprocess, "run", lambda command, check: asked.append(command))
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    run = RunDirectory(tmp_path)
    run.last.parent.mkdir()
    run.last.touch()
    submitit_launcher._requeue(run, started=time.time() + 1)
    assert asked == []
    assert "set a longer hydra.launcher.timeout_min" in run.read_failure()
    submitit_launcher._requeue(run, started=time.time() - 1)
    assert asked == [["scontrol", "requeue", "12"]]


def test_states_are_read_from_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    listing = SimpleNamespace(stdout="12_0 RUNNING\n12_1 PENDING\n13 COMPLETING\n")
    monkeypatch.setattr(submitit_launcher.subprocess, "run", lambda *args, **kwargs: listing)
    assert submitit_launcher._states() == {"12_0": "RUNNING", "12_1": "PENDING", "13": "COMPLETING"}


def test_a_cluster_that_is_not_there_or_does_not_answer_is_one_line(
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


def test_the_number_of_devices_has_to_be_said(capfd: pytest.CaptureFixture[str]) -> None:
    assert command("-m", *TINY, *SLURM, "seed=0,1", "trainer.devices=auto") == 1
    assert "trainer.devices=auto: must be an integer >= 1 on a cluster" in capfd.readouterr().err


@pytest.mark.slow
def test_jobs_of_two_tasks_run_through_submitit_on_this_machine(tmp_path: Path) -> None:
    sweep = ("-m", *TINY, "seed=0,1", "trainer.devices=2", "name=sweep", "hydra/launcher=submitit_local")
    assert command(*sweep) == 0
    for seed in range(2):
        result = json.loads((tmp_path / "outputs" / "sweep" / f"seed-{seed}" / "result.json").read_text())
        assert (result["devices"], result["seed"]) == (2, seed)
    assert "RANK" not in os.environ
