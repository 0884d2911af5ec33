"""Read image files of every format and mode."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from ghostexp.data import image_files
from ghostexp.data.image_files import display_name, is_image_name, read_image, read_image_size, read_pixels

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
TURNED_RIGHT = 6  # EXIF orientation: rotate by 90 degrees clockwise for display


def pixels(path: Path, channels: int = 1) -> np.ndarray:
    """Read an image file into an array."""
    return np.asarray(read_image(path, channels))


def save(values: np.ndarray, path: Path) -> Path:
    Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.pgm"])
def test_read_image_scales_16_bits(tmp_path: Path, name: str) -> None:
    path = save(GREY.astype(np.uint16) * 257, tmp_path / name)
    assert np.array_equal(pixels(path), GREY)
    assert np.array_equal(pixels(path, 3), GREY[:, :, None].repeat(3, 2))


def test_read_image_scales_integers_and_floats(tmp_path: Path) -> None:
    assert np.array_equal(pixels(save(GREY.astype(np.int32) * 257, tmp_path / "int.tif")), GREY)
    assert np.array_equal(pixels(save((GREY / 255).astype(np.float32), tmp_path / "float.tif")), GREY)
    for values, problem in (
        (GREY.astype(np.int32) * 300, r"\[0, 65535\], got 0 to 76500"),
        (GREY * 1.0, r"\[0, 1\], got 0"),
    ):
        path = save(values.astype(np.float32) if values.dtype == float else values, tmp_path / "wide.tif")
        with pytest.raises(ValueError, match=f"wide.tif: not a readable image .*values must be in {problem}"):
            read_image(path, 1)


def test_read_image_composites_on_white(tmp_path: Path) -> None:
    expected = 255 - GREY
    black = np.zeros_like(GREY)
    save(np.dstack([black, black, black, GREY]), tmp_path / "rgba.png")
    save(np.dstack([black, GREY]), tmp_path / "la.png")
    assert np.array_equal(pixels(tmp_path / "rgba.png", 3)[:, :, 0], expected)
    assert np.array_equal(pixels(tmp_path / "la.png"), expected)
    palette = Image.fromarray(GREY // 128).convert("P")
    palette.putpalette([0] * 768)
    palette.save(tmp_path / "p.png", transparency=0)
    assert np.array_equal(pixels(tmp_path / "p.png"), np.where(GREY < 128, 255, 0))


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.tif", "x.webp"])
def test_read_image_applies_exif_orientation(tmp_path: Path, name: str) -> None:
    image = Image.fromarray(np.array([[0, 0, 255], [0, 0, 255]], np.uint8).repeat(16, 0).repeat(16, 1))
    image.getexif()[0x0112] = TURNED_RIGHT
    image.save(tmp_path / name, exif=image.getexif())
    shown = read_image(tmp_path / name, 1)
    assert shown.size == read_image_size(tmp_path / name) == (32, 48)
    assert np.asarray(shown)[4].max() < 40
    assert np.asarray(shown)[-4].min() > 215
    image.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "plain.png")
    assert np.abs(np.asarray(shown).astype(int) - pixels(tmp_path / "plain.png")).max() < 40


def test_read_image_ignores_damaged_exif(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "x.jpg", exif=b"Exif\0\0no TIFF header")
    assert read_image(tmp_path / "x.jpg", 1).size == (16, 16)


def test_is_image_name_accepts_pillow_extensions() -> None:
    assert all(map(is_image_name, ("a.JPG", "b.jfif", "c.tif", "d.gif", "e.webp", "f.png", "g.bmp", "h.pgm")))
    assert not any(map(is_image_name, (".hidden.png", "notes.txt", "png", "film.mpg", "data.h5", "plot.eps")))


def test_unreadable_file_raises_with_reason(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50), dtype=np.uint8)).save(whole, "png")
    (tmp_path / "cut.png").write_bytes(whole.getvalue()[:1000])
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "folder.jpg").mkdir()
    problems = {"link.png": "broken link", "none.png": "no such file", "text.jpg": "not a readable image"}
    for name, words in (problems | {"cut.png": "truncated", "folder.jpg": r"cannot be read \(Is a directory"}).items():
        for read in (lambda path: read_image(path, 3), read_image_size if name != "cut.png" else pixels):
            with pytest.raises(ValueError, match=f"{tmp_path / name}: .*{words}"):
                read(tmp_path / name)


def test_display_name_escapes_invalid_utf8() -> None:
    assert display_name("caf\udce9 \u732b.png") == "caf\\xe9 \u732b.png"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("decoder", ["simplejpeg", "torchvision"])
def test_read_pixels_equals_read_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int, decoder: str
) -> None:
    if decoder == "torchvision":
        monkeypatch.setattr(image_files, "simplejpeg", None)
    else:
        pytest.importorskip("simplejpeg")
    generator = np.random.default_rng(0)
    values = generator.integers(0, 256, (50, 37, 4), dtype=np.uint8)
    images = {"rgb": Image.fromarray(values[:, :, :3]), "grey": Image.fromarray(values[:, :, 0])}
    images["cmyk"] = Image.fromarray(values, "CMYK")
    exif = Image.Exif()
    exif[0x0112] = TURNED_RIGHT
    ways: list[dict[str, Any]] = [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"exif": exif}]
    for name, image in images.items():
        for number, how in enumerate(ways):
            image.save(tmp_path / f"{name}{number}.jpg", quality=80, **how)
    images["grey"].save(tmp_path / "grey.png")
    for path in sorted(tmp_path.iterdir()):
        assert torch.equal(read_pixels(path, channels), pil_to_tensor(read_image(path, channels))), path.name


@pytest.mark.parametrize("decoder", ["simplejpeg", "torchvision"])
def test_read_pixels_of_a_damaged_file_raises_as_read_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder: str
) -> None:
    if decoder == "torchvision":
        monkeypatch.setattr(image_files, "simplejpeg", None)
    path = save(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), tmp_path / "x.jpg")
    for content in (path.read_bytes()[:1000], b"", b"no image"):
        path.write_bytes(content)
        messages = []
        for read in (read_pixels, read_image):
            with pytest.raises(ValueError, match=r"x\.jpg") as caught:
                read(path, 3)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]
