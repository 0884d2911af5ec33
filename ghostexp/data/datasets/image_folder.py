"""Any data set of class folders, or of tar files: `train/`, and `test/` or `val/`, as ImageNet has them."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ghostexp.data.base import Channels
from ghostexp.data.classification_datamodule import ClassificationDataModule, ClassificationDataset
from ghostexp.data.image_file_dataset import ImageFileDataset
from ghostexp.data.image_folders import (
    LabeledImages,
    check_same_classes,
    class_folders,
    list_class_folders,
    read_trees,
    report_left_out,
)
from ghostexp.data.in_memory import InMemoryDataset
from ghostexp.data.resized_images import ResizedImages
from ghostexp.data.splits import DatasetSplits
from ghostexp.data.tar_shards import find_shards, list_shards
from ghostexp.validation import require, require_int

log = logging.getLogger(__name__)

LARGEST_IN_MEMORY = 64  # largest image_size of data sets that are decoded once and kept in memory
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


@dataclass(kw_only=True, eq=False, repr=False)
class ImageFolder(ClassificationDataModule):
    """Images up to 64 x 64 are kept in memory; workers load larger ones, with random resized crops.

    The test set is `test/`, or `val/` where `test/` has no class folders or tar files (ImageNet's has no labels).
    """

    root: str
    num_workers: int | None = None  # for images larger than 64; None: as many as CPU threads
    cache_short_side: int | None = None  # training images are resized to it once, and cached
    cache_dir: str | None = None  # of that cache; None: .ghostexp in root

    def __post_init__(self) -> None:
        require(isinstance(self.root, str) and bool(self.root), "root", self.root, "must be a folder")
        if self.num_workers is not None:
            require_int("num_workers", self.num_workers, 0)
        super().__post_init__()
        require(self.in_chans in (1, 3), "in_chans", self.in_chans, "must be 1 (grey) or 3 (colour)")
        if self.image_size > LARGEST_IN_MEMORY:
            expected = f"images of {self.image_size} get random resized crops; set datamodule.crop_padding=0"
            require(self.crop_padding == 0, "crop_padding", self.crop_padding, expected)
        if self.cache_short_side is not None:
            is_large = self.image_size > LARGEST_IN_MEMORY
            expected = f"images of {self.image_size} are kept in memory; set datamodule.cache_short_side=null"
            require(is_large, "cache_short_side", self.cache_short_side, expected)
            require_int("cache_short_side", self.cache_short_side, self.image_size)
        if self.cache_dir is not None:
            is_path = isinstance(self.cache_dir, str) and bool(self.cache_dir)
            require(is_path, "cache_dir", self.cache_dir, "must be a folder or null")
            is_used = self.cache_short_side is not None
            require(is_used, "cache_dir", self.cache_dir, "needs datamodule.cache_short_side, such as 256")

    def prepare_data(self) -> None:
        """Decode small images once for all processes."""
        self._load()

    def read(self) -> DatasetSplits:
        """List training and test set, and decode small images."""
        root = Path(self.root)
        require(root.is_dir(), "root", root, "no such folder")
        is_sharded = not class_folders(root / "train") and bool(find_shards(root / "train"))
        list_images = list_shards if is_sharded else list_class_folders
        train = list_images(root / "train")
        count = len(train.class_names)
        require(count > 1, "root", root, f"must have at least 2 classes, {train.folder} has 1")
        self.check_matches_config("num_classes", count, f"{train.folder} has {count} classes")
        test = list_images(self._test_folder(root, find_shards if is_sharded else class_folders))
        check_same_classes(root, train, test)
        report_left_out("root", root, train, test)
        trained, tested = self._images(train, test)
        return DatasetSplits(trained, tested, train.class_names)

    def _test_folder(self, root: Path, find: Callable[[Path], Sequence[object]]) -> Path:
        """Choose the folder of the test set; find: finds class folders, or tar files, whatever the training set has."""
        if not find(root / "test"):
            return root / "val"
        if find(root / "val"):
            log.warning("%s is not used: the test set is %s", root / "val", root / "test")
        return root / "test"

    def _images(self, train: LabeledImages, test: LabeledImages) -> Iterator[ClassificationDataset]:
        if self.image_size > LARGEST_IN_MEMORY:
            yield self._files(train, self._resized(train))
            yield self._files(test)
            return
        trees = train, test
        for tree, images in zip(trees, read_trees(trees, self.image_size, self.in_chans), strict=True):
            yield InMemoryDataset(images, tree.labels, *self.mean_std(), tree)

    def _resized(self, train: LabeledImages) -> ResizedImages | None:
        """Build the cache of resized training images, if there is one."""
        if self.cache_short_side is None:
            return None
        folder = Path(self.cache_dir) if self.cache_dir else train.cache_folder
        name = f"{train.folder.name}-{self.in_chans}x{self.cache_short_side}"
        return ResizedImages(folder / name, str(train.folder), self.cache_short_side)

    def default_normalisation(self) -> tuple[Channels, Channels]:
        """Return ImageNet's mean and std, averaged over channels for grey images."""
        return (MEAN, STD) if self.in_chans == 3 else ((sum(MEAN) / 3,), (sum(STD) / 3,))

    def eval_transform(self) -> Callable[[Image.Image], Tensor]:
        """Build the transform of the test set: of the in-memory or the file data set, by image_size."""
        if self.image_size <= LARGEST_IN_MEMORY:
            return super().eval_transform()
        return self._files(LabeledImages(Path(self.root), (), [], torch.empty(0), [])).eval_transform()

    def _files(self, tree: LabeledImages, resized: ResizedImages | None = None) -> ImageFileDataset:
        mean, std = self.mean_std()
        return ImageFileDataset(
            tree,
            image_size=self.image_size,
            in_chans=self.in_chans,
            mean=mean,
            std=std,
            num_workers=self.num_workers,
            resized=resized,
        )
