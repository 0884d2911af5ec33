"""COCO, or any set in its layout: folders of images, each with a JSON file of annotations."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ghostexp.data.caches import CACHE_FOLDER
from ghostexp.data.coco_annotations import MIN_SIDE
from ghostexp.data.coco_file import CocoFile, read_coco
from ghostexp.data.detection_datamodule import DetectionDataModule, DetectionDataset
from ghostexp.data.digest import digest_files
from ghostexp.data.image_check import find_unreadable
from ghostexp.data.image_files import read_annotated_image
from ghostexp.data.image_paths import ImagePaths
from ghostexp.data.splits import DatasetSplits
from ghostexp.validation import require

log = logging.getLogger(__name__)


class FileImageSource:
    """Image files with their annotated heights and widths, sizes (N, 2)."""

    def __init__(self, folder: str, names: list[str], sizes: np.ndarray) -> None:
        self.folder = folder
        self.paths = ImagePaths([Path(folder, name) for name in names])
        self.sizes = sizes

    def digest(self) -> str:
        """Digest names and sizes of the files."""
        return digest_files(self.paths, self.folder, self.sizes.tolist())

    def find_unreadable(self, indices: np.ndarray) -> list[str]:
        """Check the files at indices; returns a message for each that cannot be read or has not its annotated size."""
        folder = Path(self.folder)
        cache = folder.parent / CACHE_FOLDER / f"{folder.name}-readable.npy"
        return find_unreadable(self.paths[indices], cache, self.sizes[indices])

    def __getitem__(self, index: int) -> Image.Image:
        """Decode a file; ValueError with its path if it cannot be read or has another size than annotated."""
        height, width = self.sizes[index].tolist()
        return read_annotated_image(self.paths[index], width, height)


@dataclass(kw_only=True, eq=False, repr=False)
class Coco(DetectionDataModule):
    """A training and a test folder of images; labels are the categories sorted by id."""

    root: str
    train_folder: str = "train2017"
    train_file: str = "annotations/instances_train2017.json"
    test_folder: str = "val2017"  # COCO's own test sets have no public annotations
    test_file: str = "annotations/instances_val2017.json"
    keep_empty: bool = False  # train on images without boxes too

    def __post_init__(self) -> None:
        for key in ("root", "train_folder", "train_file", "test_folder", "test_file"):
            value = getattr(self, key)
            require(isinstance(value, str) and bool(value), key, value, "must be a path")
        require(isinstance(self.keep_empty, bool), "keep_empty", self.keep_empty, "must be true or false")
        super().__post_init__()

    def read(self) -> DatasetSplits[DetectionDataset]:
        """Read both annotation files, and check that their images exist."""
        require(Path(self.root).is_dir(), "root", self.root, "no such folder")
        for key in ("train_folder", "test_folder", "train_file", "test_file"):
            path = Path(self.root, getattr(self, key))
            exists = path.is_dir() if key.endswith("folder") else path.is_file()
            require(exists, key, getattr(self, key), f"no such file or folder: {path}")
        train = self._read("train_folder", "train_file")
        test = self._read("test_folder", "test_file", is_evaluated=True)
        found, ids = train.class_names, train.annotations.category_ids
        self.check_matches_config("num_classes", len(found), f"{self.train_file} has {len(found)} categories")
        if (found, ids) != (test.class_names, test.annotations.category_ids):
            theirs = zip(test.annotations.category_ids, test.class_names, strict=True)
            odd = min(set(zip(ids, found, strict=True)) ^ set(theirs), key=str)
            raise ValueError(
                f"datamodule.root={self.root}: category {odd[0]}, {odd[1]}, is in only one of "
                f"{self.train_file} and {self.test_file}"
            )
        return DatasetSplits(self._images("train_folder", train), self._images("test_folder", test), found)

    def _read(self, folder_key: str, file_key: str, is_evaluated: bool = False) -> CocoFile:
        file, folder = Path(self.root, getattr(self, file_key)), Path(self.root, getattr(self, folder_key))
        found = read_coco(file, is_evaluated)
        missing = missing_files(folder, found.file_names)
        if missing:
            counted = f"{len(missing)} of {len(found.file_names)} are missing"
            raise ValueError(f"{folder / missing[0]}: no such image, but {file} lists it ({counted})")
        if not found.annotations.has_objects().any():
            raise ValueError(f"{file}: must have a box of a single object with a size, got none")
        return found

    def _images(self, folder_key: str, found: CocoFile) -> DetectionDataset:
        folder = os.path.join(self.root, getattr(self, folder_key))
        return self.build_dataset(FileImageSource(folder, found.file_names, found.annotations.sizes), found.annotations)

    def filter_train_indices(self, train: DetectionDataset, indices: np.ndarray) -> np.ndarray:
        """Select images with objects that scaling does not make too small; with keep_empty, all."""
        annotations = train.annotations
        too_small = annotations.too_small(self.image_size, self.max_size)
        if too_small.any():
            log.warning(
                "%s: %d of %d boxes are not trained on: their sides are below %g pixel once images are scaled to "
                "datamodule.image_size=%d",
                Path(self.root, self.train_file),
                too_small.sum(),
                len(too_small),
                MIN_SIDE,
                self.image_size,
            )
        return indices if self.keep_empty else indices[annotations.has_objects(too_small)[indices]]


def missing_files(folder: Path, names: list[str]) -> list[str]:
    """Return the names, which may include subfolders, that are not files in a folder; lists each subfolder once."""
    listed: dict[str, set[str]] = {}
    missing = []
    for name in names:
        within, _, last = name.rpartition("/")
        if within not in listed:
            path = folder / within
            listed[within] = set(os.listdir(path)) if path.is_dir() else set()
        if last not in listed[within]:
            missing.append(name)
    return missing
