"""The evaluation transform of a single image equals the test set's."""

from pathlib import Path

import pytest
import torch

from ghostexp.data.classification_datamodule import ClassificationDataModule
from ghostexp.data.datasets.image_folder import ImageFolder
from ghostexp.data.image_files import read_image
from tests.data.fake_image_folders import CIFAR10_CLASSES, MakeTree, cifar10


def folder(root: Path, image_size: int, in_chans: int) -> ImageFolder:
    """Build the datamodule of three class folders, without workers."""
    return ImageFolder(
        root=str(root), batch_size=2, num_workers=0, num_classes=3, in_chans=in_chans, image_size=image_size
    )


def check_eval_transform(data: ClassificationDataModule, root: Path) -> None:
    """Check that the test loader's images equal the transform's, bit-exactly."""
    paths = sorted((root / "test").glob("*/*.png"))
    transform = data.eval_transform()  # before anything is read
    single = torch.stack([transform(read_image(path, data.in_chans)) for path in paths])
    data.setup("test")
    assert torch.equal(single, torch.cat([images for images, _ in data.test_dataloader()]))


@pytest.mark.parametrize(("size", "image_size", "in_chans"), [(32, 32, 3), (40, 32, 3), (40, 24, 1), (100, 80, 3)])
def test_eval_transform_image_folder(size: int, image_size: int, in_chans: int, make_tree: MakeTree) -> None:
    root = make_tree({"train": 2, "test": 2}, size=size)
    check_eval_transform(folder(root, image_size, in_chans), root)


def test_eval_transform_cifar10(make_tree: MakeTree) -> None:
    root = make_tree({"train": 1, "test": 1}, classes=CIFAR10_CLASSES)
    check_eval_transform(cifar10(root), root)
