"""CIFAR and other small images: pickles, class folders, and the cache."""

import logging
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ghostexp.data import image_folders as folder_module
from ghostexp.data.datasets.cifar import Cifar100
from ghostexp.data.image_folders import list_class_folders
from ghostexp.data.in_memory import InMemoryDataset
from tests.data.fake_image_folders import CIFAR10_CLASSES, MakeTree, cifar10, image_folder, write_pickles


def build_classification_data(module: Any) -> tuple[InMemoryDataset, InMemoryDataset]:
    module.prepare_data()
    module.setup("fit")
    assert isinstance(module.images.train, InMemoryDataset)
    return module.images.train, module.images.test


def test_pickles_and_class_folders_read_to_the_same_images(make_tree: MakeTree) -> None:
    tree = make_tree({"train": 2, "test": 1}, classes=CIFAR10_CLASSES)
    write_pickles(tree / "original", tree)
    folders, pickles = cifar10(tree), cifar10(tree / "original")
    for mine, theirs in zip(build_classification_data(folders), build_classification_data(pickles), strict=True):
        assert torch.equal(mine.images, theirs.images)
        assert torch.equal(mine.labels, theirs.labels)
    assert folders.class_names == pickles.class_names == CIFAR10_CLASSES
    assert build_classification_data(cifar10(tree / "original" / "cifar-10-batches-py"))[0].images.shape == (
        20,
        3,
        32,
        32,
    )


def test_cifar100_reads_the_fine_labels_of_its_pickles(tmp_path: Path) -> None:
    target = tmp_path / "cifar-100-python"
    target.mkdir()
    (target / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"fine{label}" for label in range(100)]}))
    for name, labels in (("train", [99, 3, 5, 7]), ("test", [1])):
        entry = {"data": np.zeros((len(labels), 3072), np.uint8), "fine_labels": labels, "coarse_labels": [0]}
        (target / name).write_bytes(pickle.dumps(entry))
    module = Cifar100(root=str(tmp_path), batch_size=4, num_classes=100, in_chans=3, image_size=32)
    assert build_classification_data(module)[0].labels.tolist() == [99, 3, 5, 7]
    assert module.class_names[99] == "fine99"


def test_a_tree_is_decoded_once_and_again_when_it_changes(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_tree({"train": 2, "val": 1})
    first, _ = build_classification_data(image_folder(root))
    decode = folder_module._decode
    monkeypatch.setattr(folder_module, "_decode", lambda *_: pytest.fail("decoded again"))
    assert torch.equal(first.images, build_classification_data(image_folder(root))[0].images)
    monkeypatch.setattr(folder_module, "_decode", decode)
    changed = root / "train" / "bee" / "0000.png"
    Image.new("RGB", (32, 32), "red").save(changed)
    again, _ = build_classification_data(image_folder(root))
    assert again.images[2].float().mean((1, 2)).tolist() == [255, 0, 0]
    assert torch.equal(again.images[:2], first.images[:2])
    changed.unlink()
    assert len(build_classification_data(image_folder(root))[0].labels) == 5


def test_hidden_and_other_files_are_left_alone(make_tree: MakeTree) -> None:
    root = make_tree({"train": 2, "val": 1})
    for name in (".hidden.png", "notes.txt"):
        (root / "train" / "ant" / name).touch()
    (root / "train" / ".hidden").mkdir()
    assert len(build_classification_data(image_folder(root))[0].labels) == 6


def test_all_that_lies_below_a_class_folder_is_of_that_class(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree({"train": 3, "val": 1})
    ant = root / "train" / "ant"
    (ant / "session 2" / "bee").mkdir(parents=True)
    (ant / "0001.png").rename(ant / "session 2" / "bee" / "0001.png")
    with Image.open(ant / "0002.png") as image:
        image.save(ant / "session 2" / "0002.GIF")
    (ant / "0002.png").unlink()
    expected = [ant / "0000.png", ant / "session 2" / "0002.GIF", ant / "session 2" / "bee" / "0001.png"]
    (ant / "session 2" / "loop").symlink_to(ant)
    found = list_class_folders(root / "train")
    assert found.paths[:3] == expected
    assert found.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert len(build_classification_data(image_folder(root))[0]) == 9
    shutil.move(ant, tmp_path / "moved")
    ant.symlink_to(tmp_path / "moved")
    assert list_class_folders(root / "train").paths[:3] == expected


def test_what_is_left_out_is_counted_in_one_line(make_tree: MakeTree, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_tree({"train": 2, "val": 1})
    image_folder(root, image_size=72).read()
    assert capsys.readouterr().err == ""
    for name in ("train/ant/a.txt", "train/ant/b.txt", "train/ant/readme", "val/bee/c.xml", "train/no_class.png"):
        (root / name).touch()
    image_folder(root, image_size=72).read()
    said = f"datamodule.root={root}: 5 files are no images of a class, and left out "
    assert capsys.readouterr().err.startswith(f"{said}(2 .txt, ")


def test_class_names_that_are_not_utf8_are_escaped(make_tree: MakeTree) -> None:
    root = make_tree({"train": 2, "val": 1})
    for part in ("train", "val"):
        os.rename(root / part / "bee", os.fsencode(root / part) + b"/caf\xe9")
    module = image_folder(root)
    assert len(build_classification_data(module)[0]) == 6
    assert module.class_names == ("ant", "caf\\xe9", "cow")


def test_a_damaged_cache_is_made_again(make_tree: MakeTree) -> None:
    root = make_tree({"train": 2, "val": 1})
    first, _ = build_classification_data(image_folder(root))
    for cache in (root / ".ghostexp").glob("*.npz"):
        cache.write_bytes(cache.read_bytes()[:-40])
    assert torch.equal(first.images, build_classification_data(image_folder(root))[0].images)


def test_where_no_cache_can_be_written_one_line_says_so_and_nothing_is_lost(
    make_tree: MakeTree, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_tree({"train": 2, "val": 1})
    (root / ".ghostexp").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        train, _ = build_classification_data(image_folder(root))
    assert train.images.shape == (6, 3, 16, 16)
    assert [record.getMessage().count("\n") for record in caplog.records] == [0, 0]  # train and val
    assert "train-3x16x16.npz: cannot be written" in caplog.records[0].getMessage()


def test_small_images_of_any_size_are_cut_to_the_square_and_may_be_grey(make_tree: MakeTree) -> None:
    root = make_tree({"train": 2, "val": 1}, size=40)
    train, test = build_classification_data(image_folder(root, in_chans=1))
    assert train.images.shape == (6, 1, 16, 16)
    assert test.images.shape == (3, 1, 16, 16)
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2]
