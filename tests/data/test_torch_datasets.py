"""Any torch Dataset as data: its labels are those of its items, and its images are as documented."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from ghostexp.data.datasets.torch_dataset import TorchDataset


class Images(Dataset):
    """Eight grey images of one value; classes 0 and 1, changed by `target_transform` as in torchvision."""

    def __init__(self, kind: str = "uint8", target_transform: Any = None, targets: list[int] | None = None) -> None:
        self.kind, self.target_transform = kind, target_transform
        self.targets = targets or [0, 1] * 4

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = torch.full((1, 8, 8), 200, dtype=torch.uint8)
        label = index % 2
        label = label if self.target_transform is None else self.target_transform(label)
        if self.kind == "pil":
            return Image.fromarray(np.asarray(image[0])), label
        return image if self.kind == "uint8" else image / 255, label


def batches(kind: str = "uint8", data: Dataset | None = None, **keys: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Load an epoch of training batches."""
    train = data or Images(kind)
    module = TorchDataset(train=train, test=train, batch_size=4, num_classes=2, in_chans=1, image_size=8, **keys)
    module.setup("fit")
    return list(module.train_dataloader())


def test_labels_are_those_of_the_items() -> None:
    data = Images(target_transform=lambda label: 1 - label)
    module = TorchDataset(train=data, test=data, batch_size=4, num_classes=2, in_chans=1, image_size=8)
    module.setup("fit")
    assert module.images is not None
    assert module.images.train.labels.tolist() == [data[index][1] for index in range(8)] == [1, 0] * 4


def test_float_images_are_used_as_they_are() -> None:
    assert all(bool((images == 200 / 255).all()) for images, _ in batches("float"))
    with pytest.raises(ValueError, match=r"datamodule.train: Images returns float images, which are used as they are"):
        batches("float", hflip=True)


@pytest.mark.parametrize("kind", ["uint8", "pil"])
def test_erased_pixels_have_the_mean(kind: str) -> None:
    """Within the rounding of 8 bits, erased pixels are 0 after the normalisation."""
    images = torch.cat([images for images, _ in batches(kind, random_erasing=1.0, mean=[0.6], std=[0.2])])
    values = images.unique()
    assert len(values) == 2
    assert values.tolist() == pytest.approx([0.0, (200 / 255 - 0.6) / 0.2], abs=0.02)


@pytest.mark.parametrize(
    ("names", "problem"),
    [(("cat", "dog"), "class 0 is cat, but dog in"), (("dog",), "class 1 is missing, but cat in")],
)
def test_classes_of_both_sets_must_be_the_same(names: tuple[str, ...], problem: str) -> None:
    train, test = Images(), Images()
    train.classes, test.classes = ["dog", "cat"], names  # pyright: ignore[reportAttributeAccessIssue]
    keys: dict[str, Any] = {"batch_size": 4, "num_classes": 2, "in_chans": 1, "image_size": 8}
    with pytest.raises(ValueError, match=f"^datamodule.test: {problem} datamodule.train$"):
        TorchDataset(train=train, test=test, **keys).setup("fit")
    test.classes = ("dog", "cat")  # pyright: ignore[reportAttributeAccessIssue]
    TorchDataset(train=train, test=test, **keys).setup("fit")


class OneImage(Images):
    """Images that are all a given one."""

    def __init__(self, image: Image.Image) -> None:
        super().__init__()
        self.image = image

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.image, index % 2


@pytest.mark.parametrize(
    ("pixels", "value"),
    [
        (np.full((8, 8), 128 * 257, np.uint16), 128 / 255),
        (np.zeros((8, 8, 4), np.uint8), 1.0),
        (np.full((8, 8), 200, np.int32), 200 / 255),
        (np.full((8, 8), 200, np.float32), 200 / 255),
    ],
    ids=["16 bits", "transparent", "of integers", "of floats"],
)
def test_pil_images_become_8_bits_as_files_do(pixels: np.ndarray, value: float) -> None:
    images = torch.cat([images for images, _ in batches(data=OneImage(Image.fromarray(pixels)))])
    assert images.unique().tolist() == pytest.approx([value])


@pytest.mark.parametrize(("value", "mode"), [(300, "I"), (-0.5, "F")])
def test_pil_image_with_other_values_raises(value: float, mode: str) -> None:
    image = Image.fromarray(np.full((8, 8), value, {"I": np.int32, "F": np.float32}[mode]))
    text = f"datamodule.train: image 0 of OneImage: values of mode {mode} must be in [0, 255], got {value:g}"
    with pytest.raises(ValueError, match=re.escape(text)):
        batches(data=OneImage(image))


class Relabelled(Images):
    """Has the `targets` of its base, and other labels."""

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return super().__getitem__(index)[0], index // 4


def test_targets_that_are_not_the_labels_of_the_items_raise() -> None:
    text = "datamodule.train: item 1 of Relabelled has the label 0, and its targets or labels have 1"
    data = Relabelled()
    module = TorchDataset(train=data, test=data, batch_size=4, num_classes=2, in_chans=1, image_size=8)
    with pytest.raises(ValueError, match=re.escape(text)):
        module.digest()


def test_tensors_of_other_integers_raise() -> None:
    data = OneImage(torch.full((1, 8, 8), 200))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"must return PIL images, or uint8 or float tensors, got torch\.int64"):
        batches(data=data)
