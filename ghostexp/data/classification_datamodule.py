"""Base of the classification datamodules: images with a class each, and their augmentation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from ghostexp.data.base import DataModule, SplitDataset
from ghostexp.data.dataloader import Batch, ResumableLoader
from ghostexp.data.image_folders import square
from ghostexp.data.sampling import EpochSampler
from ghostexp.data.transforms import Augmentation, MixupCutmix, Normalize


class ClassificationDataset(SplitDataset, Protocol):
    """Images with labels: `InMemoryDataset` or `ImageFileDataset`."""

    labels: Tensor

    def train_loader(
        self, sampler: EpochSampler, augmentation: Augmentation, num_classes: int
    ) -> ResumableLoader[Batch]: ...


@dataclass(kw_only=True, eq=False, repr=False)
class ClassificationDataModule(DataModule[ClassificationDataset]):
    """Base of the datamodules of classification: a subclass implements `read`.

    Batches are float32 normalised images (N, in_chans, image_size, image_size) and int64 classes (N,), or with Mixup
    or CutMix float probabilities (N, num_classes).
    """

    crop_padding: int = 0  # pixels of zero-padding
    hflip: bool = False
    random_erasing: float = 0.0  # probability
    randaugment_num_ops: int = 0
    randaugment_magnitude: int = 9
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    transforms: Mapping[str, Callable[..., Any]] | None = None  # of torchvision v2, by name, in this order

    def __post_init__(self) -> None:
        super().__post_init__()
        self.augmentation = Augmentation(
            self.crop_padding,
            self.hflip,
            self.random_erasing,
            self.randaugment_num_ops,
            self.randaugment_magnitude,
            dict(self.transforms or {}),
        )
        self.augmentation.check_transforms(self.in_chans, self.image_size)
        self.mixing = MixupCutmix(self.mixup_alpha, self.cutmix_alpha)

    def eval_transform(self) -> Callable[[Image.Image], Tensor]:
        """Build the transform of the test set: decoded image (L or RGB) to float32 (in_chans, H, W)."""
        normalize = Normalize(*self.mean_std(), torch.device("cpu"))
        return lambda image: normalize(pil_to_tensor(square(image, self.image_size)))

    def stratify_labels(self, train: ClassificationDataset) -> np.ndarray:
        """Return the class of each image."""
        return train.labels.cpu().numpy()

    def build_train_loader(self, train: ClassificationDataset) -> ResumableLoader[Batch]:
        """Build the loader of augmented batches, with Mixup and CutMix where they are on."""
        sampler = EpochSampler(self.train_indices, self.distributed_batches, self.seed, self.mixing, self._progress)
        return train.train_loader(sampler, self.augmentation, self.num_classes)
