"""Any map-style torch Dataset of images and classes, as a training and a test set."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import pil_to_tensor

from ghostexp.data.base import Channels
from ghostexp.data.classification_datamodule import ClassificationDataModule
from ghostexp.data.dataloader import (
    Batch,
    BatchSpec,
    EvalBatchSampler,
    MultiprocessLoader,
    ResumableLoader,
    TrainBatchSampler,
)
from ghostexp.data.digest import digest_arrays
from ghostexp.data.image_files import to_8_bits
from ghostexp.data.image_folders import square
from ghostexp.data.sampling import DistributedBatches, EpochSampler
from ghostexp.data.splits import DatasetSplits
from ghostexp.data.transforms import Augmentation, Normalize, all_seeded, mix_batch
from ghostexp.validation import require, require_int

DIGESTED = 64  # images of a set, evenly spaced, whose values are digested


@dataclass(kw_only=True, eq=False, repr=False)
class TorchDataset(ClassificationDataModule):
    """Two torch Datasets of (image, class): images are PIL, uint8 (C, H, W), or float tensors, used as they are.

    PIL images are scaled to image_size; they and uint8 images are augmented, and normalised by mean and std.
    Workers draw all random numbers of torch, NumPy and Python from (seed, epoch, position), so that a resume is exact.
    """

    train: Any = field(default_factory=dict)
    test: Any = field(default_factory=dict)
    num_workers: int = 0

    def __post_init__(self) -> None:
        require_int("num_workers", self.num_workers, 0)
        super().__post_init__()
        for key in ("train", "test"):
            data, name = getattr(self, key), type(getattr(self, key)).__name__
            is_map = hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, dict)
            require(is_map, f"{key}._target_", name, "must be a map-style Dataset, with __getitem__ and __len__")

    def default_normalisation(self) -> tuple[Channels, Channels]:
        """Return mean 0 and std 1."""
        return (0.0,) * self.in_chans, (1.0,) * self.in_chans

    def read(self) -> DatasetSplits:
        """Read the labels, and check the classes and the first image of each set."""
        names = getattr(self.train, "classes", None) or range(self.num_classes)
        found = len(names)
        self.check_matches_config("num_classes", found, f"{type(self.train).__name__} has {found} classes")
        self._check_same_classes()
        sets = [
            MapDataset(data, self, f"datamodule.{key}") for key, data in (("train", self.train), ("test", self.test))
        ]
        return DatasetSplits(*sets, class_names=tuple(str(name) for name in names))

    def _check_same_classes(self) -> None:
        """Raise ValueError if both Datasets name their classes, and differently."""
        train_names, test_names = (getattr(data, "classes", None) for data in (self.train, self.test))
        if not train_names or not test_names:
            return
        for number, (train, test) in enumerate(zip_longest(train_names, test_names, fillvalue="missing")):
            if train != test:
                raise ValueError(f"datamodule.test: class {number} is {test}, but {train} in datamodule.train")

    def eval_transform(self) -> Callable[[Image.Image], Tensor]:
        """Build the transform of the test set.

        Raises ValueError: the Datasets prepare their images themselves.
        """
        if isinstance(self.test[0][0], Tensor) and self.test[0][0].is_floating_point():
            raise ValueError(
                f"datamodule.test: {type(self.test).__name__} returns float images, so that it is not known how to "
                "prepare others; return PIL images or uint8 tensors"
            )
        return super().eval_transform()


class MapDataset:
    """The images and labels of a torch Dataset."""

    def __init__(self, data: Dataset, module: TorchDataset, key: str) -> None:
        self.data: Any = data
        self.key = key
        self.shape = (module.in_chans, module.image_size, module.image_size)
        self.num_classes = module.num_classes
        self.num_workers = module.num_workers
        self.mean = module.mean_std()[0]
        self.normalize = Normalize(*module.mean_std(), torch.device("cpu"))
        self.pin_memory = False
        require(len(self.data) > 0, key.rpartition(".")[2], type(data).__name__, "must not be empty")
        self.image(0, None)
        self.labels = self._labels()

    def _labels(self) -> Tensor:
        """Return the classes from `targets` or `labels`, with `target_transform`, or by reading all items."""
        known = next(
            (found for name in ("targets", "labels") if (found := getattr(self.data, name, None)) is not None), None
        )
        self.has_list = known is not None
        with all_seeded(0):
            if known is not None and (change := getattr(self.data, "target_transform", None)) is not None:
                known = [change(label) for label in known]
            labels = [self.data[index][1] for index in range(len(self.data))] if known is None else known
        try:
            found = torch.as_tensor([int(label) for label in labels])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.key}: labels must be integers, got {type(labels[0]).__name__}") from error
        if len(found) != len(self.data) or int(found.min()) < 0 or int(found.max()) >= self.num_classes:
            raise ValueError(
                f"{self.key}: must have {len(self.data)} labels from 0 to {self.num_classes - 1} "
                f"(datamodule.num_classes), got {len(found)} from {int(found.min())} to {int(found.max())}"
            )
        return found

    def __len__(self) -> int:
        return len(self.data)

    def to(self, device: torch.device) -> Self:
        """Use pinned memory if device is a GPU; batches are made on the CPU."""
        self.pin_memory = device.type == "cuda"
        return self

    def digest(self) -> str:
        """Digest the labels, and some images.

        Raises ValueError: an item has another label than `targets` or `labels`.
        """
        indices = np.linspace(0, len(self) - 1, min(DIGESTED, len(self))).round().astype(int).tolist()
        images = []
        for index in indices:
            with all_seeded(index):
                image, label = self.data[index]
            if self.has_list and int(label) != self.labels[index]:
                raise ValueError(
                    f"{self.key}: item {index} of {type(self.data).__name__} has the label {int(label)}, and its "
                    f"targets or labels have {int(self.labels[index])}; correct these, or remove them"
                )
            images.append(image)
        return digest_arrays(self.labels.numpy(), *(np.ascontiguousarray(np.asarray(image)) for image in images))

    def find_unreadable(self, indices: np.ndarray) -> list[str]:
        """Return no problems: only the Dataset itself knows its files."""
        return []

    def image(self, index: int, seed: int | None, transform: v2.Transform | None = None) -> Tensor:
        """Return an image (C, H, W), float32 and normalised.

        Raises ValueError: it is no image of the configured shape.
        """
        with all_seeded(index if seed is None else seed):
            item = self.data[index]
            image = item[0] if isinstance(item, list | tuple) and len(item) == 2 else None
            if isinstance(image, Image.Image):
                image = pil_to_tensor(square(self._to_8_bits(image, index), self.shape[1]))
            if not isinstance(image, Tensor) or tuple(image.shape) != self.shape:
                found = tuple(image.shape) if isinstance(image, Tensor) else type(item).__name__
                shape = " x ".join(str(side) for side in self.shape)
                raise ValueError(
                    f"{self.key}: {type(self.data).__name__} must return (image, class), with images {shape} "
                    f"(datamodule.in_chans, datamodule.image_size), got {found}"
                )
            if image.dtype != torch.uint8 and not image.is_floating_point():
                raise ValueError(
                    f"{self.key}: {type(self.data).__name__} must return PIL images, or uint8 or float tensors, got "
                    f"{image.dtype}"
                )
            image = image if transform is None else transform(image)
            return self.normalize(image) if image.dtype == torch.uint8 else image.float()

    def _to_8_bits(self, image: Image.Image, index: int) -> Image.Image:
        try:
            if image.mode in ("I", "F"):  # of an array; those of 16-bit files are I;16
                low, high = np.asarray(image).min(), np.asarray(image).max()
                if not (low >= 0 and high <= 255):
                    raise ValueError(f"values of mode {image.mode} must be in [0, 255], got {low:g} to {high:g}")
                image = image.convert("L")
            return to_8_bits(image, self.shape[0])
        except ValueError as error:
            raise ValueError(f"{self.key}: image {index} of {type(self.data).__name__}: {error}") from None

    def train_loader(
        self, sampler: EpochSampler, augmentation: Augmentation, num_classes: int
    ) -> ResumableLoader[Batch]:
        """Build the loader of augmented batches."""
        steps: list[Any] = []
        if augmentation.crop_padding:
            steps.append(v2.RandomCrop(self.shape[1], augmentation.crop_padding))
        if augmentation.hflip:
            steps.append(v2.RandomHorizontalFlip())
        if (transform := augmentation.of_image()) is not None:
            steps.append(transform)
        if augmentation.random_erasing:
            fill = [round(255 * mean) for mean in self.mean]
            steps.append(v2.RandomErasing(augmentation.random_erasing, value=fill))  # pyright: ignore[reportArgumentType]
        with all_seeded(0):
            first = self.data[0][0]
        if steps and isinstance(first, Tensor) and first.is_floating_point():
            raise ValueError(
                f"{self.key}: {type(self.data).__name__} returns float images, which are used as they are; leave out "
                "the augmentation (datamodule.crop_padding, hflip, ...), or return PIL images or uint8 tensors"
            )
        batches = DatasetBatches(self, v2.Compose(steps) if steps else None, num_classes)
        return self._loader(batches, TrainBatchSampler(sampler))

    def eval_loader(self, indices: Tensor, distributed_batches: DistributedBatches) -> ResumableLoader[Batch]:
        """Build the loader of the images at indices, in that order, without augmentation."""
        return self._loader(DatasetBatches(self, None, 0), EvalBatchSampler(indices, distributed_batches))

    def _loader(self, batches: "DatasetBatches", sampler: Any) -> MultiprocessLoader[Batch]:
        return MultiprocessLoader(batches, sampler, num_workers=self.num_workers, pin_memory=self.pin_memory)


class DatasetBatches:
    """Loads batches of a torch Dataset; runs in the workers."""

    def __init__(self, data: MapDataset, transform: v2.Transform | None, num_classes: int) -> None:
        self.data = data
        self.transform = transform
        self.num_classes = num_classes

    def __call__(self, spec: BatchSpec) -> Batch:
        """Load the batch of a spec."""
        images = torch.stack([self.data.image(index, seed, self.transform) for index, seed in spec.images()])
        return mix_batch(images, self.data.labels[spec.indices], self.num_classes, spec.mix)
