"""A cache of resized training images."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from ghostexp.data.datasets.image_folder import ImageFolder
from ghostexp.data.image_files import decode_plain_jpeg, read_image, read_pixels
from ghostexp.data.resized_images import ResizedImages
from tests.data.fake_image_folders import MakeTree, image_folder


def folder(root: Path, **changes: Any) -> ImageFolder:
    module = image_folder(root, **({"image_size": 72, "num_workers": 0, "cache_short_side": 80} | changes))
    module.setup()
    return module


def cached_files(root: Path) -> list[Path]:
    return sorted(root.rglob("train-3x80/*/*.jpg"))


def train_images(module: ImageFolder) -> torch.Tensor:
    return torch.cat([images for images, _ in module.train_dataloader()])


def test_batches_do_not_depend_on_what_is_cached(make_tree: MakeTree) -> None:
    root = make_tree({"train": 4, "val": 2}, size=100)
    first = train_images(folder(root))
    assert len(cached_files(root)) == 12
    assert torch.equal(first, train_images(folder(root)))
    assert not torch.equal(first, train_images(folder(root, cache_short_side=None)))
    cached = cached_files(root)
    cached[0].unlink()
    cached[1].write_bytes(cached[1].read_bytes()[:500])
    assert torch.equal(first, train_images(folder(root)))
    assert cached_files(root) == cached
    assert cached[1].stat().st_size > 500


def test_cached_image_is_resized_to_the_shorter_side(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree({"train": 1}, size=100)
    path = root / "train" / "ant" / "0000.png"
    wide, small = root / "train" / "ant" / "wide.png", root / "train" / "ant" / "small.png"
    read_image(path, 3).resize((200, 100)).save(wide)
    read_image(path, 3).resize((60, 90)).save(small)
    cache = ResizedImages(tmp_path / "cache", str(root / "train"), short_side=80)
    assert cache.read(path, 3).shape == (3, 80, 80)
    assert cache.read(wide, 3).shape == (3, 80, 160)
    assert cache.read(small, 3).shape == (3, 90, 60)
    assert cache.read(wide, 1).shape == (1, 80, 160)
    read_image(wide, 3).resize((160, 80), 2).save(root / "near.jpg", quality=95)
    assert torch.equal(cache.read(wide, 3), read_pixels(root / "near.jpg", 3))


def test_changed_image_is_cached_again(make_tree: MakeTree) -> None:
    root = make_tree({"train": 2, "val": 1}, size=100)
    path = root / "train" / "ant" / "0000.png"
    first = train_images(folder(root))
    read_image(path, 3).rotate(180).save(path)
    os.utime(path, ns=(0, 0))
    assert not torch.equal(first, train_images(folder(root)))


def test_vanished_image_is_named(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree({"train": 1}, size=100)
    path = root / "train" / "ant" / "0000.png"
    path.unlink()
    with pytest.raises(ValueError, match=f"^{path}: no such file$"):
        ResizedImages(tmp_path / "cache", str(root / "train"), short_side=80).read(path, 3)


def test_images_with_long_names_are_cached(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree({"train": 2}, size=100)
    cache = ResizedImages(tmp_path / "cache", str(root / "train"), short_side=80)
    for number in range(2):
        path = root / "train" / "ant" / f"{number:04}.png"
        path = path.rename(path.with_name(f"{'é' * 120}{number}.png"))
        first = cache.read(path, 3)
        assert len(list((tmp_path / "cache" / "ant").iterdir())) == number + 1
        assert torch.equal(first, cache.read(path, 3))
    assert cache.is_writable


def test_cached_files_keep_their_names(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree({"train": 1}, size=100)
    path = root / "train" / "ant" / f"{'a' * 156}.png"
    (path.parent / "0000.png").rename(path)
    ResizedImages(tmp_path / "cache", str(root / "train"), short_side=80).read(path, 3)
    (cached,) = (tmp_path / "cache" / "ant").iterdir()
    assert cached.name.startswith(f"{path.name}.")


def test_test_images_are_not_cached(make_tree: MakeTree) -> None:
    root = make_tree({"train": 2, "val": 2}, size=100)
    module = folder(root, validate_on="holdout", holdout_fraction=0.5)
    for loader in (module.val_dataloader(), module.test_dataloader()):
        for _ in loader:
            pass
    assert cached_files(root) == []


def test_unwritable_cache_raises_before_training(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree({"train": 2, "val": 1}, size=100)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "train-3x80").write_text("a file in the place of the folder")
    module = folder(root, cache_dir=str(tmp_path / "elsewhere"))
    assert len(list(module.test_dataloader())) == 2
    with pytest.raises(ValueError, match=r"cache_short_side=80: .* cannot be written .*; set datamodule\.cache_dir"):
        module.train_dataloader()


def test_cache_that_fills_its_disk_warns_once(
    make_tree: MakeTree, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_tree({"train": 3, "val": 1}, size=100)
    expected = train_images(folder(root))
    loader = folder(root, cache_dir=str(tmp_path / "elsewhere")).train_dataloader()
    (tmp_path / "elsewhere" / "train-3x80").rmdir()
    (tmp_path / "elsewhere" / "train-3x80").write_text("")
    assert torch.equal(expected, torch.cat([images for images, _ in loader]))
    assert sum("no more images will be cached" in message for message in caplog.messages) == 1


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"cache_short_side": 64}, "cache_short_side=64: must be an integer >= 72"),
        ({"cache_short_side": 64, "image_size": 32}, "images of 32 are kept in memory"),
        ({"cache_dir": ""}, "cache_dir=.* must be a folder or null"),
        ({"cache_dir": "x", "cache_short_side": None}, "cache_dir=x: needs datamodule.cache_short_side, such as 256"),
    ],
)
def test_wrong_values_raise(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        folder(tmp_path, **changes)


def test_cached_image_without_its_end_is_cached_again(
    make_tree: MakeTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a power failure leaves it: of the right size, with zeros at the end, which some decoders accept."""

    def decode(data: bytearray, channels: int) -> torch.Tensor:
        return decode_plain_jpeg(data, channels) if data.endswith(b"\xff\xd9") else torch.zeros(channels, 80, 80)

    monkeypatch.setattr("ghostexp.data.resized_images.decode_plain_jpeg", decode)
    root = make_tree({"train": 1}, size=100)
    path = root / "train" / "ant" / "0000.png"
    cache = ResizedImages(tmp_path / "cache", str(root / "train"), short_side=80)
    first = cache.read(path, 3)
    (cached,) = (tmp_path / "cache").rglob("*.jpg")
    whole = cached.read_bytes()
    cached.write_bytes(whole[: len(whole) // 2].ljust(len(whole), b"\0"))
    assert torch.equal(cache.read(path, 3), first)
    assert cached.read_bytes() == whole
