"""The array path: small images as one uint8 tensor, batched and augmented where they lie."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from ghostexp.data.augment import Augmentation, Normalise, crop, erase, erasing_boxes, flip, rand_augment
from ghostexp.data.digest import digest_arrays
from ghostexp.data.folder import ClassFolders
from ghostexp.data.loader import Batch, Loader
from ghostexp.data.mix import mix_batch
from ghostexp.data.plan import Share, TrainPlan

SHARE_OF_FREE_MEMORY = 0.25  # of a GPU: what the images may take


class ArrayImages:
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
            if self.images.nbytes <= SHARE_OF_FREE_MEMORY * free:
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

    def normalise(self) -> Normalise:
        """The normalisation of these images, on their device."""
        return Normalise(self.mean, self.std, self.images.device)

    def train_loader(self, plan: TrainPlan, augmentation: Augmentation, num_classes: int) -> Loader[Batch]:
        """Augmented batches along the plan."""
        return ArrayTrainLoader(self, plan, augmentation, num_classes)

    def eval_loader(self, indices: Tensor, share: Share) -> Loader[Batch]:
        """The images at indices, in that order, without augmentation."""
        return ArrayEvalLoader(self, indices, share)


@dataclass(frozen=True)
class Chances:
    """What chance decides in an epoch, by position, on the device of the images."""

    order: Tensor  # (N,), which image
    corners: Tensor  # (N, 2), top and left of its crop
    flipped: Tensor  # (N,)
    boxes: Tensor  # (N, 4), what is erased
    seeds: Tensor  # (N,), on the CPU


class ArrayTrainLoader(Loader[Batch]):
    """Training batches of float32 images (N, C, H, W), contiguous, on the device of the tensor."""

    def __init__(self, data: ArrayImages, plan: TrainPlan, augmentation: Augmentation, num_classes: int) -> None:
        self.data = data
        self.plan = plan
        self.augmentation = augmentation
        self.num_classes = num_classes
        self.normalise = data.normalise()
        self.rand_augment = v2.RandAugment(augmentation.randaugment, augmentation.magnitude)

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[Batch]:
        epoch, done = self.plan.position()
        chances = self._chances(epoch)
        for step in range(done, len(self)):
            chosen = self.plan.take(chances.order, step)
            images = self._augmented(self.data.images.index_select(0, chosen), chances, step)
            labels = self.data.labels.index_select(0, chosen)
            yield mix_batch(images, labels, self.num_classes, self.plan.mix(epoch, step))

    def _chances(self, epoch: int) -> Chances:
        device = self.data.images.device
        uniforms = self.plan.uniforms(epoch)
        boxes = erasing_boxes(uniforms[:, 3:], self.augmentation.erasing, *self.data.images.shape[2:])
        return Chances(
            order=self.plan.order(epoch).to(device),
            corners=(uniforms[:, :2] * (2 * self.augmentation.crop + 1)).long().to(device),
            flipped=(uniforms[:, 2] < 0.5).to(device),
            boxes=boxes.to(device),
            seeds=self.plan.seeds(epoch),
        )

    def _augmented(self, images: Tensor, chances: Chances, step: int) -> Tensor:
        wanted, take = self.augmentation, self.plan.take
        if wanted.crop:
            images = crop(images, take(chances.corners, step), wanted.crop)
        if wanted.flip:
            images = flip(images, take(chances.flipped, step))
        if wanted.randaugment:
            images = rand_augment(images, take(chances.seeds, step).tolist(), self.rand_augment)
        images = self.normalise(images)
        return erase(images, take(chances.boxes, step)) if wanted.erasing else images


class ArrayEvalLoader(Loader[Batch]):
    """Batches for evaluation, always from the first."""

    def __init__(self, data: ArrayImages, indices: Tensor, share: Share) -> None:
        self.data = data
        self.indices = indices.to(data.images.device)
        self.spans = share.eval_spans(len(indices))
        self.normalise = data.normalise()

    def __len__(self) -> int:
        return len(self.spans)

    def __iter__(self) -> Iterator[Batch]:
        for start, stop in self.spans:
            chosen = self.indices[start:stop]
            images = self.normalise(self.data.images.index_select(0, chosen))
            yield images, self.data.labels.index_select(0, chosen)
