"""What only a GPU can show: each test is a command in a process of its own, which sees the GPUs.

pytest tests/gpu                            # skipped where there is no GPU
GHOSTEXP_GPU_TESTS=cpu pytest tests/gpu     # the same commands on the CPU, to check the tests themselves
"""

import csv
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli import TINY, TINY_DETECTOR, finish_cold, in_directory, start_cold, wait_for

ON_CPU = os.environ.get("GHOSTEXP_GPU_TESTS") == "cpu"


def count_gpus() -> int:
    """Count the GPUs of this machine, also those hidden from this process."""
    try:
        return len(subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout.splitlines())
    except OSError:
        return 0


GPUS = count_gpus()
VISIBLE: Any = {} if ON_CPU else {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(GPUS)))}
ACCELERATOR = "trainer.accelerator=cpu" if ON_CPU else "trainer.accelerator=gpu"
EXACT = "trainer.deterministic=true"
pytestmark = pytest.mark.skipif(not (GPUS or ON_CPU), reason="no GPU: nvidia-smi lists none")


def run(path: Path, *arguments: str, code: int = 0) -> str:
    """Run a command on the GPU; returns its errors."""
    environment: Any = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", **VISIBLE}
    found, _, err = finish_cold(*arguments, ACCELERATOR, in_directory(path), timeout=280, **environment)
    assert found == code, err
    return err


def losses(path: Path) -> list[float]:
    """Return the mean training loss of every epoch."""
    with (path / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed", "bf16-true"])
def test_precision_with_ema_trains(precision: str, tmp_path: Path) -> None:
    run(tmp_path / "run", *TINY, f"trainer.precision={precision}", "callbacks.ema=0.9", "optimizer.lr=0.01")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["accelerator"] == ("cpu" if ON_CPU else "cuda")
    assert ON_CPU or result["gpu"]["peak_memory_bytes"] > 0


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
def test_resume_is_bit_exact(precision: str, tmp_path: Path) -> None:
    long = (*TINY, "trainer.max_epochs=60", f"trainer.precision={precision}", EXACT, "optimizer.lr=0.01")
    run(tmp_path / "whole", *long)
    stopped = tmp_path / "stopped"
    environment: Any = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", **VISIBLE}
    process = start_cold(*long, ACCELERATOR, in_directory(stopped), **environment)
    wait_for(stopped / "metrics.csv")
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    if not (stopped / "result.json").exists():
        code, _, err = finish_cold(f"resume={stopped}", timeout=280, **environment)
        assert code == 0, err
    assert (stopped / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()


@pytest.mark.parametrize("change", ["channels_last=false", "compile=true", "compile=reduce-overhead", "tf32=false"])
def test_speed_settings_do_not_change_results(change: str, tmp_path: Path) -> None:
    slow = (*TINY, "optimizer.lr=0.001", "trainer.max_epochs=1")
    run(tmp_path / "plain", *slow)
    run(tmp_path / "changed", *slow, change)
    assert losses(tmp_path / "changed") == pytest.approx(losses(tmp_path / "plain"), rel=0.01)


def test_detector_trains(tmp_path: Path) -> None:
    run(tmp_path / "run", *TINY_DETECTOR, "trainer.precision=bf16-mixed")


def test_ddp_of_one_rank_trains(tmp_path: Path) -> None:
    run(tmp_path / "run", *TINY, "trainer.strategy=ddp")


@pytest.mark.skipif(GPUS < 2 and not ON_CPU, reason="fewer than two GPUs")
def test_two_ranks_train_and_a_failing_one_ends_both(tmp_path: Path) -> None:
    run(tmp_path / "run", *TINY, "trainer.devices=2")
    started = time.monotonic()
    failing = "model._target_=tests.runner.test_ends.stuck_or_failing"
    err = run(tmp_path / "failed", *TINY, "trainer.devices=2", failing, code=1)
    assert "rank-1: no network here" in err
    assert time.monotonic() - started < 60


def test_test_on_gpu_equals_test_on_cpu(tmp_path: Path) -> None:
    run(tmp_path / "run", *TINY, "optimizer.lr=0.01")
    code, _, err = finish_cold(
        "task=test", f"run={tmp_path / 'run'}", "trainer.accelerator=cpu", in_directory(tmp_path / "cpu")
    )
    assert code == 0, err
    ours, theirs = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("run", "cpu"))
    assert ours["metrics"]["test"] == pytest.approx(theirs["metrics"]["test"], rel=1e-3)
