"""Test two commands that run the same sweep: each job is trained once, and both report all results."""

import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ghostexp.runner.execute import execute
from ghostexp.runner.resources import ResourcePool, Resources
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.lock import locked
from ghostexp.sweeps.jobs import SweepJob
from ghostexp.sweeps.local_jobs import JobScheduler
from tests.cli import TINY, command, start, wait_for

SWEEP = ("-m", *TINY, "trainer.max_epochs=1", "name=sweep", "n_jobs=1")


def test_concurrent_commands_train_each_job_once(tmp_path: Path) -> None:
    both = [start(*SWEEP, "seed=0,1") for _ in range(2)]
    outputs = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    for _, err in outputs:
        assert "error" not in err
    folder = tmp_path / "outputs" / "sweep"
    for name in ("seed-0", "seed-1"):
        assert (folder / name / "run.log").read_text().count("`Trainer.fit` stopped") == 1
    for out, _ in outputs:
        assert "2 jobs finished" in out or "finished already" in out


def test_sweep_waits_for_job_of_another_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(*SWEEP) == 0
    capfd.readouterr()
    run = RunDirectory(tmp_path / "outputs" / "sweep" / "job")
    result = run.result.read_text()
    run.result.unlink()

    def other_command() -> None:
        with locked(run.path, 0):
            held.set()
            time.sleep(5)  # more than a job waits for the lock
            run.result.write_text(result)

    held, other = threading.Event(), threading.Thread(target=other_command)
    other.start()
    held.wait()
    assert command(*SWEEP) == 0
    other.join()
    out = capfd.readouterr().out
    assert "job: runs in another command; waiting for its result" in out
    assert "(1 by another command), 0 failed" in out
    assert run.result.read_text() == result
    assert (run.path / "run.log").read_text().count("`Trainer.fit` stopped") == 1


def test_execute_keeps_result_of_another_process(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = RunDirectory(tmp_path)
    run.write_result({"seed": 0})
    assert execute({"task": {"name": "fit"}, "traceback": False}, run) == 0
    assert json.loads(run.result.read_text()) == {"seed": 0}
    assert f"{tmp_path}: finished already, by another process" in capfd.readouterr().err


@pytest.fixture
def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobScheduler:
    """Return the scheduler of one job, which runs in another command."""
    monkeypatch.setattr("ghostexp.sweeps.local_jobs.STOP_SECONDS", 0.5)
    run = RunDirectory(tmp_path / "seed-0")
    config = {"task": {"name": "fit"}, "seed": 0, "trainer": {"devices": 1, "num_nodes": 1}}
    run.write_config(config)
    scheduler = JobScheduler(tmp_path, [SweepJob(run, ("seed=0",), config)], ResourcePool([], 1, 1, 1), fail_fast=False)
    scheduler.elsewhere = [scheduler.waiting.pop()]
    return scheduler


@pytest.mark.parametrize(
    ("leave", "finished", "failed", "waiting"),
    [
        (lambda run: run.write_result({"seed": 0}), 1, 0, 0),
        (lambda run: run.write_failure(ValueError("out of data"), "out of data"), 0, 1, 0),
        (lambda run: None, 0, 0, 1),
    ],
)
def test_look_elsewhere_collects_results_of_other_commands(
    leave: Callable[[RunDirectory], None], finished: int, failed: int, waiting: int, scheduler: JobScheduler
) -> None:
    run = scheduler.elsewhere[0].run
    with locked(run.path, 0):
        scheduler._look_elsewhere()
        assert len(scheduler.elsewhere) == 1
        leave(run)
    scheduler._look_elsewhere()
    assert scheduler.elsewhere == []
    assert (scheduler.progress.done, len(scheduler.progress.failures), len(scheduler.waiting)) == (
        finished,
        failed,
        waiting,
    )
    if waiting:
        assert scheduler._claim(scheduler.waiting[0])
        assert scheduler.waiting[0].config["resume"] == str(run.path)


def test_claim_rejects_another_configuration(scheduler: JobScheduler) -> None:
    job = scheduler.elsewhere.pop()
    job.run.write_config({**job.config, "seed": 5})
    assert not scheduler._claim(job)
    assert "seed: 5 -> 0" in scheduler.progress.failures[0][1]
    assert job.run.read_config()["seed"] == 5


class Hanging:
    """Fake of processes that do not stop."""

    def __init__(self) -> None:
        self.resources = Resources(1)
        self.signals: list[int] = []
        self.is_killed = False

    def signal(self, signum: int) -> None:
        self.signals.append(signum)

    def kill(self) -> None:
        self.is_killed = True

    def explain(self) -> str:
        return "killed"


def test_job_running_elsewhere_is_not_started_or_failed(scheduler: JobScheduler) -> None:
    job = scheduler.elsewhere.pop()
    with locked(job.run.path, 0):
        assert not scheduler._claim(job)
        assert scheduler.elsewhere == [job]
        started = Hanging()  # before the other command had the lock
        scheduler.running = {started: (scheduler.elsewhere.pop(), 0.0)}  # pyright: ignore[reportAttributeAccessIssue]
        scheduler._end(started, 1)  # pyright: ignore[reportArgumentType]
    assert (scheduler.elsewhere, scheduler.progress.failures) == ([job], [])


def test_job_that_was_killed_has_failed_though_its_workers_hold_the_lock(scheduler: JobScheduler) -> None:
    job, killed = scheduler.elsewhere.pop(), Hanging()
    with locked(job.run.path, 0):
        scheduler.running = {killed: (job, 0.0)}  # pyright: ignore[reportAttributeAccessIssue]
        scheduler._end(killed, 128 + signal.SIGKILL)  # pyright: ignore[reportArgumentType]
    assert (scheduler.elsewhere, scheduler.progress.failures) == ([], [(job, "killed")])


def test_free_slots_get_jobs_that_are_made_while_others_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search makes its jobs one by one: a short one is followed by the next while a long one runs."""
    looks = {"0": 6, "1": 1, "2": 1, "3": 1}  # at each job until it has ended
    events: list[str] = []

    class Processes(Hanging):
        sentinels = ()

        def __init__(self, config: dict[str, Any], run: RunDirectory, *_args: object, **_keys: object) -> None:
            super().__init__()
            self.name, self.left = run.path.name, looks[run.path.name]
            events.append(f"start {self.name}")

        def poll(self) -> int | None:
            self.left -= 1
            events.extend([f"end {self.name}"] * (self.left == 0))
            return None if self.left else 0

    class Growing(JobScheduler):
        made = 0

        def _has_more(self) -> bool:
            while self.made < len(looks) and len(self.running) + len(self.waiting) < 2:
                config = {"task": {"name": "fit"}, "seed": self.made, "trainer": {"devices": 1, "num_nodes": 1}}
                job = SweepJob(RunDirectory(tmp_path / str(self.made)), (), config)
                self.waiting.append(job)
                self.made += 1
            return super()._has_more()

        def _finish(self, job: SweepJob, seconds: float | None = None) -> None:
            pass

    monkeypatch.setattr("ghostexp.sweeps.local_jobs.RunProcesses", Processes)
    monkeypatch.setattr("ghostexp.sweeps.local_jobs.connection.wait", lambda *_args, **_keys: [])
    Growing(tmp_path, [], ResourcePool([], 2, 1, 4), fail_fast=False).run()
    assert events.index("end 3") < events.index("end 0")


def test_job_that_does_not_stop_is_killed(scheduler: JobScheduler, capfd: pytest.CaptureFixture[str]) -> None:
    hanging = Hanging()
    scheduler.running = {hanging: (scheduler.elsewhere[0], 0.0)}  # pyright: ignore[reportAttributeAccessIssue]
    scheduler.stop = signal.SIGTERM
    scheduler._signal_running_jobs()
    scheduler._signal_running_jobs()
    assert (hanging.signals, hanging.is_killed) == ([signal.SIGTERM], False)
    time.sleep(0.6)
    scheduler._signal_running_jobs()
    assert (hanging.signals, hanging.is_killed) == ([signal.SIGTERM], True)
    assert "seed-0: did not stop within 0 s, killed" in capfd.readouterr().out


def test_sweep_that_waits_for_other_commands_ends_on_sigterm(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "outputs" / "sweep" / "job")
    run.path.mkdir(parents=True)
    with locked(run.path, 0):
        process = start(*SWEEP)
        wait_for(run.path.parent / "sweep.yaml")
        time.sleep(2)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "stopped by SIGTERM; the same command continues" in err
    assert not run.config.exists()
