"""Train through the command line: results, stops, resumes."""

import errno
import fcntl
import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torchmetrics.classification import MulticlassHingeLoss

from ghostexp.training import schedulers
from ghostexp.training.callbacks import checkpoint
from ghostexp.training.classification_module import ClassificationModule
from tests.cli import TINY, command, in_directory
from tests.training.test_exact_resume import digests


def result_of(run: Path) -> dict[str, Any]:
    """Read a run's result.json."""
    return json.loads((run / "result.json").read_text())


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, signum: int) -> None:
    """Send a signal to this process during a step."""
    forward = ClassificationModule.training_step

    def training_step(self: ClassificationModule, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.trainer.global_step == step:
            os.kill(os.getpid(), signum)
        return forward(self, batch, batch_idx)

    monkeypatch.setattr(ClassificationModule, "training_step", training_step)


def test_fit_writes_result_and_run_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*TINY, in_directory(tmp_path / "run"), "seed=3") == 0
    result = result_of(tmp_path / "run")
    assert result["task"] == "fit"
    assert result["seed"] == 3
    assert result["params"] == 269722
    assert result["epochs"] == 2
    assert result["steps"] == 8
    assert set(result["metrics"]) == {"last", "best", "test"}
    assert result["metrics"]["last"]["val/acc1"] == result["metrics"]["test"]["test/acc1"]  # validate_on=test
    wanted = {
        "fingerprint",
        "versions",
        "git",
        "hardware",
        "devices",
        "macs",
        "wall_seconds",
        "images_per_second",
        "threads",
        "test_checkpoint",
    }
    assert wanted <= set(result)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {".hydra", "config.yaml", "run.log", "metrics.csv", "speed.csv", "checkpoints", "result.json"} <= names
    out = capsys.readouterr().out
    assert "test accuracy" in out
    assert str(tmp_path / "run") in out


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the run of TINY with averaged weights, which no test may change."""
    run = tmp_path_factory.mktemp("averaged") / "run"
    assert command(*TINY, "callbacks.ema=0.9", "callbacks.patience=5", in_directory(run)) == 0
    return run


def test_test_task_repeats_metrics_of_run(averaged: Path, tmp_path: Path) -> None:
    holdout = tmp_path / "holdout"
    assert command(*TINY, "datamodule.validate_on=holdout", "callbacks.ema=0.9", in_directory(holdout)) == 0
    for split, trained in (("test", averaged), ("holdout", holdout)):
        run = Path(shutil.copytree(trained, tmp_path / f"{split}-tested"))
        assert command("task=test", f"run={run}") == 0
        assert result_of(run / "test")["metrics"]["test"] == result_of(run)["metrics"]["test"]
        assert result_of(run)["test_checkpoint"] == {"test": "last", "holdout": "best"}[split]


EMA_MIXUP = (*TINY, "callbacks.ema=0.9", "datamodule.mixup_alpha=0.2", "trainer.log_every_n_steps=2")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the run that stopped and resumed runs must equal."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert command(*EMA_MIXUP, in_directory(run)) == 0
    return run


@pytest.mark.parametrize("step", [2, 3, 5])  # in mid-epoch, at an epoch's last step, in the second epoch
def test_sigterm_saves_and_resume_equals_uninterrupted_run(
    step: int,
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, step, signal.SIGTERM)
        assert command(*EMA_MIXUP, in_directory(tmp_path / "stopped")) == 128 + signal.SIGTERM
    message = capsys.readouterr().err
    assert f"stopped by SIGTERM after step {step + 1}" in message
    assert f"python -m ghostexp resume={tmp_path / 'stopped'}" in message
    assert not (tmp_path / "stopped" / "result.json").exists()
    assert command(f"resume={tmp_path / 'stopped'}") == 0
    assert digests(tmp_path / "stopped") == digests(uninterrupted)
    assert result_of(tmp_path / "stopped")["metrics"] == result_of(uninterrupted)["metrics"]


def test_sigterm_in_the_last_validation_stops_before_the_test(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, forward = tmp_path / "stopped", ClassificationModule.validation_step

    def validation_step(self: ClassificationModule, batch: Any, batch_idx: int) -> None:
        if self.trainer.global_step == 8 and not self.trainer.sanity_checking:
            os.kill(os.getpid(), signal.SIGTERM)
        forward(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(ClassificationModule, "validation_step", validation_step)
        assert command(*EMA_MIXUP, in_directory(run)) == 128 + signal.SIGTERM
    assert "stopped by SIGTERM after step 8" in capsys.readouterr().err
    assert not (run / "result.json").exists()
    assert command(f"resume={run}") == 0
    assert digests(run) == digests(uninterrupted)
    assert result_of(run)["metrics"] == result_of(uninterrupted)["metrics"]


def test_resume_after_last_epoch_only_tests(averaged: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(averaged, tmp_path / "run"))
    uninterrupted, weights = result_of(run), digests(run)
    (run / "result.json").unlink()
    assert command(f"resume={run}") == 0
    again = result_of(run)
    assert again["metrics"] == uninterrupted["metrics"]
    assert (again["epochs"], again["steps"], again["images_per_second"]) == (
        uninterrupted["epochs"],
        uninterrupted["steps"],
        uninterrupted["images_per_second"],
    )
    assert digests(run) == weights


def test_ema_follows_short_training(tmp_path: Path) -> None:
    short = ("model=resnet20", "threads=1", "callbacks.progress=false", "trainer.max_epochs=4", "callbacks.ema=0.999")
    assert command(*short, in_directory(tmp_path / "run")) == 0
    assert result_of(tmp_path / "run")["metrics"]["test"]["test/acc1"] > 90


def classifier_of(network: nn.Module, num_classes: int = 10, **keys: Any) -> ClassificationModule:
    return ClassificationModule(
        network, lambda network: SGD(network.parameters()), schedulers.Constant, num_classes=num_classes, **keys
    )


def test_metrics_of_a_half_precision_network_add_up_in_float32() -> None:
    hinge = MulticlassHingeLoss(num_classes=10)
    classifier = classifier_of(nn.Linear(4, 10), metrics={"hinge": hinge})
    classifier.to(dtype=torch.bfloat16)  # as Lightning does with trainer.precision=bf16-true
    classifier.reset_eval_metrics()
    for _ in range(300):
        hinge.update(torch.full((32, 10), 0.1), torch.zeros(32, dtype=torch.long))
    assert float(hinge.compute()) == pytest.approx(1.0)


def test_classifier_needs_two_classes() -> None:
    with pytest.raises(ValueError, match=r"datamodule.num_classes=1: must be an integer >= 2 for a classifier"):
        classifier_of(nn.Linear(4, 1), num_classes=1)


def test_eval_loss_over_many_batches_is_exact_in_bf16() -> None:
    network = nn.Linear(4, 10)
    nn.init.zeros_(network.weight)
    nn.init.zeros_(network.bias)
    classifier = classifier_of(network)
    classifier.to(torch.bfloat16)
    classifier.on_test_epoch_start()
    for number in range(1000):
        classifier.test_step((torch.zeros(64, 4, dtype=torch.bfloat16), torch.zeros(64, dtype=torch.long)), number)
    loss, images = classifier.eval_sums.tolist()
    assert images == 64_000
    assert loss / images == pytest.approx(math.log(10), rel=1e-3)


def test_test_task_accepts_other_trainer_and_data_keys(tiny_run: Path) -> None:
    run = tiny_run
    before = result_of(run)["metrics"]["test"]
    assert command("task=test", f"run={run}", "datamodule.batch_size=8", "trainer.limit_test_batches=1.0") == 0
    assert result_of(run / "test")["metrics"]["test"]["test/acc1"] == before["test/acc1"]
    assert command("task=test", f"run={run}", "datamodule.num_images=32", "logger=none") == 0


def test_debug_config_runs_on_default_data(tmp_path: Path) -> None:
    assert command("debug=default", in_directory(tmp_path / "run")) == 0
    assert result_of(tmp_path / "run")["steps"] == 8


def test_fit_refuses_directory_of_running_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with (run / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert command(*TINY, in_directory(run)) == 1
    assert "another process is running here" in capsys.readouterr().err
    assert not (run / "failure.json").exists()


def test_sigint_saves_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(monkeypatch, 1, signal.SIGINT)
    assert command(*TINY, in_directory(tmp_path / "run")) == 130
    assert checkpoint.read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 2


def test_finished_run_is_not_trained_again(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (tiny_run / "result.json").read_bytes()
    assert command(f"resume={tiny_run}") == 0
    assert "finished already" in capsys.readouterr().err
    assert command(*TINY, in_directory(tiny_run)) == 1
    assert "choose another directory" in capsys.readouterr().err
    assert (tiny_run / "result.json").read_bytes() == before


def test_nan_loss_stops_and_keeps_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forward = ClassificationModule.training_step

    def training_step(self: ClassificationModule, batch: Any, batch_idx: int) -> torch.Tensor:
        return forward(self, batch, batch_idx) * (float("nan") if self.trainer.global_step == 5 else 1)

    monkeypatch.setattr(ClassificationModule, "training_step", training_step)
    assert command(*TINY, "callbacks.save_every_n_steps=1", in_directory(tmp_path / "run")) == 1
    assert "the loss of step 6 is not a finite number" in capsys.readouterr().err
    last = checkpoint.read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert last["global_step"] == 5
    assert all(torch.isfinite(value).all() for value in last["state_dict"].values())
    assert "finite" in json.loads((tmp_path / "run" / "failure.json").read_text())["error"]


def test_full_disk_is_one_line_and_keeps_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save, written = torch.save, []

    def full_at_the_third(obj: Any, file: Any) -> None:
        written.append(file)
        if len(written) == 3:
            file.write(b"half a checkpoint")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(obj, file)

    monkeypatch.setattr(torch, "save", full_at_the_third)
    assert command(*TINY, "callbacks.save_every_n_steps=1", in_directory(tmp_path / "run")) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "could not be written (No space left on device)" in lines[0]
    assert checkpoint.read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 2
    assert not list((tmp_path / "run" / "checkpoints").glob("*.partial"))


@pytest.mark.parametrize("validate_on", ["test", "holdout"])
def test_patience_on_the_test_set_warns(validate_on: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*TINY, "callbacks.patience=1", f"datamodule.validate_on={validate_on}") == 0
    warning = "warning: callbacks.patience: decides by the test set, as datamodule.validate_on=test"
    assert capsys.readouterr().err.count(warning) == (validate_on == "test")


def test_patience_stops_training(tmp_path: Path) -> None:
    frozen = ("trainer.max_epochs=20", "optimizer.lr=1e-12", "callbacks.patience=2", "model.network.shortcut=A")
    arguments = (*TINY[1:], *frozen, "model=ghost_resnet20")
    assert command(*arguments, in_directory(tmp_path / "run")) == 0
    assert result_of(tmp_path / "run")["epochs"] < 20
    assert result_of(tmp_path / "run")["epochs"] == result_of(tmp_path / "run")["metrics"]["best"]["epoch"] + 3


def test_fit_supports_precision_accumulation_and_smoothing(tmp_path: Path) -> None:
    options = ("trainer.precision=bf16-mixed", "trainer.gradient_clip_val=1", "trainer.accumulate_grad_batches=2")
    options += ("loss.label_smoothing=0.1", "datamodule.cutmix_alpha=1", "optimizer=rmsprop_tf", "scheduler=step")
    options += ("scheduler.warmup_epochs=0.5", "logger=[tensorboard,csv]", "callbacks.save_every_n_minutes=0.0001")
    assert command(*TINY, *options, in_directory(tmp_path / "run")) == 0
    assert result_of(tmp_path / "run")["steps"] == 8
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_checkpoints_load_with_weights_only(averaged: Path) -> None:
    for name in ("best", "last"):
        assert "state_dict" in torch.load(averaged / "checkpoints" / f"{name}.ckpt", weights_only=True)
