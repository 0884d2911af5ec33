"""A single image file is prepared as the same file in the test set is."""

from pathlib import Path

import pytest
import torch

from ghostexp.data.classification_datamodule import ClassificationDataModule
from ghostexp.data.datasets.image_folder import ImageFolder
from ghostexp.data.image_files import read_image
from tests.data.fake_image_folders import CIFAR10_CLASSES, MakeTree, cifar10


def folder(root: Path, image_size: int, in_chans: int) -> ImageFolder:
    """A tree of three classes, without workers."""
    return ImageFolder(
        root=str(root), batch_size=2, num_workers=0, num_classes=3, in_chans=in_chans, image_size=image_size
    )


def expect_the_same(data: ClassificationDataModule, root: Path) -> None:
    """Compare the test loader's images with the transform's, to the bit."""
    paths = sorted((root / "test").glob("*/*.png"))
    transform = data.eval_transform()  # before anything is read
    alone = torch.stack([transform(read_image(path, data.in_chans)) for path in paths])
    data.setup("test")
    assert torch.equal(alone, torch.cat([images for images, _ in data.test_dataloader()]))


@pytest.mark.parametrize(("size", "image_size", "in_chans"), [(32, 32, 3), (40, 32, 3), (40, 24, 1), (100, 80, 3)])
def test_of_any_tree_of_class_folders(size: int, image_size: int, in_chans: int, make_tree: MakeTree) -> None:
    root = make_tree({"train": 2, "test": 2}, size=size)
    expect_the_same(folder(root, image_size, in_chans), root)


def test_of_cifar10(make_tree: MakeTree) -> None:
    root = make_tree({"train": 1, "test": 1}, classes=CIFAR10_CLASSES)
    expect_the_same(cifar10(root), root)
