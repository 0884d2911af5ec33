"""Small images in memory: one uint8 tensor, batched and augmented on its device."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ghostexp.data.dataloader import Batch, ResumableLoader
from ghostexp.data.digest import digest_arrays
from ghostexp.data.image_folders import LabeledImages
from ghostexp.data.rand_augment import transform_each
from ghostexp.data.sampling import DistributedBatches, EpochSampler
from ghostexp.data.transforms import (
    Augmentation,
    Normalize,
    crop,
    erase,
    erasing_boxes,
    flip,
    mix_batch,
)

MAX_FRACTION_OF_MEMORY = 0.25  # of a GPU: limit for the images


class InMemoryDataset:
    """Images as uint8 (N, C, H, W) and labels as int64 (N,), with the mean and std of their channels in [0, 1].

    tree: the class folders of the images, which the digest is of; None: the digest is of the values.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        tree: LabeledImages | None = None,
    ) -> None:
        assert images.dtype == torch.uint8
        assert images.ndim == 4
        assert len(images) == len(labels)
        self.images = images
        self.labels = labels
        self.mean = mean
        self.std = std
        self.tree = tree

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Self:
        """Move to a GPU with enough memory; otherwise stay on the CPU, and each batch is moved."""
        if 0 < self.images.nbytes <= MAX_FRACTION_OF_MEMORY * device_memory(device):
            self.images = self.images.to(device)
            self.labels = self.labels.to(device)
        return self

    def digest(self) -> str:
        """Digest the images and labels, independent of their device."""
        if self.tree is not None:
            return self.tree.digest()
        return digest_arrays(self.images.cpu().numpy(), self.labels.cpu().numpy())

    def find_unreadable(self, indices: np.ndarray) -> list[str]:
        """Return no problems: all images have been read."""
        return []

    def normalize(self) -> Normalize:
        """Build the normalisation of these images, on their device."""
        return Normalize(self.mean, self.std, self.images.device)

    def train_loader(
        self, sampler: EpochSampler, augmentation: Augmentation, num_classes: int
    ) -> ResumableLoader[Batch]:
        """Build the loader of augmented batches."""
        return InMemoryTrainLoader(self, sampler, augmentation, num_classes)

    def eval_loader(self, indices: Tensor, distributed_batches: DistributedBatches) -> ResumableLoader[Batch]:
        """Build the loader of the images at indices, in that order, without augmentation."""
        return InMemoryEvalLoader(self, indices, distributed_batches)


def device_memory(device: torch.device) -> int:
    """Return a GPU's total memory in bytes, 0 for other devices. What is free depends on other jobs, as the data would.

    (Where images are augmented decides about rounding.)
    """
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0


@dataclass(frozen=True)
class AugmentationParams:
    """Random parameters of an epoch, by position, on the device of the images."""

    indices: Tensor  # (N,)
    crop_offsets: Tensor  # (N, 2), top and left
    hflip_mask: Tensor  # (N,)
    erase_boxes: Tensor  # (N, 4), see `erase`
    seeds: Tensor  # (N,), of RandAugment and other transforms, on the CPU


class InMemoryTrainLoader(ResumableLoader[Batch]):
    """Training batches of float32 images (N, C, H, W), contiguous, on the device of the tensor."""

    def __init__(
        self, data: InMemoryDataset, sampler: EpochSampler, augmentation: Augmentation, num_classes: int
    ) -> None:
        self.data = data
        self.sampler = sampler
        self.augmentation = augmentation
        self.num_classes = num_classes
        self.normalize = data.normalize()
        self.transform_of_image = augmentation.of_image()

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        epoch, done = self.sampler.progress()
        params = self._make_params(epoch)
        for step in range(done, len(self)):
            chosen = self.sampler.select_micro_batch(params.indices, step)
            images = self._augment(self.data.images.index_select(0, chosen), params, step)
            labels = self.data.labels.index_select(0, chosen)
            yield mix_batch(images, labels, self.num_classes, self.sampler.mix(epoch, step))

    def _make_params(self, epoch: int) -> AugmentationParams:
        device = self.data.images.device
        uniforms = self.sampler.random_uniforms(epoch)
        boxes = erasing_boxes(uniforms[:, 3:], self.augmentation.random_erasing, *self.data.images.shape[2:])
        return AugmentationParams(
            indices=self.sampler.permutation(epoch).to(device),
            crop_offsets=(uniforms[:, :2] * (2 * self.augmentation.crop_padding + 1)).long().to(device),
            hflip_mask=(uniforms[:, 2] < 0.5).to(device),
            erase_boxes=boxes.to(device),
            seeds=self.sampler.seeds(epoch),
        )

    def _augment(self, images: Tensor, params: AugmentationParams, step: int) -> Tensor:
        config, select = self.augmentation, self.sampler.select_micro_batch
        if config.crop_padding:
            images = crop(images, select(params.crop_offsets, step), config.crop_padding)
        if config.hflip:
            images = flip(images, select(params.hflip_mask, step))
        if self.transform_of_image is not None:
            images = transform_each(images, select(params.seeds, step).tolist(), self.transform_of_image)
        images = self.normalize(images)
        return erase(images, select(params.erase_boxes, step)) if config.random_erasing else images


class InMemoryEvalLoader(ResumableLoader[Batch]):
    """Evaluation batches, always from the first on."""

    def __init__(self, data: InMemoryDataset, indices: Tensor, distributed_batches: DistributedBatches) -> None:
        self.data = data
        self.indices = indices.to(data.images.device)
        self.ranges = distributed_batches.eval_ranges(len(indices))
        self.normalize = data.normalize()

    def __len__(self) -> int:
        return len(self.ranges)

    def __iter__(self) -> Iterator[Batch]:
        for start, stop in self.ranges:
            chosen = self.indices[start:stop]
            images = self.normalize(self.data.images.index_select(0, chosen))
            yield images, self.data.labels.index_select(0, chosen)
