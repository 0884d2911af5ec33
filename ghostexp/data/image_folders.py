"""List class folders, `FOLDER/CLASS/IMAGE`, and read small images into arrays with a cache."""

import hashlib
import os
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ghostexp.data.caches import CACHE_FOLDER, write_cache
from ghostexp.data.digest import digest_files
from ghostexp.data.file_lists import ImagePath, count_extensions, file_status, list_files
from ghostexp.data.image_check import UnreadableImages
from ghostexp.data.image_files import READER_VERSION, display_name, image_extensions, is_image_name, read_image
from ghostexp.validation import notice

CACHE_VERSION = 1  # increment when the same images give other arrays


@dataclass(frozen=True)
class LabeledImages:
    """Images and their classes, each in alphabetical order; of tar archives, images in their order there."""

    folder: Path
    class_names: tuple[str, ...]  # with bytes that are not UTF-8 escaped
    paths: Sequence[ImagePath]
    labels: Tensor  # int64 (N,)
    left_out: list[Path]  # files that are not images, or in no class folder

    @property
    def cache_folder(self) -> Path:
        """Return the folder for caches, outside the listed folder."""
        return self.folder.parent / CACHE_FOLDER

    def digest(self) -> str:
        """Digest names, sizes and labels of all images."""
        return digest_files(self.paths, str(self.folder), self.labels.tolist())


def list_class_folders(folder: Path) -> LabeledImages:
    """List class folders, each recursively; ValueError if there is none, or one without images.

    Torchvision's `find_classes` and `make_dataset` list hidden folders too, and do not tell what they leave out.
    """
    folders = class_folders(folder)
    if not folders:
        raise ValueError(f"{folder}: must have class folders, as {folder}/CLASS/IMAGE.jpg, got none")
    paths: list[Path] = []
    labels: list[int] = []
    left_out = [path for path in folder.iterdir() if not path.name.startswith(".") and not path.is_dir()]
    for label, name in enumerate(folders):
        files = list_files(folder / name)
        found = [path for path in files if is_image_name(path.name)]
        if not found:
            others = f", got {count_extensions(files)}" if files else ""
            raise ValueError(f"{folder / name}: must have images ({', '.join(sorted(image_extensions()))}){others}")
        paths += found
        labels += [label] * len(found)
        left_out += [path for path in files if not is_image_name(path.name)]
    names = tuple(display_name(name) for name in folders)
    return LabeledImages(folder, names, paths, torch.tensor(labels), left_out)


def class_folders(folder: Path) -> tuple[str, ...]:
    """List the names of the subfolders that are not hidden; none if the folder does not exist."""
    if not folder.is_dir():
        return ()
    names = (path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return tuple(sorted(names, key=os.fsencode))


def check_same_classes(root: Path, train: LabeledImages, test: LabeledImages) -> None:
    """Raise ValueError unless two trees have the same classes in the same order: labels would differ in meaning."""
    if test.class_names == train.class_names:
        return
    if odd := set(test.class_names) ^ set(train.class_names):
        where = f"in only one of {train.folder} and {test.folder}"
        raise ValueError(f"datamodule.root={root}: class {min(odd)} is {where}")
    pairs = enumerate(zip(train.class_names, test.class_names, strict=True))
    number, (one, other) = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
    raise ValueError(
        f"datamodule.root={root}: {train.folder} and {test.folder} number their classes differently: "
        f"class number {number} is {one} and {other}"
    )


def report_left_out(key: str, root: Path, *trees: LabeledImages) -> None:
    """Print in one line how many files of trees are not images of a class, if there are any."""
    left_out = [path for tree in trees for path in tree.left_out]
    if left_out:
        counted = count_extensions(left_out)
        notice(f"datamodule.{key}={root}: {len(left_out)} files left out, which are not images of a class ({counted})")


def square(image: Image.Image, size: int) -> Image.Image:
    """Scale and crop an image to the centre square of a size; an image of that size is returned unchanged."""
    return image if image.size == (size, size) else ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)


def read_trees(trees: Sequence[LabeledImages], image_size: int, in_chans: int) -> list[Tensor]:
    """Read the images of several trees; UnreadableImages lists the unreadable ones of all."""
    images: list[Tensor] = []
    problems: list[str] = []
    for tree in trees:
        try:
            images.append(read_images(tree, image_size, in_chans))
        except UnreadableImages as error:
            problems += error.problems
    if problems:
        raise UnreadableImages(problems, sum(len(tree.paths) for tree in trees))
    return images


def read_images(found: LabeledImages, image_size: int, in_chans: int) -> Tensor:
    """Read images as uint8 (N, in_chans, image_size, image_size), from the cache if the tree is unchanged.

    Other sizes are scaled and cropped to the centre square. If no cache can be written, a warning is logged.
    Raises UnreadableImages: some cannot be decoded.
    """
    cache = found.cache_folder / f"{found.folder.name}-{in_chans}x{image_size}x{image_size}.npz"
    key = _state_of(found)
    images = _read_cache(cache, key)
    if images is None:
        images = _decode(found.paths, image_size, in_chans)
        save = partial(np.savez, images=images, key=np.array(key))
        write_cache(cache, save, "images will be decoded again in every run")
    return torch.from_numpy(images)


def _state_of(found: LabeledImages) -> str:
    """Hash the names, sizes and times of change of a tree's files."""
    digest = hashlib.sha256(f"{CACHE_VERSION}.{READER_VERSION}".encode())
    for path, status in zip(found.paths, file_status(found.paths).tolist(), strict=True):
        digest.update(os.fsencode(f"{os.path.relpath(str(path), found.folder)}\0{status}\0"))
    return digest.hexdigest()


def _decode(paths: Sequence[ImagePath], image_size: int, in_chans: int) -> np.ndarray:
    images = np.empty((len(paths), in_chans, image_size, image_size), dtype=np.uint8)
    problems: dict[int, str] = {}

    def decode(numbers: np.ndarray) -> None:
        for number in numbers:
            try:
                image = square(read_image(paths[number], in_chans), image_size)
            except ValueError as error:
                problems[int(number)] = str(error)
                continue
            images[number] = np.asarray(image).reshape(image_size, image_size, in_chans).transpose(2, 0, 1)

    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as threads:
        list(threads.map(decode, np.array_split(np.arange(len(paths)), workers)))  # raises a thread's exception
    if problems:
        raise UnreadableImages([problems[number] for number in sorted(problems)], len(paths))
    return images


def _read_cache(cache: Path, key: str) -> np.ndarray | None:
    """Read the cached images; None if there are none, the tree has changed, or the cache is damaged."""
    try:
        with np.load(cache, allow_pickle=False) as saved:
            return saved["images"] if str(saved["key"]) == key else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
