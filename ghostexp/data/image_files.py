"""Read image files, for training, prediction and detection alike.

Every image has 8 bits a channel, upright orientation and no transparency:
- 16-bit images are scaled to 8 bits: 65535 becomes 255. So are 32-bit integers from 0 to 65535, and floats from 0 to 1.
- Transparent pixels show a white background.
- EXIF orientation is applied.
- Of an animation, the first frame is read.
"""

import os
import struct
from contextlib import suppress
from functools import cache
from io import BytesIO

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2.functional import pil_to_tensor

from ghostexp.data.file_lists import ImagePath

try:
    import simplejpeg  # the same pixels, sooner
except ImportError:
    simplejpeg = None

READER_VERSION = 2  # increment when the same file gives another array: caches of decoded images depend on it

# Formats that Pillow registers, but that are not images, or need another program.
NOT_IMAGES = frozenset({"BUFR", "EPS", "FITS", "GRIB", "HDF5", "IPTC", "MPEG", "PCD", "WMF"})
BACKGROUND = (255, 255, 255, 255)  # behind transparent pixels
REMEDY = "; replace or delete it"
OTHER_SIZE = "but annotated as"
ORIENTATION = ExifTags.Base.Orientation
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


@cache
def image_extensions() -> frozenset[str]:
    """List the extensions of image files, lower case with their dot: all that Pillow reads."""
    formats = Image.registered_extensions()  # of this installation: .avif only where it was built in
    return frozenset(extension for extension, name in formats.items() if name in Image.OPEN and name not in NOT_IMAGES)


def is_image_name(name: str) -> bool:
    """Return whether a file's name has an image extension and is not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in image_extensions()


def display_name(name: str) -> str:
    r"""Return a file's name as valid UTF-8: other bytes are escaped, as `\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def read_image(path: ImagePath, channels: int, is_turned: bool = True) -> Image.Image:
    """Decode an image as the module describes, to grey (channels=1) or RGB (3).

    is_turned: apply EXIF orientation.
    Raises ValueError: the file cannot be read, or is not an image.
    """
    try:
        # Given a path, Pillow memory-maps some files, and so garbles uncompressed TIFFs with an orientation.
        with path.open("rb") as file, Image.open(file) as image:
            image.load()
            if is_turned:
                _apply_orientation(image)
            return to_8_bits(image, channels)
    except Exception as error:  # a decoder of a damaged file may raise anything
        raise unreadable(path, error) from None


def read_pixels(path: ImagePath, channels: int) -> Tensor:
    """Decode an image as `read_image` does, to uint8 (channels, H, W); most JPEGs in less time.

    Raises ValueError: the file cannot be read, or is not an image.
    """
    with suppress(Exception):  # `read_image` finds the reason
        with path.open("rb") as file:
            data = bytearray(file.read())
        if _is_plain_jpeg(data, channels):
            return decode_plain_jpeg(data, channels)
    return pil_to_tensor(read_image(path, channels))


def decode_plain_jpeg(data: bytearray, channels: int) -> Tensor:
    """Decode an upright JPEG, not of CMYK, to uint8 (channels, H, W); by simplejpeg if it is installed."""
    if simplejpeg is not None:
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if channels == 1 else "RGB")  # (H, W, channels)
        return torch.from_numpy(pixels).permute(2, 0, 1)
    mode = ImageReadMode.GRAY if channels == 1 else ImageReadMode.RGB
    return decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), mode)  # pyright: ignore[reportReturnType]


def _is_plain_jpeg(data: bytearray, channels: int) -> bool:
    """Return whether libjpeg alone decodes a file as Pillow would: upright, not CMYK, no colours to be made grey."""
    with Image.open(BytesIO(data)) as image:
        is_converted = image.mode not in ("L", "RGB") or (image.mode == "RGB" and channels == 1)
        return image.format in ("JPEG", "MPO") and not is_converted and _orientation(image) == 1


def read_annotated_image(path: ImagePath, width: int, height: int) -> Image.Image:
    """Decode an image to RGB with its annotated size, be that before or after EXIF orientation.

    Raises ValueError: the file cannot be read, is not an image, or has another size.
    """
    image = read_image(path, channels=3)
    if image.size != (width, height) and image.size == (height, width):
        image = read_image(path, channels=3, is_turned=False)
    if image.size != (width, height):
        raise other_size(path, image.size, (width, height))
    return image


def other_size(path: ImagePath, size: tuple[int, int], annotated: tuple[int, int]) -> ValueError:
    """Build the error for a file whose size, (width, height), is not the annotated one."""
    return ValueError(f"{path}: {size[0]} x {size[1]}, {OTHER_SIZE} {annotated[0]} x {annotated[1]}")


def read_image_size(path: ImagePath, is_turned: bool = True) -> tuple[int, int]:
    """Read width and height, as `read_image` would return them, from the file's header alone.

    Raises ValueError: the file cannot be read, or is not an image.
    """
    try:
        with path.open("rb") as file, Image.open(file) as image:
            has_orientation = image.format != "PNG" or "exif" in image.info  # else Pillow decodes the PNG to look
            turned = is_turned and has_orientation and image.format != "TIFF" and _orientation(image) in TURNED
            width, height = image.size
            return (height, width) if turned else (width, height)  # Pillow turns a TIFF itself
    except Exception as error:
        raise unreadable(path, error) from None


def unreadable(path: ImagePath, error: Exception) -> ValueError:
    """Build the error with a file's path and the reason why it cannot be read."""
    if isinstance(error, FileNotFoundError):
        reason = "broken link" if path.is_symlink() else "no such file"
        return ValueError(f"{path}: {reason}")
    if isinstance(error, OSError) and error.errno is not None:
        return ValueError(f"{path}: cannot be read ({error.strerror})")
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        reason = "unknown image format" if path.stat().st_size else "the file is empty"
    return ValueError(f"{path}: not a readable image ({reason}){REMEDY}")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except (SyntaxError, struct.error, ValueError, KeyError, TypeError, OSError):  # damaged EXIF of an intact image
        return 1


def _apply_orientation(image: Image.Image) -> None:
    if _orientation(image) != 1:
        ImageOps.exif_transpose(image, in_place=True)


def to_8_bits(image: Image.Image, channels: int) -> Image.Image:
    """Convert an image as the module describes, to grey (channels=1) or RGB (3).

    Raises ValueError: values out of range.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        image = _scale(image, white=1 if image.mode == "F" else 65535)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image).convert("RGB")
    return image.convert("L" if channels == 1 else "RGB")


def _scale(image: Image.Image, white: int) -> Image.Image:
    """Scale the values of a grey image from 0 ... white to 0 ... 255."""
    values = np.asarray(image).astype(np.float64)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= white):  # NaN too
        raise ValueError(f"values must be in [0, {white}], got {low:g} to {high:g}")
    values[values == image.info.get("transparency", -1)] = white
    return Image.fromarray((values * (255 / white) + 0.5).astype(np.uint8))
