"""Check image files before training: the problems found, and how little is decoded."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from ghostexp.data import image_check
from ghostexp.data.image_check import UnreadableImages, check_image, find_unreadable
from tests.data.fake_image_folders import MakeTree, image_folder


def damaged_tree(root: Path) -> list[Path]:
    """Damage files of a tree of 70 x 70, in four ways; returns them sorted by name."""
    first, second, third, fourth = (root / "train" / name for name in ("ant/0000", "ant/0002", "bee/0001", "cow/0002"))
    cut_jpeg, cut_png, empty, missing = (first, "jpg"), (second, "png"), (third, "png"), (fourth, "png")
    paths = [path.with_suffix(f".{extension}") for path, extension in (cut_jpeg, cut_png, empty, missing)]
    for path in paths[:2]:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    paths[2].write_bytes(b"")
    paths[3].unlink()
    paths[3].symlink_to(root / "nowhere.png")
    return paths


@pytest.fixture
def mixed_tree(make_tree: MakeTree, tmp_path: Path) -> Path:
    """Four PNGs and four JPEGs of 70 x 70 a class."""
    root = make_tree({"train": 4, "val": 1}, size=70)
    make_tree({"jpeg": 4}, size=70, extension="jpg")
    shutil.copytree(tmp_path / "jpeg", root / "train", dirs_exist_ok=True)
    return root


def test_find_unreadable_lists_all_damaged_files(mixed_tree: Path) -> None:
    data = image_folder(mixed_tree, image_size=65).read().train
    everything = np.arange(len(data))
    assert data.find_unreadable(everything) == []
    damaged = damaged_tree(mixed_tree)
    found = data.find_unreadable(everything)
    assert [problem.partition(": ")[0] for problem in found] == [str(path) for path in damaged]
    problems = ("truncated", "", "the file is empty", "broken link")
    assert all(words in problem for words, problem in zip(problems, found, strict=True))
    assert data.find_unreadable(everything[:1]) == [found[0]]


def test_intact_jpegs_and_pngs_are_checked_once_undecoded(mixed_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = image_folder(mixed_tree, image_size=65).read().train
    monkeypatch.setattr(image_check, "read_image", lambda *_, **__: pytest.fail("decoded"))
    assert data.find_unreadable(np.arange(8)) == []
    checked: list[Path] = []
    monkeypatch.setattr(image_check, "check_image", checked.append)
    (mixed_tree / "train/ant/0001.png").touch()
    assert data.find_unreadable(np.arange(10)) == []
    relative = sorted(str(path.relative_to(mixed_tree / "train")) for path in checked)
    assert relative == ["ant/0001.png", "bee/0000.jpg", "bee/0000.png"]  # the changed one, and two that are new


def test_check_image_decodes_other_formats(make_tree: MakeTree) -> None:
    path = make_tree({"train": 1}, size=40, extension="bmp") / "train/ant/0000.bmp"
    check_image(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"0000\.bmp: not a readable image"):
        check_image(path)


def test_find_unreadable_works_without_cache(mixed_tree: Path) -> None:
    damaged_tree(mixed_tree)
    (mixed_tree / ".ghostexp").write_text("a file where the folder should be")
    paths = sorted((mixed_tree / "train").glob("*/*"))
    assert len(find_unreadable(paths, mixed_tree / ".ghostexp" / "train-readable.npy")) == 4


def test_unreadable_images_message_counts_all_and_lists_first() -> None:
    problems = [f"{number}.png: not a readable image (why); replace or delete it" for number in range(7)]
    message = str(UnreadableImages(problems, 90))
    assert message.startswith("7 of 90 images cannot be read: 0.png: not a readable image (why); 1.png: ")
    assert message.endswith("4.png: not a readable image (why); and 2 more, see run.log; replace or delete them")
    assert str(UnreadableImages(problems[:1], 90)) == problems[0]


def test_small_damaged_images_are_all_listed(mixed_tree: Path) -> None:
    damaged = damaged_tree(mixed_tree)
    (mixed_tree / "val/ant/0000.png").write_bytes(b"text")
    with pytest.raises(UnreadableImages, match="5 of 27 images cannot be read: ") as caught:
        image_folder(mixed_tree).setup("fit")
    assert all(str(path) in str(caught.value) for path in (*damaged, mixed_tree / "val/ant/0000.png"))
