"""Distillation: the loss, the run's files without the teacher, and errors of invalid teachers."""

import copy
import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghostexp.models.resnet_cifar import resnet20
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.fingerprint import fingerprint
from ghostexp.tasks.common.teacher import build_distillation
from ghostexp.training.callbacks import checkpoint
from ghostexp.training.distillation import Distillation
from tests.cli import TINY, command, finish, in_directory
from tests.config.test_user_errors import expect_one_line
from tests.training.test_exact_resume import digests
from tests.training.test_fit import result_of, stop_at


class ConstantTeacher(nn.Module):
    """A teacher with the same logits for every image."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(images), -1)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_loss_equals_hinton(temperature: float) -> None:
    teacher_logits, logits, labels = torch.randn(1, 5), torch.randn(3, 5), torch.tensor([0, 3, 4])
    hard = F.cross_entropy(logits, labels)
    p = (teacher_logits / temperature).softmax(1)
    q = (logits / temperature).softmax(1)
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    for weight in (0.0, 0.3, 1.0):
        found = Distillation(ConstantTeacher(teacher_logits), temperature, weight).loss(hard, logits, torch.zeros(3, 1))
        torch.testing.assert_close(found, (1 - weight) * hard + weight * temperature**2 * divergence)


def test_distillation_keeps_teacher_frozen() -> None:
    teacher, student = resnet20().train(), nn.Linear(3, 10)
    before = copy.deepcopy(teacher.state_dict())
    distillation = Distillation(teacher, 4.0, 0.5)
    images = torch.randn(4, 3, 8, 8)
    loss = distillation.loss(torch.zeros(()), student(images.mean((2, 3))), images)
    loss.backward()
    assert student.weight.grad is not None
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert copy.deepcopy(distillation).teacher is teacher


def test_build_distillation_loads_run_weights(teacher: Path) -> None:
    config = RunDirectory(teacher).read_config()
    config["loss"]["distill"]["teacher"] = str(teacher)
    distillation, record = build_distillation(config, nn.Identity())
    assert distillation is not None
    assert record is not None
    trained = checkpoint.read_checkpoint(teacher / "checkpoints" / "last.ckpt")["state_dict"]
    state = {f"network.{name}": value for name, value in distillation.teacher.state_dict().items()}
    assert all(torch.equal(state[name], value) for name, value in trained.items())
    assert record == {"source": str(teacher), "sha256": record["sha256"], "params": 269722}


@pytest.fixture
def teacher(shared_run: Path) -> Path:
    """Return a trained teacher."""
    return shared_run


def test_distilled_run_has_no_teacher_in_checkpoint(teacher: Path, tmp_path: Path) -> None:
    student = ("model=resnet20", "callbacks.ema=0.9", "trainer.precision=bf16-mixed")
    plain, distilled = tmp_path / "plain", tmp_path / "distilled"
    assert command(*TINY, *student, in_directory(plain)) == 0
    assert command(*TINY, *student, f"loss.distill.teacher={teacher}", in_directory(distilled)) == 0
    assert result_of(distilled)["params"] == result_of(plain)["params"]
    assert result_of(distilled)["teacher"] == {
        "source": str(teacher),
        "sha256": result_of(distilled)["teacher"]["sha256"],
        "params": 269722,
    }
    assert result_of(plain)["teacher"] is None
    states = [checkpoint.read_checkpoint(run / "checkpoints" / "last.ckpt") for run in (plain, distilled)]
    assert states[0]["state_dict"].keys() == states[1]["state_dict"].keys()
    assert states[0].keys() == states[1].keys()
    assert digests(plain) != digests(distilled)
    assert len({fingerprint(RunDirectory(run).read_config()) for run in (plain, distilled)}) == 2
    assert command("task=test", f"run={distilled}", "loss.distill.teacher=null") == 1  # the loss cannot be overridden
    teacher.rename(tmp_path / "moved")
    try:
        assert command("task=test", f"run={distilled}") == 0  # a test does not need the teacher
    finally:
        (tmp_path / "moved").rename(teacher)


def test_resumed_distilled_run_equals_uninterrupted_run(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (*TINY, f"loss.distill.teacher={teacher}", "datamodule.mixup_alpha=0.2", "callbacks.ema=0.9")
    assert command(*arguments, in_directory(tmp_path / "uninterrupted")) == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 2, signal.SIGTERM)
        assert command(*arguments, in_directory(tmp_path / "stopped")) == 128 + signal.SIGTERM
    assert command(f"resume={tmp_path / 'stopped'}") == 0
    assert digests(tmp_path / "stopped") == digests(tmp_path / "uninterrupted")


def test_teacher_as_model_equals_teacher_as_run(teacher: Path, tmp_path: Path) -> None:
    weights = teacher / "checkpoints" / "last.ckpt"
    as_model = ("+model@loss.distill.teacher=resnet20", f"+loss.distill.teacher.weights={weights}")
    assert command(*TINY, f"loss.distill.teacher={teacher}", in_directory(tmp_path / "run")) == 0
    assert command(*TINY, *as_model, in_directory(tmp_path / "model")) == 0
    assert digests(tmp_path / "run") == digests(tmp_path / "model")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["loss.distill.teacher=no/such/run"], "loss.distill.teacher=no/such/run: not a run directory"),
        (
            ["loss.distill.teacher={teacher}", "loss.distill.temperature=0"],
            "loss.distill.temperature=0: must be a number > 0",
        ),
        (
            ["loss.distill.teacher={teacher}", "loss.distill.weight=1.5"],
            "loss.distill.weight=1.5: must be a number in [0, 1]",
        ),
        (
            ["loss.distill.teacher={teacher}", "datamodule.num_classes=7"],
            "must be trained with datamodule.num_classes=7, got 10",
        ),
        (
            ["+model@loss.distill.teacher=resnet20"],
            "loss.distill.teacher.weights: must be set for a teacher: +loss.distill.teacher.weights=...",
        ),
        (
            ["+model@loss.distill.teacher=resnet56", "+loss.distill.teacher.weights={teacher}"],
            "loss.distill.teacher: model.weights=",
        ),
    ],
)
def test_invalid_teacher_is_one_line(
    arguments: list[str], wanted: str, teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*TINY, *(argument.format(teacher=teacher) for argument in arguments)) == 1
    expect_one_line(capsys.readouterr().err, wanted)


@pytest.mark.slow
def test_distillation_on_two_processes(teacher: Path, tmp_path: Path) -> None:
    arguments = (*TINY, f"loss.distill.teacher={teacher}", "trainer.devices=2", "trainer.accelerator=cpu")
    code, _, err = finish(*arguments, in_directory(tmp_path / "run"))
    assert code == 0, err
    assert result_of(tmp_path / "run")["teacher"]["source"] == str(teacher)


def test_teacher_needs_the_normalisation_of_the_student(teacher: Path) -> None:
    config = RunDirectory(teacher).read_config()
    config["loss"]["distill"]["teacher"] = str(teacher)
    config["datamodule"] |= {"mean": [0.4] * 3, "std": [0.2] * 3}
    needed = r"teacher=.*must be trained with mean and std \(\(0\.4, 0\.4, 0\.4\), \(0\.2, 0\.2, 0\.2\)\), as this run"
    with pytest.raises(ValueError, match=needed):
        build_distillation(config, nn.Identity())
