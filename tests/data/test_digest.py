"""Digests of data: independent of their location, changed by any other image or label."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ghostexp.data.datasets.coco import Coco
from ghostexp.data.datasets.digits import Digits
from ghostexp.data.datasets.fake import Fake
from ghostexp.data.datasets.shapes import Shapes
from ghostexp.data.digest import describe_difference
from tests.data.fake_coco import write_set
from tests.data.fake_image_folders import CIFAR10_CLASSES, MakeTree, cifar10, image_folder, write_pickles

FAKE: dict[str, Any] = {"batch_size": 8, "num_classes": 4, "in_chans": 3, "image_size": 8}
CHANGES: dict[str, Callable[[Path], object]] = {
    "another image": lambda folder: Image.new("RGB", (32, 32), "red").save(folder / "ant" / "0000.png"),
    "another name": lambda folder: (folder / "ant" / "0000.png").rename(folder / "ant" / "first.png"),
    "another label": lambda folder: (folder / "ant" / "0000.png").rename(folder / "bee" / "0002.png"),
    "one less": lambda folder: (folder / "ant" / "0000.png").unlink(),
}


@pytest.mark.parametrize("image_size", [16, 72])
@pytest.mark.parametrize("change", CHANGES)
def test_digest_of_class_folders_changes_with_content_only(
    make_tree: MakeTree, tmp_path: Path, change: str, image_size: int
) -> None:
    root = make_tree({"train": 2, "val": 1})
    before = image_folder(root, image_size=image_size).digest()
    assert before["train"]["images"] == 6
    copy = Path(shutil.copytree(root, tmp_path / "elsewhere", ignore=lambda *_: ["elsewhere"]))
    assert image_folder(copy, image_size=image_size).digest() == before
    CHANGES[change](copy / "train")
    after = image_folder(copy, image_size=image_size).digest()
    assert after["train"] != before["train"]
    assert after["test"] == before["test"]
    counts = "6 images -> 5 images" if change == "one less" else "6 images -> 6 images, others"
    assert describe_difference(before, after) == f"train: {counts}"
    assert describe_difference(before, before) is describe_difference({}, after) is None


def test_digest_of_pickles_changes_with_values(make_tree: MakeTree) -> None:
    tree = make_tree({"train": 1, "test": 1}, classes=CIFAR10_CLASSES)
    target = write_pickles(tree / "original", tree)
    before = cifar10(tree / "original").digest()
    assert cifar10(tree / "original").digest() == before
    (target / "data_batch_3").write_bytes((target / "data_batch_4").read_bytes())
    assert cifar10(tree / "original").digest()["train"] != before["train"]


def test_digest_of_generated_data() -> None:
    digits: dict[str, Any] = {"batch_size": 8, "num_classes": 10, "in_chans": 1, "image_size": 8}
    shapes: dict[str, Any] = {"batch_size": 8, "num_classes": 4, "in_chans": 3, "image_size": 64}
    assert Digits(**digits).digest() == Digits(**digits, seed=3, train_fraction=0.5).digest()
    assert Digits(**digits).digest() != Digits(**digits, split_seed=1).digest()
    assert Fake(**FAKE).digest() == Fake(**FAKE).digest() != Fake(**FAKE, num_images=64).digest()
    few, same = (Shapes(**shapes, num_images=4).digest() for _ in range(2))
    assert few == same != Shapes(**shapes, num_images=8).digest()


def test_digest_of_coco_includes_boxes_and_files(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    arguments: dict[str, Any] = {"root": str(root), "batch_size": 2, "num_classes": 2, "in_chans": 3}
    before = Coco(**arguments, image_size=64).digest()
    assert Coco(**arguments, image_size=96).digest() == before
    file = root / "annotations/instances_val2017.json"
    file.write_text(file.read_text().replace('"iscrowd": 0', '"iscrowd": 1', 1))
    changed = Coco(**arguments, image_size=64).digest()
    assert changed["test"] != before["test"]
    assert changed["train"] == before["train"]
    image = next((root / "train2017").iterdir())
    image.write_bytes(image.read_bytes() + b" ")
    assert Coco(**arguments, image_size=64).digest()["train"] != before["train"]


def test_checkpoint_of_other_training_images_raises(make_tree: MakeTree) -> None:
    root = make_tree({"train": 2, "val": 1})
    state = image_folder(root).state_dict()
    CHANGES["another image"](root / "val")
    image_folder(root).load_state_dict(state)
    CHANGES["one less"](root / "train")
    with pytest.raises(ValueError, match=f"datamodule.root={root}: not what this run .*6 images -> 5 images"):
        image_folder(root).load_state_dict(state)
    image_folder(root).load_state_dict({})  # of an older run, without a digest


def test_digest_changes_with_labels() -> None:
    data = Fake(**FAKE)
    images = data.read().train
    first = images.digest()
    images.labels[0] += 1
    assert images.digest() != first
    assert np.unique(images.labels).tolist() == [0, 1, 2, 3]
