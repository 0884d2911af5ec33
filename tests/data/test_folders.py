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

from ghostexp.data import image_folders
from ghostexp.data.datasets.cifar import Cifar100
from ghostexp.data.image_folders import list_class_folders
from ghostexp.data.in_memory import InMemoryDataset
from ghostexp.tasks.common.summary import data_digest
from tests.data.fake_image_folders import CIFAR10_CLASSES, MakeTree, cifar10, image_folder, write_pickles


def load_datasets(module: Any) -> tuple[InMemoryDataset, InMemoryDataset]:
    module.prepare_data()
    module.setup("fit")
    assert isinstance(module.images.train, InMemoryDataset)
    return module.images.train, module.images.test


def test_cifar_pickles_and_class_folders_are_equal(make_tree: MakeTree) -> None:
    tree = make_tree({"train": 2, "test": 1}, classes=CIFAR10_CLASSES)
    write_pickles(tree / "original", tree)
    folders, pickles = cifar10(tree), cifar10(tree / "original")
    for mine, theirs in zip(load_datasets(folders), load_datasets(pickles), strict=True):
        assert torch.equal(mine.images, theirs.images)
        assert torch.equal(mine.labels, theirs.labels)
    assert folders.class_names == pickles.class_names == CIFAR10_CLASSES
    assert (folders.data_format, pickles.data_format) == ("class folders", "original files")
    assert data_digest(folders)["data_format"] == "class folders"
    assert load_datasets(cifar10(tree / "original" / "cifar-10-batches-py"))[0].images.shape == (
        20,
        3,
        32,
        32,
    )


def test_cifar_folders_of_different_classes_are_refused(make_tree: MakeTree) -> None:
    tree = make_tree({"train": 2, "test": 1}, classes=CIFAR10_CLASSES)
    (tree / "test" / "airplane").rename(tree / "test" / "plane")
    with pytest.raises(ValueError, match=r"class airplane is in only one of .*train and .*test"):
        load_datasets(cifar10(tree))


def test_cifar100_reads_fine_labels(tmp_path: Path) -> None:
    target = tmp_path / "cifar-100-python"
    target.mkdir()
    (target / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"fine{label}" for label in range(100)]}))
    for name, labels in (("train", [99, 3, 5, 7]), ("test", [1])):
        entry = {"data": np.zeros((len(labels), 3072), np.uint8), "fine_labels": labels, "coarse_labels": [0]}
        (target / name).write_bytes(pickle.dumps(entry))
    module = Cifar100(root=str(tmp_path), batch_size=4, num_classes=100, in_chans=3, image_size=32)
    assert load_datasets(module)[0].labels.tolist() == [99, 3, 5, 7]
    assert module.class_names[99] == "fine99"


def test_cache_is_used_until_folder_changes(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_tree({"train": 2, "val": 1})
    first, _ = load_datasets(image_folder(root))
    decode = image_folders._decode
    monkeypatch.setattr(image_folders, "_decode", lambda *_: pytest.fail("decoded again"))
    assert torch.equal(first.images, load_datasets(image_folder(root))[0].images)
    monkeypatch.setattr(image_folders, "_decode", decode)
    changed = root / "train" / "bee" / "0000.png"
    Image.new("RGB", (32, 32), "red").save(changed)
    again, _ = load_datasets(image_folder(root))
    assert again.images[2].float().mean((1, 2)).tolist() == [255, 0, 0]
    assert torch.equal(again.images[:2], first.images[:2])
    changed.unlink()
    assert len(load_datasets(image_folder(root))[0].labels) == 5


def test_hidden_and_other_files_are_ignored(make_tree: MakeTree) -> None:
    root = make_tree({"train": 2, "val": 1})
    for name in (".hidden.png", "notes.txt"):
        (root / "train" / "ant" / name).touch()
    (root / "train" / ".hidden").mkdir()
    assert len(load_datasets(image_folder(root))[0].labels) == 6


def test_class_folders_are_listed_recursively(make_tree: MakeTree, tmp_path: Path) -> None:
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
    assert len(load_datasets(image_folder(root))[0]) == 9
    shutil.move(ant, tmp_path / "moved")
    ant.symlink_to(tmp_path / "moved")
    assert list_class_folders(root / "train").paths[:3] == expected


def test_left_out_files_are_counted_in_one_line(make_tree: MakeTree, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_tree({"train": 2, "val": 1})
    image_folder(root, image_size=72).read()
    assert capsys.readouterr().err == ""
    for name in ("train/ant/a.txt", "train/ant/b.txt", "train/ant/readme", "val/bee/c.xml", "train/no_class.png"):
        (root / name).touch()
    image_folder(root, image_size=72).read()
    message = f"datamodule.root={root}: 5 files left out, which are not images of a class (2 .txt, "
    assert capsys.readouterr().err.startswith(message)


def test_class_names_escape_invalid_utf8(make_tree: MakeTree) -> None:
    root = make_tree({"train": 2, "val": 1})
    for part in ("train", "val"):
        os.rename(root / part / "bee", os.fsencode(root / part) + b"/caf\xe9")
    module = image_folder(root)
    assert len(load_datasets(module)[0]) == 6
    assert module.class_names == ("ant", "caf\\xe9", "cow")


def test_damaged_cache_is_rebuilt(make_tree: MakeTree) -> None:
    root = make_tree({"train": 2, "val": 1})
    first, _ = load_datasets(image_folder(root))
    for cache in (root / ".ghostexp").glob("*.npz"):
        cache.write_bytes(cache.read_bytes()[:-40])
    assert torch.equal(first.images, load_datasets(image_folder(root))[0].images)


def test_unwritable_cache_warns_and_images_are_read(make_tree: MakeTree, caplog: pytest.LogCaptureFixture) -> None:
    root = make_tree({"train": 2, "val": 1})
    (root / ".ghostexp").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        train, _ = load_datasets(image_folder(root))
    assert train.images.shape == (6, 3, 16, 16)
    assert [record.getMessage().count("\n") for record in caplog.records] == [0, 0]  # train and val
    assert "train-3x16x16.npz: cannot be written" in caplog.records[0].getMessage()


def test_small_images_are_cropped_to_square_and_may_be_grey(make_tree: MakeTree) -> None:
    root = make_tree({"train": 2, "val": 1}, size=40)
    train, test = load_datasets(image_folder(root, in_chans=1))
    assert train.images.shape == (6, 1, 16, 16)
    assert test.images.shape == (3, 1, 16, 16)
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2]
