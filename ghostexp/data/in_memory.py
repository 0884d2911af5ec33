"""The array path: small images as one uint8 tensor, batched and augmented where they lie."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from ghostexp.data.base import Batch, ResumableLoader
from ghostexp.data.digest import digest_arrays
from ghostexp.data.image_folders import ClassFolders
from ghostexp.data.sampling import DistributedBatches, EpochSampler
from ghostexp.data.transforms import Augmentation, Normalize, crop, erase, erasing_boxes, flip, mix_batch, rand_augment

MAX_FRACTION_OF_FREE_MEMORY = 0.25  # of a GPU: what the images may take


class InMemoryDataset:
    """Images as uint8 (N, C, H, W) and labels as int64 (N,), with the mean and std of their channels in [0, 1].

    tree: where the images are from; those of none are digested by their values.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        tree: ClassFolders | None = None,
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
        """Move to the device if that is a GPU with memory to spare; otherwise stay, and each batch is moved."""
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if self.images.nbytes <= MAX_FRACTION_OF_FREE_MEMORY * free:
                self.images = self.images.to(device)
                self.labels = self.labels.to(device)
        return self

    def digest(self) -> str:
        """Digest what the images are; the same wherever they are."""
        if self.tree is not None:
            return self.tree.digest()
        return digest_arrays(self.images.cpu().numpy(), self.labels.cpu().numpy())

    def find_unreadable(self, indices: np.ndarray) -> list[str]:
        """None: all are read."""
        return []

    def normalize(self) -> Normalize:
        """The normalisation of these images, on their device."""
        return Normalize(self.mean, self.std, self.images.device)

    def train_loader(
        self, sampler: EpochSampler, augmentation: Augmentation, num_classes: int
    ) -> ResumableLoader[Batch]:
        """Augmented batches along the plan."""
        return InMemoryTrainLoader(self, sampler, augmentation, num_classes)

    def eval_loader(self, indices: Tensor, distributed_batches: DistributedBatches) -> ResumableLoader[Batch]:
        """The images at indices, in that order, without augmentation."""
        return InMemoryEvalLoader(self, indices, distributed_batches)


@dataclass(frozen=True)
class AugmentationParams:
    """What chance decides in an epoch, by position, on the device of the images."""

    order: Tensor  # (N,), which image
    corners: Tensor  # (N, 2), top and left of its crop
    flipped: Tensor  # (N,)
    boxes: Tensor  # (N, 4), what is erased
    seeds: Tensor  # (N,), on the CPU


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
        self.rand_augment = v2.RandAugment(augmentation.randaugment_num_ops, augmentation.randaugment_magnitude)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        epoch, done = self.sampler.progress()
        params = self._make_params(epoch)
        for step in range(done, len(self)):
            chosen = self.sampler.select_micro_batch(params.order, step)
            images = self._augmented(self.data.images.index_select(0, chosen), params, step)
            labels = self.data.labels.index_select(0, chosen)
            yield mix_batch(images, labels, self.num_classes, self.sampler.mix(epoch, step))

    def _make_params(self, epoch: int) -> AugmentationParams:
        device = self.data.images.device
        uniforms = self.sampler.random_uniforms(epoch)
        boxes = erasing_boxes(uniforms[:, 3:], self.augmentation.random_erasing, *self.data.images.shape[2:])
        return AugmentationParams(
            order=self.sampler.permutation(epoch).to(device),
            corners=(uniforms[:, :2] * (2 * self.augmentation.crop_padding + 1)).long().to(device),
            flipped=(uniforms[:, 2] < 0.5).to(device),
            boxes=boxes.to(device),
            seeds=self.sampler.seeds(epoch),
        )

    def _augmented(self, images: Tensor, params: AugmentationParams, step: int) -> Tensor:
        wanted, take = self.augmentation, self.sampler.select_micro_batch
        if wanted.crop_padding:
            images = crop(images, take(params.corners, step), wanted.crop_padding)
        if wanted.hflip:
            images = flip(images, take(params.flipped, step))
        if wanted.randaugment_num_ops:
            images = rand_augment(images, take(params.seeds, step).tolist(), self.rand_augment)
        images = self.normalize(images)
        return erase(images, take(params.boxes, step)) if wanted.random_erasing else images


class InMemoryEvalLoader(ResumableLoader[Batch]):
    """Batches for evaluation, always from the first."""

    def __init__(self, data: InMemoryDataset, indices: Tensor, distributed_batches: DistributedBatches) -> None:
        self.data = data
        self.indices = indices.to(data.images.device)
        self.spans = distributed_batches.eval_ranges(len(indices))
        self.normalize = data.normalize()

    def __len__(self) -> int:
        return len(self.spans)

    def __iter__(self) -> Iterator[Batch]:
        for start, stop in self.spans:
            chosen = self.indices[start:stop]
            images = self.normalize(self.data.images.index_select(0, chosen))
            yield images, self.data.labels.index_select(0, chosen)
