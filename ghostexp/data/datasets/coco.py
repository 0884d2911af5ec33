"""COCO, or any set in its layout: folders of images, and a JSON file for each that says what is in them."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ghostexp.data.base import DatasetSplits
from ghostexp.data.coco_annotations import SMALLEST, CocoFile, read_coco
from ghostexp.data.detection_datamodule import DetectionDataModule, DetectionDataset
from ghostexp.data.digest import digest_files
from ghostexp.data.image_check import find_unreadable
from ghostexp.data.image_files import read_annotated_image
from ghostexp.data.image_folders import CACHE_FOLDER
from ghostexp.validation import require

log = logging.getLogger(__name__)


class FileImageSource:
    """Image files, sizes (N, 2) being the heights and widths that they are annotated with."""

    def __init__(self, folder: str, names: list[str], sizes: np.ndarray) -> None:
        self.folder = folder
        self.paths = np.array([os.path.join(folder, name) for name in names])  # a list would be copied into workers
        self.sizes = sizes

    def digest(self) -> str:
        """Digest names and sizes of the files."""
        return digest_files(self.paths.tolist(), self.folder, self.sizes.tolist())

    def find_unreadable(self, indices: np.ndarray) -> list[str]:
        """Check the files at indices; what is wrong with those that cannot be read or are not those annotated."""
        folder = Path(self.folder)
        cache = folder.parent / CACHE_FOLDER / f"{folder.name}-readable.npy"
        return find_unreadable(self.paths[indices].tolist(), cache, self.sizes[indices])

    def __getitem__(self, index: int) -> Image.Image:
        """Decode a file; ValueError that names it if it is not readable, or not the one that was annotated."""
        height, width = self.sizes[index].tolist()
        return read_annotated_image(Path(self.paths[index]), width, height)


@dataclass(kw_only=True, eq=False, repr=False)
class Coco(DetectionDataModule):
    """The images of two folders, one to train, one to test; labels are categories in the order of their ids."""

    root: str
    train_folder: str = "train2017"
    train_file: str = "annotations/instances_train2017.json"
    test_folder: str = "val2017"  # COCO keeps the boxes of its test sets to itself
    test_file: str = "annotations/instances_val2017.json"
    keep_empty: bool = False  # train on images without boxes too

    def __post_init__(self) -> None:
        for key in ("root", "train_folder", "train_file", "test_folder", "test_file"):
            value = getattr(self, key)
            require(isinstance(value, str) and bool(value), key, value, "a path is needed")
        require(isinstance(self.keep_empty, bool), "keep_empty", self.keep_empty, "true or false is needed")
        super().__post_init__()

    def read(self) -> DatasetSplits[DetectionDataset]:
        """Read both annotation files, and look whether their images are there."""
        require(Path(self.root).is_dir(), "root", self.root, "no such folder")
        for key in ("train_folder", "test_folder", "train_file", "test_file"):
            path = Path(self.root, getattr(self, key))
            is_there = path.is_dir() if key.endswith("folder") else path.is_file()
            require(is_there, key, getattr(self, key), f"there is no {path}")
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
            counted = f"{len(missing)} of {len(found.file_names)} are not there"
            raise ValueError(f"{folder / missing[0]}: no such image, but {file} lists it ({counted})")
        if not found.annotations.has_objects().any():
            raise ValueError(f"{file}: no image has a box of a single object that has a size")
        return found

    def _images(self, folder_key: str, found: CocoFile) -> DetectionDataset:
        folder = os.path.join(self.root, getattr(self, folder_key))
        return self.image_set(FileImageSource(folder, found.file_names, found.annotations.sizes), found.annotations)

    def filter_train_indices(self, train: DetectionDataset, indices: np.ndarray) -> np.ndarray:
        """Images with objects, or all; objects that scaling makes too small are none."""
        annotations = train.annotations
        too_small = annotations.too_small(self.image_size, self.max_size)
        if too_small.any():
            log.warning(
                "%s: %d of %d boxes are not trained on: their sides are below %g pixel once images are scaled to "
                "datamodule.image_size=%d",
                Path(self.root, self.train_file),
                too_small.sum(),
                len(too_small),
                SMALLEST,
                self.image_size,
            )
        return indices if self.keep_empty else indices[annotations.has_objects(too_small)[indices]]


def missing_files(folder: Path, names: list[str]) -> list[str]:
    """Those names, which may have folders in them, that are no files in a folder; each folder is listed but once."""
    listed: dict[str, set[str]] = {}
    missing = []
    for name in names:
        within, _, last = name.rpartition("/")
        if within not in listed:
            place = folder / within
            listed[within] = set(os.listdir(place)) if place.is_dir() else set()
        if last not in listed[within]:
            missing.append(name)
    return missing
