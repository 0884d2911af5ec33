"""Losses, weights and outputs that are not finite or explode: one-line error, never saved, never counted."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import lightning.pytorch as pl
import pytest
import torch
from PIL import Image
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from ghostexp.models.finite import non_finite_weights
from ghostexp.models.resnet_cifar import resnet20
from ghostexp.runs.csv_table import read_rows
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.metrics import format_number
from ghostexp.training.callbacks import checkpoint
from ghostexp.training.callbacks.divergence import TerminateOnNaN, WarnOnDivergence
from ghostexp.training.callbacks.progress_bar import EpochProgressBar
from ghostexp.training.callbacks.throughput import Throughput
from ghostexp.training.classification_module import ClassificationModule
from ghostexp.training.detection_module import DetectionModule
from tests.cli import TINY, TINY_DETECTOR, command, in_directory

SMALL = (*TINY, "trainer.max_epochs=1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train for one epoch."""
    run = tmp_path_factory.mktemp("finite") / "run"
    assert command(*SMALL, "trainer.max_epochs=1", in_directory(run)) == 0
    return run


def save_changed(run: Path, name: str, value: float, path: Path) -> Path:
    """Save a run's weights with one changed value."""
    state = checkpoint.read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
    state[f"network.{name}"][(0,) * state[f"network.{name}"].ndim] = value
    torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["layer1.1.bn1.running_var", "conv1.weight"])
def test_every_task_names_non_finite_weights(
    name: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = save_changed(run, name, float("nan"), tmp_path / "bad.pth")
    Image.new("RGB", (32, 32)).save(tmp_path / "image.png")
    for task in (["test"], ["predict", f"task.input={tmp_path}/image.png"], ["export", "task.formats=[torch]"]):
        where = tmp_path / "out" / task[0]
        arguments = (*TINY, f"model.weights={bad}", f"task={task[0]}", *task[1:], in_directory(where))
        assert command(*arguments) == 1
        wanted = f"error: model.weights={bad}: weights must be finite, got NaN or infinity ({name})"
        assert capsys.readouterr().err.strip() == wanted
        assert not (where / "result.json").exists()


def test_non_finite_outputs_are_no_prediction(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    huge = save_changed(run, "fc.weight", 3e38, tmp_path / "huge.pth")
    state = torch.load(huge, weights_only=True)
    state["network.fc.weight"].fill_(3e38)
    torch.save(state, huge)
    assert command(*TINY, f"model.weights={huge}", "task=test", in_directory(tmp_path / "test")) == 1
    wanted = "error: the network's outputs for 16 of 16 images are not finite numbers (evaluated in trainer.prec"
    assert wanted in capsys.readouterr().err
    assert not (tmp_path / "test" / "result.json").exists()
    Image.new("RGB", (32, 32)).save(tmp_path / "image.png")
    where = (f"model.weights={huge}", "task=predict", f"task.input={tmp_path}/image.png")
    assert command(*TINY, *where, in_directory(tmp_path / "predict")) == 1
    err = capsys.readouterr().err
    assert "image.png: the network's outputs are not finite" in err
    assert "1 of 1 images have no prediction" in err
    assert json.loads((tmp_path / "predict" / "predictions.json").read_text())["predictions"] == []


def test_non_finite_validation_outputs_stop_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ClassificationModule.on_validation_epoch_start

    def overflow(self: ClassificationModule) -> None:
        start(self)
        if self.current_epoch == 1:
            self.network.fc.weight.data.fill_(3e38)  # pyright: ignore

    monkeypatch.setattr(ClassificationModule, "on_validation_epoch_start", overflow)
    assert command(*TINY, in_directory(tmp_path / "run")) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "the network's outputs for 16 of 16 images are not finite numbers" in line
    assert checkpoint.read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["epoch"] == 0


def test_detector_with_non_finite_weights_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(self: DetectionModule, *_: Any) -> None:
        next(self.network.parameters()).data.fill_(float("inf"))

    monkeypatch.setattr(DetectionModule, "on_train_batch_end", spoil)
    assert command(*TINY_DETECTOR, "trainer.limit_train_batches=1", in_directory(tmp_path / "run")) == 1
    assert "error: the weights to evaluate are not finite numbers (backbone." in capsys.readouterr().err


def test_non_finite_weights_never_replace_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def set_nan(self: ClassificationModule, optimizer: Optimizer) -> None:
        if self.trainer.global_step == 5:
            self.network.fc.bias.grad.fill_(float("nan"))  # pyright: ignore

    monkeypatch.setattr(ClassificationModule, "on_before_optimizer_step", set_nan)
    run = tmp_path / "run"
    assert command(*TINY, "callbacks.save_every_n_steps=1", in_directory(run)) == 1
    last = run / "checkpoints" / "last.ckpt"
    wanted = f"error: the weights after step 6 (network.fc.bias) are not finite numbers; {last} is kept (try a lower"
    assert capsys.readouterr().err.startswith(wanted)
    assert checkpoint.read_checkpoint(last)["global_step"] == 5


def test_error_messages_without_earlier_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forward = ClassificationModule.training_step
    monkeypatch.setattr(ClassificationModule, "training_step", lambda *arguments: forward(*arguments) * float("nan"))
    assert command(*TINY, in_directory(tmp_path / "run")) == 1
    assert "the loss of step 1 is not a finite number; no checkpoint was saved before (" in capsys.readouterr().err
    with pytest.raises(OSError, match=r"could not be written \(.*\); there is none before it"):
        checkpoint.AtomicCheckpointIO().save_checkpoint({}, "/dev/null/last.ckpt")


@pytest.mark.parametrize("first_bad", [0, 1])
def test_exploding_loss_warns_once_with_short_number(
    first_bad: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    average_train_metrics = ClassificationModule.average_train_metrics

    def explode(self: ClassificationModule, sums: list[float]) -> dict[str, float]:
        means = average_train_metrics(self, sums)
        return means | ({"train/loss": 1.52639238e29} if self.current_epoch >= first_bad else {})

    monkeypatch.setattr(ClassificationModule, "average_train_metrics", explode)
    run = tmp_path / "run"
    assert command(*TINY, "callbacks.progress=true", in_directory(run)) == 0
    out, err = capsys.readouterr()
    (line,) = err.strip().splitlines()
    assert line.startswith(f"warning: the training diverges: the mean loss of epoch {first_bad + 1} is 1.526e+29, that")
    assert "epoch 2/2  train/loss 1.526e+29  val/acc1" in out
    assert "WARNING ghostexp.training.callbacks.divergence: the training diverges" in (run / "run.log").read_text()


@pytest.mark.parametrize("accumulate", [1, 4])
def test_first_and_shown_loss_are_not_divided_by_accumulation(accumulate: int, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    accumulation = f"trainer.accumulate_grad_batches={accumulate}"
    assert command(*TINY, accumulation, "optimizer.lr=1e-9", in_directory(run.path)) == 0
    (first,) = [values["first"] for name, values in torch.load(run.last)["callbacks"].items() if "Diverge" in name]
    losses = [float(row["train/loss"]) for row in read_rows(run.metrics) if row.get("train/loss")]
    assert first == pytest.approx(losses[0], rel=0.3)

    bar = EpochProgressBar("val/acc1")
    bar.bar, bar.task = Mock(), Mock()
    trainer = Mock(current_epoch=0, num_training_batches=4, accumulate_grad_batches=accumulate, callback_metrics={})
    bar.on_train_batch_end(trainer, Mock(), {"loss": torch.tensor(2.5) / accumulate}, None, 0)
    assert bar.bar.update.call_args.kwargs["metrics"].strip() == "loss 2.5"


def test_converging_training_does_not_warn(run: Path) -> None:
    assert "diverges" not in (run / "run.log").read_text()


def test_non_finite_weights_allows_infinite_masks() -> None:
    network = resnet20(num_classes=10, in_chans=1)
    network.register_buffer("mask", torch.full((3,), -torch.inf))
    assert non_finite_weights(network) == []
    network.bn1.running_mean[1] = torch.inf  # pyright: ignore
    assert non_finite_weights(network) == ["bn1.running_mean"]


def test_format_number_has_four_digits() -> None:
    assert [format_number(value) for value in (2.302585, 0.0123456, 152639238437066120298533748736.0, 100, 0)] == [
        *("2.303", "0.01235", "1.526e+29", "100", "0")
    ]


@pytest.mark.parametrize(("scaler", "allowed"), [(None, 0), (object(), 20)])
def test_overflows_are_left_to_the_gradient_scaler_unless_they_persist(
    scaler: object, allowed: int, tmp_path: Path
) -> None:
    callback, module = TerminateOnNaN(tmp_path / "last.ckpt"), cast("pl.LightningModule", None)
    trainer: Any = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler), global_step=0)
    callback.on_train_start(trainer, module)
    losses = [1.0, *[float("inf")] * allowed, 1.0, *[float("inf")] * (allowed + 1)]
    for trainer.global_step, loss in enumerate(losses[:-1]):
        callback.on_train_batch_end(trainer, module, {"loss": torch.tensor(loss)}, None, 0)
    trainer.global_step += 1
    with pytest.raises(FloatingPointError, match=f"the loss of step {len(losses) - 1}"):
        callback.on_train_batch_end(trainer, module, {"loss": torch.tensor(losses[-1])}, None, 0)


class WithoutLoss(pl.LightningModule):
    """Optimises by itself, and returns no loss."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.layer = torch.nn.Linear(2, 2)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.layer(batch[0]).sum().backward()

    def configure_optimizers(self) -> Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_module_that_returns_no_loss_trains(tmp_path: Path) -> None:
    throughput = Throughput()
    callbacks = [TerminateOnNaN(tmp_path / "last.ckpt"), WarnOnDivergence(), throughput, EpochProgressBar("val/acc1")]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        barebones=False,
    )
    trainer.fit(WithoutLoss(), DataLoader(TensorDataset(torch.ones(4, 2)), 2))
    assert len(throughput.rates) == 1
