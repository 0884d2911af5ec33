"""CIFAR-10 and CIFAR-100, from torchvision's download, the original pickles, or class folders."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from ghostexp.data.base import Channels
from ghostexp.data.classification_datamodule import ClassificationDataModule
from ghostexp.data.image_folders import check_same_classes, list_class_folders, read_trees, report_left_out
from ghostexp.data.in_memory import InMemoryDataset
from ghostexp.data.splits import DatasetSplits
from ghostexp.validation import require

SIZE = 32
ARRAY_PARTS = ("numpy.ndarray", "numpy.dtype", "numpy.core.multiarray._reconstruct", "numpy.core.numeric._frombuffer")
ARRAY_PARTS += ("_codecs.encode",)


@dataclass(kw_only=True, eq=False, repr=False)
class Cifar(ClassificationDataModule):
    """Base of both; root has `cifar-10-batches-py/` (`cifar-100-python/`), or `train/` and `test/`."""

    root: str
    download: bool = True  # if root has no data

    source: ClassVar[type[datasets.CIFAR10]]  # torchvision's names, addresses and checksums
    name: ClassVar[str]
    classes: ClassVar[int]
    channel_mean: ClassVar[Channels]
    channel_std: ClassVar[Channels]

    def __post_init__(self) -> None:
        require(isinstance(self.root, str) and bool(self.root), "root", self.root, "must be a folder")
        super().__post_init__()
        self.check_matches_config("num_classes", self.classes, f"{self.name} has {self.classes} classes")
        self.check_matches_config("in_chans", 3, f"{self.name} is in colour")
        self.check_matches_config("image_size", SIZE, f"{self.name} has images of {SIZE} x {SIZE}")

    def prepare_data(self) -> None:
        """Download into root if it has no data, and decode class folders once for all processes."""
        root = Path(self.root)
        if self._pickles() is None and not (root / "train").is_dir():
            self._download(root)
        self._load()

    def _download(self, root: Path) -> None:
        found = sorted(entry.name for entry in root.iterdir()) if root.is_dir() else []
        if set(found) - {self.source.filename}:
            listed = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
            raise ValueError(
                f"datamodule.root={root}: must have {self.source.base_folder}/, or train/ and test/, got {listed}"
            )
        require(self.download, "root", root, f"no {self.name} there; set datamodule.download=true to download it")
        try:
            self.source(str(root), download=True)
        except (OSError, RuntimeError) as error:  # RuntimeError: the checksum is wrong
            raise ValueError(
                f"datamodule.root={root}: no {self.name} there, and the download failed ({error}); "
                f"unpack {self.source.url} there"
            ) from error

    def default_normalisation(self) -> tuple[Channels, Channels]:
        """Return mean and std of the training images."""
        return self.channel_mean, self.channel_std

    def read(self) -> DatasetSplits:
        """Read training and test set from the pickles or the class folders."""
        folder = self._pickles()
        return self._read_class_folders() if folder is None else self._read_pickles(folder)

    @property
    def data_format(self) -> str:
        """Return what the images are read from: the authors' files, or class folders of any others."""
        return "class folders" if self._pickles() is None else "original files"

    def _pickles(self) -> Path | None:
        """Return the folder with the original files, which may be root itself; None if there is none."""
        root = Path(self.root)
        if (root / self.source.base_folder).is_dir():
            return root / self.source.base_folder
        names = [name for name, _ in self.source.train_list + self.source.test_list]
        return root if any((root / name).is_file() for name in names) else None

    def _read_pickles(self, folder: Path) -> DatasetSplits:
        """Read the original files; torchvision's reader names no damaged file, and accepts only its own checksums."""
        names = _unpickle(folder / self.source.meta["filename"], [self.source.meta["key"]])[0]
        parts = []
        for files in (self.source.train_list, self.source.test_list):
            read = [_read_batch(folder / name, len(names)) for name, _ in files]
            images, labels = (torch.cat(tensors) for tensors in zip(*read, strict=True))
            parts.append(InMemoryDataset(images, labels, *self.mean_std()))
        self.check_matches_config("num_classes", len(names), f"{folder} has {len(names)} classes")
        return DatasetSplits(*parts, class_names=tuple(names))

    def _read_class_folders(self) -> DatasetSplits:
        trees = [list_class_folders(Path(self.root) / part) for part in ("train", "test")]
        for tree in trees:
            count = len(tree.class_names)
            self.check_matches_config("num_classes", count, f"{tree.folder} has {count} class folders")
        check_same_classes(Path(self.root), *trees)
        report_left_out("root", Path(self.root), *trees)
        parts = [
            InMemoryDataset(images, tree.labels, *self.mean_std(), tree)
            for tree, images in zip(trees, read_trees(trees, SIZE, 3), strict=True)
        ]
        return DatasetSplits(*parts, class_names=trees[0].class_names)


def _read_batch(file: Path, num_classes: int) -> tuple[Tensor, Tensor]:
    """Read images (N, 3, 32, 32) and labels (N,) of one original file."""
    pixels, labels = _unpickle(file, ["data", "labels" if num_classes == 10 else "fine_labels"])
    is_valid = (
        isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.shape == (len(labels), 3 * SIZE**2)
    )
    if not is_valid or not all(0 <= label < num_classes for label in labels):
        raise ValueError(f"{file}: not a CIFAR batch; delete it and unpack the archive again")
    return torch.from_numpy(pixels).view(-1, 3, SIZE, SIZE), torch.tensor(labels)


class _BatchUnpickler(pickle.Unpickler):
    """Reads arrays and plain values: a pickle may call any function, and a run's root may be somebody else's."""

    def find_class(self, module: str, name: str) -> object:
        """Return a class or function that arrays need; UnpicklingError: it is another one."""
        if f"{module.replace('_core', 'core')}.{name}" not in ARRAY_PARTS:
            raise pickle.UnpicklingError(f"calls {module}.{name}")
        return super().find_class(module, name)


def _unpickle(file: Path, keys: list[str]) -> list:
    if not file.is_file():
        raise ValueError(f"{file}: missing; delete its folder to download it again, or unpack the archive there")
    try:
        with file.open("rb") as opened:
            entry = _BatchUnpickler(opened, encoding="latin1").load()
        return [entry[key] for key in keys]
    except (pickle.UnpicklingError, EOFError, KeyError, ValueError, TypeError, AttributeError, ImportError) as error:
        raise ValueError(f"{file}: not a CIFAR batch ({error}); delete it and unpack the archive again") from None


class Cifar10(Cifar):
    """50,000 images to train and 10,000 to test, 32 x 32 in colour, of 10 classes."""

    source, name, classes = datasets.CIFAR10, "CIFAR-10", 10
    channel_mean, channel_std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Cifar100(Cifar):
    """50,000 images to train and 10,000 to test, 32 x 32 in colour, of 100 classes."""

    source, name, classes = datasets.CIFAR100, "CIFAR-100", 100
    channel_mean, channel_std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
