"""A cache of training images that are resized once, as JPEG files: faster to read in every later epoch.

An image has the same pixels before it is cached and after. Processes and runs may fill the cache side by side.
"""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image
from torch import Tensor

from ghostexp.data.caches import write_cache
from ghostexp.data.file_lists import ImagePath
from ghostexp.data.image_files import READER_VERSION, decode_plain_jpeg, read_image, unreadable

CACHE_VERSION = 1  # increment when the same image gives another file
JPEG_QUALITY = 95
END_OF_IMAGE = b"\xff\xd9"
LONGEST_NAME = 160  # bytes of a file's name that leave room, of the 255 of file systems, for what is added to it
LONGEST_FOLDER = 255  # bytes, which names in tar files may exceed


@dataclass
class ResizedImages:
    """Images whose shorter side is `short_side` at most, cached in `folder` by their names in `root`."""

    folder: Path
    root: str
    short_side: int
    is_writable: bool = True

    def check_writable(self) -> None:
        """Raise ValueError unless the folder exists or can be made, and files can be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            reason = None if os.access(self.folder, os.W_OK) else "no permission"
        except OSError as error:
            reason = error.strerror
        if reason is not None:
            where = f"datamodule.cache_short_side={self.short_side}: {self.folder} cannot be written ({reason})"
            raise ValueError(f"{where}; set datamodule.cache_dir to another folder")

    def read(self, path: ImagePath, channels: int) -> Tensor:
        """Read an image to uint8 (channels, H, W), from the cache if it has that file's size and time of change.

        Raises ValueError: the file cannot be read, or is not an image.
        """
        cached = self._cached(path, channels)
        with suppress(Exception):  # not cached yet, or damaged
            data = bytearray(cached.read_bytes())
            if data.endswith(END_OF_IMAGE):  # some decoders fill in what is missing
                return decode_plain_jpeg(data, channels)
        data = self._encode(path, channels)
        if self.is_writable:
            self.is_writable = write_cache(cached, lambda file: file.write(data), "no more images will be cached")
        return decode_plain_jpeg(bytearray(data), channels)

    def _cached(self, path: ImagePath, channels: int) -> Path:
        try:
            status = path.stat()
        except OSError as error:
            raise unreadable(path, error) from None
        text = f"{CACHE_VERSION} {READER_VERSION} {channels} {status.st_size} {status.st_mtime_ns}"
        state = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
        *folders, name = os.path.relpath(str(path), self.root).split(os.sep)
        folders = [_shortened(folder, LONGEST_FOLDER) for folder in folders]
        return self.folder.joinpath(*folders, f"{_shortened(name, LONGEST_NAME)}.{state}.jpg")

    def _encode(self, path: ImagePath, channels: int) -> bytes:
        image = read_image(path, channels)
        scale = self.short_side / min(image.size)
        if scale < 1:
            width, height = (max(1, round(side * scale)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        encoded = BytesIO()
        image.save(encoded, "JPEG", quality=JPEG_QUALITY)
        return encoded.getvalue()


def _shortened(name: str, longest: int) -> str:
    """Return a name, or its beginning and a hash if it has more than `longest` bytes."""
    encoded = os.fsencode(name)
    if len(encoded) <= longest:
        return name
    return f"{encoded[:100].decode(errors='ignore')}-{hashlib.blake2b(encoded, digest_size=16).hexdigest()}"
