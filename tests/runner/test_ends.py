"""Test that processes end with their run, however it ends."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch import nn

from ghostexp.api import compose
from ghostexp.runner.fork_server import warm_up
from ghostexp.runner.processes import RunProcesses, environments
from ghostexp.runner.resources import Resources
from ghostexp.runs.directory import RunDirectory
from ghostexp.training.classification_module import ClassificationModule
from tests.cli import (
    TINY,
    TINY_DETECTOR,
    command,
    finish,
    in_directory,
    processes_in_session,
    processes_with,
    start,
    wait_until,
)
from tests.data.fake_coco import write_set
from tests.data.fake_image_folders import write_tree

SECONDS = 5  # within which a process must end after its run's last line, or after its parent
WORKERS = ("model=resnet20", "datamodule=image_folder", "datamodule.num_classes=3", "datamodule.image_size=72")
WORKERS += ("datamodule.batch_size=4", "datamodule.num_workers=2", "callbacks.progress=false", "threads=1")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return an image folder of three classes."""
    return write_tree(tmp_path / "tree", {"train": 8, "val": 4}, size=80)


def none_left(tmp_path: Path) -> bool:
    """Return whether all processes of a test's commands have ended."""
    return not processes_with(str(tmp_path))


def stuck_or_failing(num_classes: int, in_chans: int, **_: object) -> nn.Module:
    """Fail in rank 1 while rank 0 waits for it."""
    if os.environ.get("RANK") == "1":
        raise ValueError("no network here")
    if "RANK" in os.environ:
        time.sleep(600)
    return nn.Linear(in_chans, num_classes)


def test_detector_with_workers_ends_after_its_last_line(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    coco = ("datamodule=coco", f"datamodule.root={root}", "datamodule.num_classes=2", "datamodule.num_workers=2")
    small = [text for text in TINY_DETECTOR if "num_images" not in text and text != "datamodule=shapes"]
    process = start(*small, *coco, "datamodule.max_size=96", "datamodule.batch_size=2", "trainer.max_epochs=1")
    assert process.stdout is not None
    lines = [(line, time.monotonic()) for line in process.stdout]
    process.wait(60)
    assert process.returncode == 0, process.stderr
    assert "outputs" in lines[-1][0]
    assert time.monotonic() - lines[-1][1] < SECONDS
    wait_until(lambda: none_left(tmp_path), SECONDS)


def test_unreadable_image_ends_the_jobs_of_a_sweep(tmp_path: Path, tree: Path) -> None:
    (tree / "train" / "ant" / "bad.png").write_text("no image")
    started = time.monotonic()
    code, _, err = finish("-m", *WORKERS, f"datamodule.root={tree}", "seed=0,1", "name=sweep")
    assert code == 1
    assert err.count("bad.png: not a readable image") == 2
    assert time.monotonic() - started < 100
    wait_until(lambda: none_left(tmp_path), SECONDS)


def test_closed_terminal_saves_and_killed_trainer_ends_its_workers(tmp_path: Path, tree: Path) -> None:
    run = tmp_path / "run"
    arguments = (
        *WORKERS,
        "callbacks.progress=true",
        f"datamodule.root={tree}",
        "trainer.max_epochs=500",
        in_directory(run),
    )
    ours, theirs = pty.openpty()
    process = start(*arguments, "callbacks.save_every_n_epochs=null", output=theirs)
    wait_until((run / "metrics.csv").exists)
    assert b"epoch" in os.read(ours, 1 << 16)
    for end in (ours, theirs):
        os.close(end)
    os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(60) == 128 + signal.SIGHUP
    assert "stopped by SIGHUP after step" in (run / "run.log").read_text()
    wait_until(lambda: none_left(tmp_path), SECONDS)

    rows = (run / "metrics.csv").stat().st_size
    process = start(f"resume={run}")
    wait_until(lambda: (run / "metrics.csv").stat().st_size > rows)
    assert len(processes_with(str(tmp_path))) >= 3
    process.kill()  # alone: not its group
    process.communicate()
    wait_until(lambda: none_left(tmp_path), SECONDS)


def test_killed_job_of_a_sweep_ends_its_workers(tmp_path: Path, tree: Path) -> None:
    folder = tmp_path / "outputs" / "sweep"
    sweep = ("-m", *WORKERS, f"datamodule.root={tree}", "trainer.max_epochs=500", "seed=0,1", "n_jobs=2", "name=sweep")
    process = start(*sweep)
    for name in ("seed-0", "seed-1"):
        wait_until((folder / name / "checkpoints" / "last.ckpt").exists)
    jobs = {pid for pid in processes_with(str(tmp_path)) if os.getsid(pid) == pid and pid != process.pid}
    assert len(jobs) == 2
    killed = jobs.pop()
    assert len(processes_in_session(killed)) >= 3  # with its workers
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not processes_in_session(killed), SECONDS)
    os.killpg(process.pid, signal.SIGUSR1)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGUSR1, err
    assert "stopped by SIGUSR1; the same command continues" in err
    assert "exit code 255" not in out + err  # the exit code of a job whose fork server was killed by the signal
    assert sum("stopped by SIGUSR1 after step" in path.read_text() for path in folder.glob("*/run.log")) == 1
    wait_until(lambda: none_left(tmp_path), SECONDS)


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM])
def test_signal_in_the_test_ends_a_run_with_a_hint(
    signum: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ClassificationModule, "test_step", lambda *_: os.kill(os.getpid(), signum))
    assert command(*TINY, "trainer.max_epochs=1", in_directory(tmp_path / "run")) == 128 + signum
    assert f"stopped by {signal.Signals(signum).name}; to continue: python -m ghostexp" in capsys.readouterr().err


def test_hangup_is_ignored_under_nohup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = ClassificationModule.training_step

    def training_step(self: ClassificationModule, *arguments: object) -> object:
        os.kill(os.getpid(), signal.SIGHUP)
        return step(self, *arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(ClassificationModule, "training_step", training_step)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert command(*TINY, "trainer.max_epochs=1", in_directory(tmp_path / "run")) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_failing_rank_ends_a_run_whose_other_rank_waits(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    rest = (
        "model._target_=tests.runner.test_ends.stuck_or_failing",
        "trainer.devices=2",
        in_directory(tmp_path / "run"),
    )
    assert command(*TINY, *rest) == 1
    assert "error: rank-1: no network here" in capfd.readouterr().err
    assert time.monotonic() - started < 100


def test_end_process_does_not_wait_for_exit_functions_and_threads() -> None:
    text = "import atexit, threading, time; from ghostexp.runner.exit import end_process; print('said', end='')\n"
    text += "atexit.register(time.sleep, 600); threading.Thread(target=time.sleep, args=(600,)).start()\n"
    text += "threading._register_atexit(print, ' last'); end_process(3)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (3, "said last\n")


def test_print_to_a_closed_pipe_raises_nothing() -> None:
    text = "from ghostexp.runner.streams import outlive_terminal; outlive_terminal(); input(); print('x', flush=True)"
    process = subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    process.communicate(b"\n", timeout=60)
    assert process.returncode == 0


@pytest.mark.parametrize("strategy", ["single_device", "ddp_spawn", "ddp_fork", "ddp_notebook", "fsdp", "nonsense"])
def test_unusable_strategy_is_one_line(strategy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert command(*TINY, f"trainer.strategy={strategy}", "trainer.devices=2", in_directory(run)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: trainer.strategy={strategy}: must be one of auto, ddp, ")
    assert not run.exists()


def test_unusable_strategy_is_refused_before_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("-m", *TINY, "trainer.strategy=ddp_spawn,auto", "name=sweep") == 1
    assert "strategy-ddp_spawn: trainer.strategy=ddp_spawn: must be one of" in capsys.readouterr().err
    assert not (tmp_path / "outputs" / "sweep").exists()


def test_trainer_that_leaves_out_processes_is_refused(tmp_path: Path) -> None:
    single = "+trainer.strategy._target_=lightning.pytorch.strategies.SingleDeviceStrategy"
    rest = ("~trainer.strategy", single, "trainer.devices=2", in_directory(tmp_path / "run"))
    code, _, err = finish(*TINY, *rest)
    assert code == 1
    assert "trainer.strategy: must use all 2 processes of the run, got SingleDeviceStrategy with 1" in err


def test_environments_use_a_free_port_on_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    first, second = (environments(2, 1, Resources(1))[0] for _ in range(2))
    assert first["MASTER_ADDR"] == "127.0.0.1"
    assert first["MASTER_PORT"] not in ("29500", second["MASTER_PORT"])
    assert environments(2, 2, Resources(1))[0]["MASTER_PORT"] == "29500"


@pytest.mark.parametrize("name", ["NODE_RANK", "RANK"])
def test_single_run_ignores_ranks_of_the_shell(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchrun and Kubernetes set them, and as a user of several machines exports NODE_RANK."""
    monkeypatch.setenv(name, "1")
    assert command(*TINY, "trainer.max_epochs=1", in_directory(tmp_path / "run")) == 0
    assert (tmp_path / "run" / "config.yaml").is_file()
    assert (tmp_path / "run" / "result.json").is_file()


def test_processes_of_one_machine_do_not_inherit_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK"):
        monkeypatch.setenv(name, "3")
    names = {"RANK", "LOCAL_RANK", "NODE_RANK"}
    (single,) = environments(1, 1, Resources(1))
    assert not names & single.keys()
    assert [{name: one[name] for name in names} for one in environments(2, 1, Resources(1))] == [
        {"RANK": str(rank), "LOCAL_RANK": str(rank), "NODE_RANK": "0"} for rank in (0, 1)
    ]
    assert [one["RANK"] for one in environments(2, 4, Resources(1))] == ["6", "7"]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signal_to_a_process_that_has_just_been_forked_stops_the_run(signum: int, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    config = compose(*TINY, "trainer.max_epochs=10000", in_directory(run.path))
    warm_up([])
    processes = RunProcesses(config, run, processes=1, quiet=True)
    processes.signal(signum)
    try:
        wait_until(lambda: processes.poll() is not None, 60)
    finally:
        processes.kill()
    assert processes.poll() == 128 + signum
    assert "; to continue: python -m ghostexp resume=" in run.log.read_text()
    assert not run.failure.exists()


def test_signal_before_the_task_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def signalled() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("ghostexp.runner.execute.git_revision", signalled)
    assert command(*TINY, in_directory(tmp_path / "run")) == 128 + signal.SIGTERM
    assert not (tmp_path / "run" / "failure.json").exists()
