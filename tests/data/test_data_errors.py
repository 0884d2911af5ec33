"""Wrong values and folders: errors of one line with the config key or the file."""

import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torchvision

from ghostexp.data.datasets.cifar import Cifar10
from ghostexp.data.datasets.digits import Digits
from ghostexp.data.datasets.fake import Fake
from tests.data.fake_image_folders import CIFAR10_CLASSES, MakeTree, cifar10, image_folder, write_pickles


def refused(action: Callable[[], object], *parts: str) -> None:
    with pytest.raises(ValueError, match=re.escape(parts[0])) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch_size", 0),
        ("batch_size", "many"),
        ("batch_size", 6.5),
        ("num_classes", 0),
        ("image_size", None),
        ("seed", -1),
        ("validate_on", "foo"),
        ("split_seed", -1),
        ("holdout_fraction", 0),
        ("holdout_fraction", 1),
        ("train_fraction", 0),
        ("train_fraction", 1.1),
        ("train_fraction", float("nan")),
        ("train_fraction", True),
        ("crop_padding", -1),
        ("crop_padding", 1.5),
        ("hflip", "maybe"),
        ("random_erasing", 1.5),
        ("random_erasing", -0.1),
        ("randaugment_num_ops", -1),
        ("randaugment_magnitude", 31),
        ("mixup_alpha", -0.1),
        ("cutmix_alpha", float("inf")),
        ("num_images", 3),
    ],
)
def test_invalid_argument_raises_in_constructor(key: str, value: object) -> None:
    arguments: dict[str, Any] = {"batch_size": 8, "num_classes": 4, "in_chans": 3, "image_size": 8, key: value}
    refused(lambda: Fake(**arguments), f"datamodule.{key}={value}: ")


def test_digits_invalid_argument_raises() -> None:
    arguments: dict[str, Any] = {"batch_size": 64, "num_classes": 10, "in_chans": 1, "image_size": 8}
    refused(lambda: Digits(**arguments, shift=-1), "datamodule.shift=-1: ")
    for key, right in (("num_classes", 10), ("in_chans", 1), ("image_size", 8)):
        refused(
            lambda key=key: Digits(**{**arguments, key: 3}),
            f"datamodule.{key}=3: digits ",
            f"set datamodule.{key}={right}",
        )


def test_batch_larger_than_training_set_raises_in_setup() -> None:
    module = Fake(batch_size=64, num_classes=4, in_chans=3, image_size=8, num_images=200, train_fraction=0.1)
    refused(lambda: module.setup("fit"), "datamodule.batch_size=64: must be at most 20, the number of training images")


def test_crop_padding_of_large_images_raises(tmp_path: Path) -> None:
    refused(
        lambda: image_folder(tmp_path, image_size=224, crop_padding=4),
        "datamodule.crop_padding=4: ",
        "datamodule.crop_padding=0",
    )


def test_wrong_num_classes_error_gives_right_value(make_tree: MakeTree) -> None:
    root = make_tree({"train": 1, "val": 1})
    message = f"datamodule.num_classes=1000: {root}/train has 3 classes; set datamodule.num_classes=3"
    for image_size in (16, 224):
        refused(image_folder(root, num_classes=1000, image_size=image_size).setup, message)


def test_missing_or_empty_folder_raises_with_path(make_tree: MakeTree) -> None:
    root = make_tree({"train": 1, "val": 1})
    refused(image_folder(root / "nowhere").setup, f"datamodule.root={root}/nowhere: no such folder")
    (root / "train" / "bee" / "0000.png").rename(root / "train" / "bee" / "0000.txt")
    refused(image_folder(root).setup, f"{root}/train/bee: must have images (", ", got 1 .txt")
    shutil.rmtree(root / "train" / "bee")
    refused(image_folder(root, num_classes=2).setup, "class bee is in only one of", f"{root}/train", f"{root}/val")
    shutil.rmtree(root / "train" / "cow")
    refused(
        image_folder(root, num_classes=1).setup,
        f"datamodule.root={root}: must have at least 2 classes, {root}/train has 1",
    )
    shutil.rmtree(root / "train")
    refused(image_folder(root).setup, f"{root}/train: must have class folders")


@pytest.mark.parametrize("damage", [b"", b"not an image", None], ids=["empty", "text", "truncated"])
@pytest.mark.parametrize("extension", ["png", "jpg"])
def test_corrupt_image_raises_with_path(make_tree: MakeTree, extension: str, damage: bytes | None) -> None:
    root = make_tree({"train": 2, "val": 1}, size=70, extension=extension)
    corrupt = root / "train" / "bee" / f"0001.{extension}"
    corrupt.write_bytes(corrupt.read_bytes()[:-200] if damage is None else damage)
    refused(image_folder(root).setup, f"{corrupt}: not a readable image")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_corrupt_image_in_worker_raises_with_path(make_tree: MakeTree, num_workers: int) -> None:
    root = make_tree({"train": 2, "val": 1}, size=70)
    corrupt = root / "train" / "bee" / "0001.png"
    corrupt.write_bytes(b"")
    module = image_folder(root, batch_size=6, image_size=65, num_workers=num_workers)
    module.setup("fit")
    refused(lambda: list(module.train_dataloader()), f"{corrupt}: not a readable image")
    module.teardown("fit")


def test_wrong_cifar_folder_error_lists_contents(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    refused(cifar10(tmp_path).prepare_data, f"datamodule.root={tmp_path}: ", "cifar-10-batches-py/", "holiday.jpg")


def test_missing_data_error_suggests_download(tmp_path: Path) -> None:
    module = cifar10(tmp_path / "nothing", download=False)
    refused(module.prepare_data, f"datamodule.root={tmp_path}/nothing: no CIFAR-10 there", "datamodule.download=true")


def test_failed_download_error_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(self: object, root: str, download: bool) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "__init__", offline)
    refused(cifar10(tmp_path).prepare_data, f"datamodule.root={tmp_path}: ", "Name or service not known")


def test_missing_or_damaged_cifar_file_raises_with_path(make_tree: MakeTree) -> None:
    tree = make_tree({"train": 2, "test": 1}, classes=CIFAR10_CLASSES)
    target = write_pickles(tree / "original", tree)
    batch = target / "data_batch_3"
    content = batch.read_bytes()
    for damage in (content[:-50], b"", b"text", content.replace(b"labels", b"labelz")):
        batch.write_bytes(damage)
        refused(cifar10(tree / "original").prepare_data, f"{batch}: not a CIFAR batch")
    batch.unlink()
    refused(cifar10(tree / "original").prepare_data, f"{batch}: missing")


def test_cifar_file_that_calls_other_code_is_refused(make_tree: MakeTree, tmp_path: Path) -> None:
    tree = make_tree({"train": 2, "test": 1}, classes=CIFAR10_CLASSES)
    batch = write_pickles(tree / "original", tree) / "data_batch_3"
    call = type("Call", (), {"__reduce__": lambda self: (os.mkdir, (str(tmp_path / "mark"),))})
    batch.write_bytes(pickle.dumps({"data": call(), "labels": []}))
    refused(cifar10(tree / "original").prepare_data, f"{batch}: not a CIFAR batch (calls posix.mkdir)")
    assert not (tmp_path / "mark").exists()


def test_cifar_invalid_argument_raises_in_constructor() -> None:
    arguments: dict[str, Any] = {"root": "x", "batch_size": 4, "num_classes": 10, "in_chans": 3, "image_size": 32}
    for key, wrong in (("num_classes", 100), ("in_chans", 1), ("image_size", 64)):
        refused(
            lambda key=key, wrong=wrong: Cifar10(**{**arguments, key: wrong}), f"datamodule.{key}={wrong}: CIFAR-10"
        )
