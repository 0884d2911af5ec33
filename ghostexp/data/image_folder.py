"""Any tree of class folders: `train/`, and `test/` or `val/`, as ImageNet has them."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ghostexp.data.arrays import ArrayImages
from ghostexp.data.base import Channels, Images
from ghostexp.data.checks import require, require_whole
from ghostexp.data.files import FileImages
from ghostexp.data.folder import ClassFolders, class_folders, find_images, read_trees, say_left_out
from ghostexp.data.module import ImageDataModule, ImageSet

log = logging.getLogger(__name__)

LARGEST_IN_MEMORY = 64  # image_size up to which a tree is decoded once and kept as an array
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


@dataclass(kw_only=True, eq=False, repr=False)
class ImageFolder(ImageDataModule):
    """Images up to 64 x 64 are kept as an array; larger ones come from workers, by random resized crops.

    The test set is `test/`, or `val/` where `test/` has no class folders (ImageNet's has no labels).
    """

    root: str
    num_workers: int = 4  # for images larger than 64

    def __post_init__(self) -> None:
        require(isinstance(self.root, str) and bool(self.root), "root", self.root, "a folder is needed")
        require_whole("num_workers", self.num_workers, 0)
        super().__post_init__()
        require(self.in_chans in (1, 3), "in_chans", self.in_chans, "1 (grey) or 3 (colour)")
        if self.image_size > LARGEST_IN_MEMORY:
            needed = f"images of {self.image_size} get random resized crops; set datamodule.crop=0"
            require(self.crop == 0, "crop", self.crop, needed)

    def prepare_data(self) -> None:
        """Decode a small tree once for all processes."""
        self._load()

    def read(self) -> Images:
        """List both parts, and decode them if they are small."""
        root = Path(self.root)
        require(root.is_dir(), "root", root, "no such folder")
        train = find_images(root / "train")
        count = len(train.class_names)
        require(count > 1, "root", root, f"{train.folder} has 1 class folder; at least 2 are needed")
        self.expect("num_classes", count, f"{train.folder} has {count} class folders")
        test = find_images(self._test_folder(root))
        if test.class_names != train.class_names:
            odd = min(set(test.class_names) ^ set(train.class_names))
            raise ValueError(f"datamodule.root={root}: class {odd} is in only one of {train.folder} and {test.folder}")
        say_left_out("root", root, train, test)
        trained, tested = self._images(train, test)
        return Images(trained, tested, train.class_names)

    def _test_folder(self, root: Path) -> Path:
        if not class_folders(root / "test"):
            return root / "val"
        if class_folders(root / "val"):
            log.warning("%s is not used: the test set is %s", root / "val", root / "test")
        return root / "test"

    def _images(self, *trees: ClassFolders) -> Iterator[ImageSet]:
        if self.image_size > LARGEST_IN_MEMORY:
            yield from map(self._files, trees)
            return
        for tree, images in zip(trees, read_trees(trees, self.image_size, self.in_chans), strict=True):
            yield ArrayImages(images, tree.labels, *self.normalisation(), tree)

    def default_normalisation(self) -> tuple[Channels, Channels]:
        """ImageNet's, the mean over its channels for grey images."""
        return (MEAN, STD) if self.in_chans == 3 else ((sum(MEAN) / 3,), (sum(STD) / 3,))

    def eval_transform(self) -> Callable[[Image.Image], Tensor]:
        """As images of that size are read: small ones like the array, large ones like the workers."""
        if self.image_size <= LARGEST_IN_MEMORY:
            return super().eval_transform()
        return self._files(ClassFolders(Path(self.root), (), [], torch.empty(0), [])).eval_transform()

    def _files(self, tree: ClassFolders) -> FileImages:
        mean, std = self.normalisation()
        return FileImages(
            tree,
            image_size=self.image_size,
            in_chans=self.in_chans,
            mean=mean,
            std=std,
            num_workers=self.num_workers,
        )
