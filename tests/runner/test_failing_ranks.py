"""One rank that fails, is killed or stands still ends its run within seconds, with its reason, and no other run."""

import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ghostexp.models.resnet_cifar import ResNet
from ghostexp.runner.processes import _free_port
from ghostexp.runner.ranks import rank
from ghostexp.runs.directory import RunDirectory
from ghostexp.training.distributed import DDP
from tests.cli import TINY, command, in_directory, processes_in, start

SECONDS = 10.0  # within which a run has to end
HERE = "tests.runner.test_failing_ranks"
FAILING = f"model._target_={HERE}.failing_resnet8"
STUCK = ("model=resnet20", "datamodule=torch_dataset", f"datamodule.train._target_={HERE}.StuckDataset")
STUCK += (f"datamodule.test._target_={HERE}.StuckDataset", "datamodule.image_size=8", "datamodule.batch_size=16")
STUCK += ("trainer.max_epochs=2", "callbacks.progress=false", "threads=1", "callbacks.batch_timeout=2")
TIMEOUT = "callbacks.batch_timeout=2: no batch came within so many seconds"


def note_end() -> None:
    """Write when a rank was about to fail."""
    Path(os.environ["ENDED"]).write_text(str(time.time()))


def failing_resnet8(num_classes: int, in_chans: int, shortcut: str, width: float) -> ResNet:
    """ResNet-8 whose third training step ends the last rank as the environment says; with shortcut=A it does not."""
    steps = iter(range(1000))

    def end(network: ResNet, _: object) -> None:
        if network.training and rank() == 1 and next(steps) == 2:
            note_end()
            if os.environ["HOW"] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if os.environ["HOW"] == "diverge":
                raise FloatingPointError("the loss is not finite")
            raise RuntimeError("no memory left on this device" + " at all" * 50_000 * (os.environ["HOW"] == "long"))

    network = ResNet(8, num_classes, in_chans)
    if shortcut == "B":
        network.register_forward_pre_hook(end)
    return network


class StuckDataset(Dataset):
    """Images of which rank 1, or a single process, never gets more than so many."""

    def __init__(self, limit: int = 1000) -> None:
        self.targets, self.calls, self.limit = [index % 10 for index in range(64)], 0, limit

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.calls += 1
        if os.environ.get("RANK", "1") == "1" and self.calls == self.limit:
            note_end()
            time.sleep(600)
        return torch.full((3, 8, 8), index, dtype=torch.uint8), self.targets[index]


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the file with the time at which a rank was about to fail, and check that no process is left."""
    monkeypatch.setenv("ENDED", str(tmp_path / "ended"))
    yield tmp_path / "ended"
    assert processes_in(tmp_path / "run") == []


def seconds_since(ended: Path) -> float:
    """Return the seconds since a rank was about to fail."""
    return time.time() - float(ended.read_text())


def only_line(text: str) -> str:
    """Return the only line of an output."""
    (line,) = text.splitlines()
    return line


@pytest.mark.parametrize(
    ("how", "reason", "kind"),
    [
        ("raise", "rank-1: RuntimeError: no memory left", "RuntimeError"),
        ("long", "rank-1: RuntimeError: no memory left", "RuntimeError"),
        ("diverge", "rank-1: the loss is not finite", "FloatingPointError"),
        ("kill", "process 1 was killed by SIGKILL", "RuntimeError"),
    ],
)
def test_failing_rank_ends_the_run(
    how: str,
    reason: str,
    kind: str,
    ended: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOW", how)
    rest = (FAILING, "model.shortcut=B", "trainer.devices=2", in_directory(tmp_path / "run"))
    assert command(*TINY, *rest) != 0
    assert seconds_since(ended) < SECONDS
    assert only_line(capfd.readouterr().err).startswith(f"error: {reason}")
    assert json.loads(RunDirectory(tmp_path / "run").failure.read_bytes())["type"] == kind


def test_rank_with_a_stuck_worker_ends_the_run(ended: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rest = ("trainer.devices=2", "datamodule.num_workers=1", "datamodule.train.limit=20")
    assert command(*STUCK, *rest, in_directory(tmp_path / "run")) == 1
    assert seconds_since(ended) < SECONDS
    assert only_line(capfd.readouterr().err) == f"error: rank-1: {TIMEOUT}"


def test_stuck_loader_without_workers_ends_the_run(
    ended: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    limit = "datamodule.train.limit=100"  # 64 are read for the digest
    assert command(*STUCK, limit, in_directory(tmp_path / "run")) == 1
    assert seconds_since(ended) < SECONDS
    assert only_line(capfd.readouterr().err) == f"error: {TIMEOUT}"
    assert "time.sleep(600)" in (tmp_path / "run" / "run.log").read_text()  # where it stood still


def test_failing_job_of_a_sweep_ends_beside_a_healthy_one(
    ended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOW", "raise")
    rest = ("trainer.devices=2", "model.shortcut=A,B", "n_jobs=2", "name=sweep", f"output_dir={tmp_path / 'run'}")
    assert command("-m", *TINY, FAILING, *rest) == 1
    healthy, failed = (tmp_path / "run" / "sweep" / f"shortcut-{kind}" for kind in "AB")
    reason = "rank-1: RuntimeError: no memory left on this device"
    assert f"error: shortcut-B: {reason}" in capfd.readouterr().err
    assert RunDirectory(failed).read_failure() == reason
    assert RunDirectory(failed).failure.stat().st_mtime - float(ended.read_text()) < SECONDS
    assert (healthy / "result.json").is_file()


MACHINES = [{"NODE_RANK": rank, "MASTER_ADDR": "127.0.0.1", "trainer": "trainer.num_nodes=2"} for rank in "01"]
STEP = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODEID": "0"}
STEP |= {"SLURM_NODELIST": "127.0.0.1", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "x", "trainer": "trainer.devices=2"}
TASKS = [STEP | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in "01"]


@pytest.mark.parametrize("processes", [MACHINES, TASKS], ids=["machines", "srun"])
def test_failing_rank_ends_the_commands_of_the_others(
    processes: list[dict[str, str]], ended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOW", "raise")
    monkeypatch.setenv("MASTER_PORT", str(_free_port()))
    started = []
    for variables in processes:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        rest = (FAILING, "model.shortcut=B", variables["trainer"], in_directory(tmp_path / "run"))
        started.append(start(*TINY, *rest))
    outputs = [one.communicate(timeout=100) for one in started]
    assert seconds_since(ended) < SECONDS
    assert [one.returncode for one in started] == [1, 1]
    errors = [[line for line in err.splitlines() if "rror" in line] for _, err in outputs]
    assert [len(lines) for lines in errors] == [1, 1]
    assert errors[1][0].endswith("RuntimeError: no memory left on this device")


def test_collectives_have_a_time_limit_behind_that_of_a_batch() -> None:
    assert DDP()._timeout == timedelta(minutes=10)
    assert DDP(batch_timeout=1200)._timeout == timedelta(minutes=25)
