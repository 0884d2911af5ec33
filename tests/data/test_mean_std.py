"""`datamodule.mean` and `datamodule.std`, for every datamodule."""

from typing import Any

import pytest
import torch

from ghostexp.data.datasets.digits import Digits
from ghostexp.data.datasets.fake import Fake
from ghostexp.data.datasets.shapes import Shapes
from ghostexp.runs.fingerprint import differences, fingerprint
from tests.data.fake_image_folders import CIFAR10_CLASSES, MakeTree, cifar10, image_folder

FAKE: dict[str, Any] = {"batch_size": 8, "num_classes": 4, "in_chans": 3, "image_size": 8, "num_images": 32}
MEAN, STD = [0.1, 0.2, 0.3], [0.5, 0.25, 1]


def first_test_batch(module: Any) -> torch.Tensor:
    """Return the images of the first test batch, those of detection as one tensor."""
    module.setup("test")
    images, _ = next(iter(module.test_dataloader()))
    return torch.stack(images) if isinstance(images, list) else images


def check_mean_std(make: Any, channels: int = 3) -> None:
    """Compare a datamodule's images, in [0, 1], under its default and under other mean and std."""
    mean, std = MEAN[:channels], STD[:channels]
    default, other = make(), make(mean=mean, std=std)
    assert other.mean_std() == (tuple(mean), tuple(std))
    scaled = [torch.tensor(values).view(-1, 1, 1) for values in default.mean_std()]
    expected = first_test_batch(default) * scaled[1] + scaled[0]
    found = first_test_batch(other) * torch.tensor(std).view(-1, 1, 1) + torch.tensor(mean).view(-1, 1, 1)
    torch.testing.assert_close(found, expected)
    assert torch.allclose(other.denormalize(first_test_batch(other)), expected.clamp(0, 1), atol=1e-6)


def test_mean_and_std_apply_to_every_datamodule(make_tree: MakeTree) -> None:
    root = make_tree({"train": 2, "test": 1}, classes=CIFAR10_CLASSES, size=40)
    shapes: dict[str, Any] = {"batch_size": 1, "num_classes": 4, "in_chans": 3, "image_size": 64, "num_images": 4}
    digits: dict[str, Any] = {"batch_size": 8, "num_classes": 10, "in_chans": 1, "image_size": 8}
    check_mean_std(lambda **how: Fake(**FAKE, **how))
    check_mean_std(lambda **how: cifar10(root, **how))
    check_mean_std(lambda **how: image_folder(root, num_classes=10, **how))
    check_mean_std(lambda **how: image_folder(root, num_classes=10, num_workers=0, image_size=65, **how))
    check_mean_std(lambda **how: Shapes(**shapes, **how))
    check_mean_std(lambda **how: Digits(**digits, **how), channels=1)


def test_std_alone_keeps_default_mean() -> None:
    assert Fake(**FAKE, std=STD).mean_std() == ((0.5, 0.5, 0.5), tuple(STD))


@pytest.mark.parametrize("value", [0.5, [0.5], [0.1, 0.2, 116.7], [0.1, 0.2, "b"], [True, 0, 0], [0.1, 0.2, -0.1]])
@pytest.mark.parametrize("key", ["mean", "std"])
def test_mean_or_std_without_value_per_channel_raises(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"datamodule.{key}=.*: must be a list of 3 numbers in \[0, 1\]"):
        Fake(**FAKE, **{key: value})


def test_std_of_zero_raises() -> None:
    with pytest.raises(ValueError, match=r"datamodule.std=\[0, 1, 1\]: must be numbers > 0"):
        Fake(**FAKE, std=[0, 1, 1])


def test_mean_and_std_change_fingerprint_unless_null() -> None:
    before: dict[str, Any] = {"datamodule": {"batch_size": 8}}
    null = {"datamodule": {"batch_size": 8, "mean": None, "std": None}}
    changed = {"datamodule": {"batch_size": 8, "mean": MEAN, "std": None}}
    assert fingerprint(before) == fingerprint(null) != fingerprint(changed)
    assert differences(before, null) == []
    assert differences(null, changed) == ["datamodule.mean: None -> [0.1, 0.2, 0.3]"]
