"""Every kind of run on a pretended accelerator: no mixed devices, and what a step costs a GPU beside its kernels."""

from pathlib import Path

import pytest
import torch

from ghostexp.models.base import Network
from ghostexp.models.ghostify import ghostify
from ghostexp.models.resnet_cifar import ResNet
from tests.cli import TINY, TINY_DETECTOR, in_directory
from tests.data.fake_image_folders import write_tree
from tests.pretended_device import registered_device
from tests.pretended_run import PretendedRun, in_own_process, run_pretended

SMALL = (*TINY, "model._target_=tests.test_pretended_device.small_network", "~model.shortcut", "~model.width")
EIGHT = (*SMALL, "datamodule.num_images=64", "datamodule.batch_size=8", "trainer.max_epochs=1")


def small_network(num_classes: int, in_chans: int) -> Network:
    """Build a ghost network of seven convolutions."""
    return ghostify(ResNet(8, num_classes, in_chans), ratio=2, dw_size=3)


def add_over_two_devices() -> str:
    """Return the error of an addition over two devices."""
    with registered_device(), pytest.raises(RuntimeError) as error:
        torch.add(torch.ones(2, device="pretended"), torch.ones(2))
    return str(error.value)


def waits(run: PretendedRun) -> list[tuple[int, ...]]:
    """Return what makes the host wait in each step: synchronisations, copies to the device and to the host."""
    return [tuple(step.get(kind, 0) for kind in ("syncs", "to_device", "to_host")) for step in run.steps]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PretendedRun]:
    """Return the directory and the counts of a classifier's training."""
    folder = tmp_path_factory.mktemp("plain")
    return folder, run_pretended(*EIGHT, in_directory(folder))


def test_pretended_device_refuses_mixed_devices() -> None:
    assert "expected all tensors on one device" in in_own_process(add_over_two_devices)


def test_classifier_step_waits_only_when_metrics_are_read(plain: tuple[Path, PretendedRun]) -> None:
    first, *others = waits(plain[1])
    assert first == (1, 0, 0)  # the loss is checked at every 50th batch, from the first on
    assert others == [(0, 0, 0)] * 6


def test_ema_adds_two_foreach_calls_and_no_wait(tmp_path: Path, plain: tuple[Path, PretendedRun]) -> None:
    ema = run_pretended(*EIGHT, "callbacks.ema=0.9", in_directory(tmp_path / "run"))
    assert waits(ema)[1:] == [(0, 0, 0)] * 6
    added = [more["operations"] - less["operations"] for more, less in zip(ema.steps, plain[1].steps, strict=True)]
    print(f"operations of a step: {plain[1].steps[-1]['operations']}, added by EMA: {added}")
    assert added[1:] == [3] * 6  # floats, integers, and the count of steps


AUGMENTED = ("mixup_alpha=0.2", "cutmix_alpha=1", "random_erasing=0.5", "crop_padding=2", "hflip=true")


def test_augmentation_optimizer_and_accumulation_make_no_step_wait(tmp_path: Path) -> None:
    rest = ("trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=1", "optimizer=rmsprop_tf")
    run = run_pretended(*EIGHT, *(f"datamodule.{text}" for text in AUGMENTED), *rest, in_directory(tmp_path / "run"))
    assert waits(run)[1:] == [(0, 0, 0)] * 14


def test_distillation_makes_no_step_wait(tmp_path: Path, plain: tuple[Path, PretendedRun]) -> None:
    run = run_pretended(*EIGHT, f"loss.distill.teacher={plain[0]}", "allow=[tests]", in_directory(tmp_path / "run"))
    assert waits(run)[1:] == [(0, 0, 0)] * 6


def test_image_files_are_copied_once_a_batch(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"train": 8, "val": 4}, size=80)
    data = ("datamodule=image_folder", f"datamodule.root={tree}", "datamodule.num_classes=3")
    data += ("datamodule.image_size=72", "datamodule.batch_size=4", "datamodule.num_workers=0")
    small = [text for text in EIGHT if not text.startswith("datamodule")]
    run = run_pretended(*small, *data, in_directory(tmp_path / "run"))
    assert waits(run)[1:] == [(0, 2, 0)] * 4
    assert run.steps[-1]["bytes_to_device"] == 4 * (3 * 72 * 72 + 8)  # images as uint8, and labels


def test_detector_trains_and_evaluates(tmp_path: Path) -> None:
    rest = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1")
    run = run_pretended(*TINY_DETECTOR, *rest, "trainer.limit_test_batches=1", in_directory(tmp_path / "run"))
    (step,) = waits(run)
    print(f"synchronisations, copies to the device and to the host in a step of Faster R-CNN: {step}")
    assert step[1] <= 20


@pytest.mark.parametrize(
    "arguments",
    [
        ["task=test"],
        ["task=predict", "task.input=IMAGES"],
        ["task=visualize", "task.num_images=4", "task.num_shown=1"],
        ["task=export", "task.formats=[torch]", "task.num_check_images=4"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_task_runs_on_a_device(arguments: list[str], plain: tuple[Path, PretendedRun], tmp_path: Path) -> None:
    write_tree(tmp_path / "images", {"train": 1}, size=32)
    given = [text.replace("IMAGES", str(tmp_path / "images")) for text in arguments]
    run_pretended(*given, f"run={plain[0]}", in_directory(tmp_path / "run"))


def test_profile_runs_on_a_device(tmp_path: Path) -> None:
    one = ("task.modes=[eager]", "task.batch_sizes=[1]", "task.repeats=1")
    run = run_pretended("task=profile", "model=ghost_resnet20", *one, in_directory(tmp_path / "run"))
    assert run.total["operations"] > 100
