"""Image files too large for memory, decoded and transformed by DataLoader workers."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from ghostexp.data.dataloader import (
    Batch,
    BatchSpec,
    EvalBatchSampler,
    MultiprocessLoader,
    ResumableLoader,
    TrainBatchSampler,
)
from ghostexp.data.digest import digest_files
from ghostexp.data.image_check import find_unreadable
from ghostexp.data.image_files import read_image
from ghostexp.data.image_folders import ClassFolders
from ghostexp.data.sampling import DistributedBatches, EpochSampler
from ghostexp.data.transforms import Augmentation, mix_batch, seeded

EVAL_RESIZE = 256 / 224  # ratio of the shorter side to the centre crop


class ImageFileDataset:
    """The images of class folders; in_chans is 1 (grey) or 3, mean and std are of channels in [0, 1]."""

    def __init__(
        self,
        tree: ClassFolders,
        *,
        image_size: int,
        in_chans: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        num_workers: int,
    ) -> None:
        # A list would be copied into every worker, page by page.
        self.paths = np.array([str(path) for path in tree.paths])
        self.labels = tree.labels
        self.folder = tree.folder
        self.cache = tree.cache_folder / f"{tree.folder.name}-readable.npy"
        self.image_size = image_size
        self.in_chans = in_chans
        self.to_tensor = float_tensor(mean, std)
        self.num_workers = num_workers
        self.pin_memory = False

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Self:
        """Use pinned memory if device is a GPU; batches are made on the CPU."""
        self.pin_memory = device.type == "cuda"
        return self

    def digest(self) -> str:
        """Digest names, sizes and labels of the files."""
        return digest_files(self.paths.tolist(), str(self.folder), self.labels.tolist())

    def find_unreadable(self, indices: np.ndarray) -> list[str]:
        """Check the files at indices; returns a message for each that cannot be read."""
        return find_unreadable(self.paths[indices].tolist(), self.cache)

    def train_transform(self, augmentation: Augmentation) -> v2.Transform:
        """Build the training transform: random resized crop, then flip, RandAugment, other transforms and erasing."""
        steps: list[v2.Transform] = [v2.RandomResizedCrop(self.image_size)]
        if augmentation.hflip:
            steps.append(v2.RandomHorizontalFlip())
        if (transform := augmentation.of_image()) is not None:
            steps.append(transform)
        steps.append(self.to_tensor)
        if augmentation.random_erasing:
            steps.append(v2.RandomErasing(augmentation.random_erasing))
        return v2.Compose(steps)

    def eval_transform(self) -> v2.Transform:
        """Build the evaluation transform: resize to 8/7 of image_size, then centre crop."""
        resize = v2.Resize(round(self.image_size * EVAL_RESIZE))
        return v2.Compose([resize, v2.CenterCrop(self.image_size), self.to_tensor])

    def train_loader(
        self, sampler: EpochSampler, augmentation: Augmentation, num_classes: int
    ) -> ResumableLoader[Batch]:
        """Build the loader of augmented batches."""
        load_batch = FileBatches(self, self.train_transform(augmentation), num_classes)
        return self._loader(load_batch, TrainBatchSampler(sampler))

    def eval_loader(self, indices: Tensor, distributed_batches: DistributedBatches) -> ResumableLoader[Batch]:
        """Build the loader of the images at indices, in that order, without augmentation."""
        load_batch = FileBatches(self, self.eval_transform(), num_classes=0)
        return self._loader(load_batch, EvalBatchSampler(indices, distributed_batches))

    def _loader(
        self, load_batch: "FileBatches", batch_sampler: TrainBatchSampler | EvalBatchSampler
    ) -> MultiprocessLoader[Batch]:
        return MultiprocessLoader(load_batch, batch_sampler, num_workers=self.num_workers, pin_memory=self.pin_memory)


class FileBatches:
    """Loads batches of files; runs in the workers."""

    def __init__(self, data: ImageFileDataset, transform: Callable[[Image.Image], Tensor], num_classes: int) -> None:
        self.data = data
        self.transform = transform
        self.num_classes = num_classes

    def __call__(self, spec: BatchSpec) -> Batch:
        """Load the batch of a spec; ValueError with the path of an image that cannot be read."""
        images = torch.stack([self._image(index, seed) for index, seed in spec.images()])
        labels = self.data.labels[spec.indices]
        return mix_batch(images, labels, self.num_classes, spec.mix)

    def _image(self, index: int, seed: int | None) -> Tensor:
        image = read_image(Path(self.data.paths[index]), self.data.in_chans)
        with nullcontext() if seed is None else seeded(seed):
            return self.transform(image)


def float_tensor(mean: tuple[float, ...], std: tuple[float, ...]) -> v2.Transform:
    """Build the transform from image to normalised float32 (C, H, W); mean and std are of channels in [0, 1]."""
    return v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
