"""Test sweeps on this machine: every job runs once, in its own process and directory."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml

from ghostexp.runner.processes import environments
from ghostexp.runner.resources import ResourcePool, Resources, list_visible_gpus
from ghostexp.runs.directory import RunDirectory
from ghostexp.sweeps import jobs
from ghostexp.sweeps.jobs import JobStatus, SweepJob, load_status, prepare_directory
from ghostexp.training.callbacks import checkpoint
from tests.cli import TINY, command, finish, processes_in, start, wait_for

SWEEP = ("-m", *TINY, "trainer.max_epochs=1", "name=sweep")
FAILING = "optimizer.lr=0.01,1e30"  # the second diverges after it is built


def test_job_killed_while_its_directory_is_written_has_not_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job = SweepJob(RunDirectory(tmp_path / "job"), (), {"seed": 1}, lambda: {"overrides.yaml": "[a]", "hydra.yaml": ""})
    written: list[str] = []

    def write(path: Path, text: str) -> None:
        written.append(path.name)
        if len(written) == 2:
            raise KeyboardInterrupt
        path.write_text(text)

    monkeypatch.setattr(jobs, "write_atomically", write)
    with pytest.raises(KeyboardInterrupt):
        prepare_directory(job)
    assert written == ["hydra.yaml", "overrides.yaml"]
    assert not job.run.config.exists()
    prepare_directory(job)
    assert (job.run.path / ".hydra" / "overrides.yaml").read_text() == "[a]"
    assert job.run.read_config() == {"seed": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the directory of the sweep."""
    return tmp_path / "outputs" / "sweep"


def results(folder: Path) -> dict[str, int]:
    """Return the end time of each job of a sweep, by name."""
    return {path.parent.name: path.stat().st_mtime_ns for path in sorted(folder.glob("*/result.json"))}


def test_job_runs_once_and_is_skipped_when_repeated(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(*SWEEP, "seed=0,1") == 0
    before = results(folder)
    assert list(before) == ["seed-0", "seed-1"]
    assert [json.loads((folder / name / "result.json").read_text())["seed"] for name in before] == [0, 1]
    assert (folder / "seed-1" / ".hydra" / "overrides.yaml").read_text().count("seed=1") == 1
    assert command(*SWEEP, "seed=0,1,2") == 0
    assert "2 of 3 jobs are finished already" in capfd.readouterr().out
    assert command(*SWEEP, "seed=0,1,2", "dry_run=true") == 0
    assert capfd.readouterr().out.count("269,722 params") == 3
    after = results(folder)
    assert list(after) == ["seed-0", "seed-1", "seed-2"]
    assert before.items() <= after.items()
    assert list(yaml.safe_load((folder / "sweep.yaml").read_text())["jobs"]) == list(after)


def test_failed_job_does_not_stop_others_and_is_retried(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sweep = (*SWEEP, FAILING, "seed=0,1", "n_jobs=1")
    assert command(*sweep) == 1
    before = results(folder)
    assert list(before) == ["lr-0.01_seed-0", "lr-0.01_seed-1"]
    err = capfd.readouterr().err
    for name in ("lr-1e30_seed-0", "lr-1e30_seed-1"):
        assert f"error: {name}: the loss of step 2 is not a finite number" in err
        assert f"see {folder / name / 'run.log'}" in err
    assert "error: 2 failed" in err
    assert command(*sweep) == 1
    assert results(folder) == before
    assert "error: 2 failed" in capfd.readouterr().err


def test_fail_fast_starts_no_further_job(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(*SWEEP, "optimizer.lr=1e30,0.01", "n_jobs=1", "fail_fast=true") == 1
    assert results(folder) == {}
    assert "error: 1 failed, 1 not started" in capfd.readouterr().err


def test_all_wrong_jobs_are_reported_before_training(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sweep = ("-m", "model.ratio=2,0,-1", "seed=0,1", "datamodule.batch_size=64", "name=sweep")
    assert command(*sweep, "optimizer.lr=0.1,-1", "scheduler=cosine,cosin") == 1
    err = capfd.readouterr().err
    assert "model.ratio=0" in err
    assert "model.ratio=-1" in err
    assert "optimizer.lr=-1" in err
    assert "scheduler=cosin: not found; there are" in err
    assert "others" in err
    assert "none of the 24 jobs was started" in err
    assert not folder.exists()


def test_dry_run_lists_jobs_and_runs_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(*SWEEP, "seed=0,1", "dry_run=true") == 0
    out = capfd.readouterr().out
    assert f"pending    {folder / 'seed-0'}" in out
    assert "269,722 params" in out
    assert "2 jobs: 2 pending, 0 resumable, 0 finished" in out
    assert not folder.exists()


def test_sweep_rejects_directory_of_another_configuration(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(*SWEEP, "seed=0,1") == 0
    before = results(folder)
    assert command(*SWEEP, "seed=0,1", "optimizer.lr=0.01") == 1
    assert "contains a run of another configuration (optimizer.lr: 0.2 -> 0.01)" in capfd.readouterr().err
    assert results(folder) == before


def test_jobs_with_one_and_two_devices_run_in_one_sweep(folder: Path) -> None:
    assert command(*SWEEP, "trainer.devices=2,1", "threads=1") == 0
    assert list(results(folder)) == ["devices-1", "devices-2"]
    devices = [json.loads((folder / name / "result.json").read_text())["devices"] for name in results(folder)]
    assert devices == [1, 2]
    assert processes_in(folder) == []


def test_sigint_saves_running_jobs_and_the_same_command_continues(folder: Path) -> None:
    sweep = ("-m", *TINY, "trainer.max_epochs=20", "seed=0,1,2", "n_jobs=2", "name=sweep")
    process = start(*sweep)
    wait_for(folder / "seed-0" / "metrics.csv")
    wait_for(folder / "seed-1" / "metrics.csv")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command continues" in err
    assert processes_in(folder) == []
    assert results(folder) == {}
    assert sorted(path.name for path in folder.glob("seed-*")) == ["seed-0", "seed-1"]
    assert command(*sweep) == 0
    assert list(results(folder)) == ["seed-0", "seed-1", "seed-2"]
    assert "Restored all states" in (folder / "seed-0" / "run.log").read_text()


def test_killed_sweep_leaves_no_process(folder: Path) -> None:
    process = start("-m", *TINY, "trainer.max_epochs=200", "seed=0,1", "name=sweep")
    wait_for(folder / "seed-0" / "metrics.csv")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 20
    while processes_in(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_in(folder) == []


@pytest.mark.slow
def test_repeatedly_killed_sweep_equals_uninterrupted_sweep(tmp_path: Path) -> None:
    rates = [0.01 * (number + 1) for number in range(17)]
    sweep = ("-m", "model=resnet20", "trainer.max_epochs=4", "threads=1", "callbacks.save_every_n_steps=10")
    sweep += (f"optimizer.lr={','.join(f'{rate:.2f}' for rate in rates)},1e30",)
    clock = time.monotonic()
    assert finish(*sweep, "name=uninterrupted")[0] == 1
    seconds = time.monotonic() - clock

    killed, done = tmp_path / "outputs" / "killed", {}
    for _ in range(3):
        process = start(*sweep, "name=killed")
        time.sleep(random.uniform(0.3, 0.8) * seconds / 2)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert done.items() <= results(killed).items()
        done = results(killed)
    code, _, err = finish(*sweep, "name=killed")
    assert code == 1
    assert "error: lr-1e30: the loss of step" in err
    assert done.items() <= results(killed).items()
    assert len(results(killed)) == 17
    for name in results(killed):
        pair = [tmp_path / "outputs" / sweep / name for sweep in ("uninterrupted", "killed")]
        assert len({(run / "metrics.csv").read_bytes() for run in pair}) == 1
        weights = [checkpoint.read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in pair]
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_resource_pool_assigns_different_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    pool = ResourcePool(["0", "1", "2", "3"], None, max_processes_per_job=2, jobs=18)
    first, second = pool.acquire(2, False), pool.acquire(2, False)
    assert first is not None
    assert second is not None
    assert {*first.gpus, *second.gpus} == {"0", "1", "2", "3"}
    assert pool.acquire(1, False) is None
    pool.release(first)
    third = pool.acquire(2, False)
    assert third is not None
    assert third.gpus == first.gpus


def test_resource_pool_shares_gpus_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    pool = ResourcePool(["0", "1"], 6, max_processes_per_job=1, jobs=18)
    acquired = [pool.acquire(1, False) for _ in range(6)]
    assert [resources.gpus[0] for resources in acquired if resources].count("0") == 3
    assert pool.acquire(1, False) is None


def test_environments_set_visible_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert list_visible_gpus(3) == ["3", "5", "7"]
    ranks = environments(2, 1, Resources(1, ("5", "7")))
    assert [rank["CUDA_VISIBLE_DEVICES"] for rank in ranks] == ["5,7", "5,7"]
    assert [(rank["RANK"], rank["LOCAL_RANK"], rank["WORLD_SIZE"]) for rank in ranks] == [
        ("0", "0", "2"),
        ("1", "1", "2"),
    ]
    assert not any("SLURM_NTASKS" in rank for rank in ranks)


@pytest.mark.parametrize(
    ("n_jobs", "max_processes_per_job", "jobs", "side_by_side", "threads"),
    [
        (None, 1, 18, 8, 1),
        (None, 2, 18, 4, 1),
        (2, 1, 18, 2, 4),
        (2, 2, 18, 2, 2),
        (None, 1, 3, 3, 2),
        (None, 9, 3, 1, 1),
    ],
)
def test_resource_pool_divides_cpu_threads(
    monkeypatch: pytest.MonkeyPatch,
    n_jobs: int | None,
    max_processes_per_job: int,
    jobs: int,
    side_by_side: int,
    threads: int,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("ghostexp.runner.resources.cores", lambda: 8)
    pool = ResourcePool([], n_jobs, max_processes_per_job, jobs)
    assert (pool.n_jobs, pool.threads) == (side_by_side, threads)


def test_load_status_reads_costs_of_a_finished_job(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    config = {"task": {"name": "fit"}, "seed": 0}
    run.write_config(config)
    run.write_result({"devices": 2, "params": 5, "macs": 7})
    job = SweepJob(run, (), dict(config))
    load_status(job)
    assert (job.state, job.processes, job.params, job.macs) == (JobStatus.FINISHED, 2, 5, 7)
