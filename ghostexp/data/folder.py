"""Trees of class folders, `FOLDER/CLASS/IMAGE`: what is in them, and small images as arrays, decoded once."""

import hashlib
import logging
import os
import socket
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ghostexp.data.image_files import READER_VERSION, image_extensions, is_image_name, read_image

log = logging.getLogger(__name__)

CACHE_FOLDER = ".ghostexp"  # beside the folder that it caches
CACHE_VERSION = 1  # raise it when the same images give other arrays


@dataclass(frozen=True)
class ClassFolders:
    """The images of a tree, classes and files each in alphabetical order."""

    folder: Path
    class_names: tuple[str, ...]
    paths: list[Path]
    labels: Tensor  # int64 (N,)


def find_images(folder: Path) -> ClassFolders:
    """List a tree; ValueError if it has no class folders, or one without images."""
    class_names = class_folders(folder)
    if not class_names:
        raise ValueError(f"{folder}: no class folders in it; images are needed as {folder}/CLASS/IMAGE.jpg")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        found = sorted(path for path in (folder / name).iterdir() if is_image_name(path.name))
        if not found:
            raise ValueError(f"{folder / name}: no images in it ({', '.join(sorted(image_extensions()))})")
        paths += found
        labels += [label] * len(found)
    return ClassFolders(folder, class_names, paths, torch.tensor(labels))


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the folders in a folder, hidden ones left out; none if it does not exist."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))


def square(image: Image.Image, size: int) -> Image.Image:
    """The image scaled and cut to the centre square of a size; one that has it stays as it is."""
    return image if image.size == (size, size) else ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)


def read_images(found: ClassFolders, image_size: int, in_chans: int) -> Tensor:
    """Images as uint8 (N, in_chans, image_size, image_size), from the cache if the tree is as it was.

    Other sizes are scaled and cut to the centre square. Where no cache can be written, this warns and goes on.
    """
    cache = found.folder.parent / CACHE_FOLDER / f"{found.folder.name}-{in_chans}x{image_size}x{image_size}.npz"
    key = _state_of(found.paths)
    images = _read_cache(cache, key)
    if images is None:
        images = _decode(found.paths, image_size, in_chans)
        _write_cache(cache, key, images)
    return torch.from_numpy(images)


def _state_of(paths: list[Path]) -> str:
    """A hash of what changes when a tree does: names, sizes and times of its files."""
    digest = hashlib.sha256(f"{CACHE_VERSION}.{READER_VERSION}".encode())
    for path in paths:
        status = path.stat()
        digest.update(f"{path.parent.name}/{path.name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _decode(paths: list[Path], image_size: int, in_chans: int) -> np.ndarray:
    images = np.empty((len(paths), in_chans, image_size, image_size), dtype=np.uint8)

    def decode(numbers: np.ndarray) -> None:
        for number in numbers:
            image = square(read_image(paths[number], in_chans), image_size)
            images[number] = np.asarray(image).reshape(image_size, image_size, in_chans).transpose(2, 0, 1)

    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as threads:
        list(threads.map(decode, np.array_split(np.arange(len(paths)), workers)))  # raises what a thread raised
    return images


def _read_cache(cache: Path, key: str) -> np.ndarray | None:
    """The cached images; None if there are none, of another state of the tree, or damaged."""
    try:
        with np.load(cache, allow_pickle=False) as saved:
            return saved["images"] if str(saved["key"]) == key else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write_cache(cache: Path, key: str, images: np.ndarray) -> None:
    """Write beside the final name and rename, so that nobody ever reads half a file."""
    temporary = cache.with_suffix(f".{socket.gethostname()}-{os.getpid()}.tmp")
    try:
        cache.parent.mkdir(exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, images=images, key=np.array(key))
        temporary.replace(cache)
    except OSError as error:
        log.warning("%s: cannot be written (%s); images will be decoded again in every run", cache, error.strerror)
        with suppress(OSError):
            temporary.unlink()
