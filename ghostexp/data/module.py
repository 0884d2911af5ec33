"""What the datamodules of classification share: augmentation, and images with a class each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from ghostexp.data.augment import Augmentation, Normalise
from ghostexp.data.base import DataModule, Examples
from ghostexp.data.folder import square
from ghostexp.data.loader import Batch, Loader
from ghostexp.data.mix import Mixing
from ghostexp.data.plan import TrainPlan


class ImageSet(Examples, Protocol):
    """Images with labels: `ArrayImages` or `FileImages`."""

    labels: Tensor

    def train_loader(self, plan: TrainPlan, augmentation: Augmentation, num_classes: int) -> Loader[Batch]: ...


@dataclass(kw_only=True, eq=False, repr=False)
class ImageDataModule(DataModule[ImageSet]):
    """Base of the datamodules of classification: a subclass says what to `read`.

    Batches are float32 normalised images (N, in_chans, image_size, image_size) and int64 classes (N,), or with Mixup
    or CutMix float probabilities (N, num_classes).
    """

    crop: int = 0  # pixels of zero-padding
    flip: bool = False
    erasing: float = 0.0  # probability
    randaugment: int = 0  # operations
    magnitude: int = 9
    mixup: float = 0.0  # alpha
    cutmix: float = 0.0  # alpha

    def __post_init__(self) -> None:
        super().__post_init__()
        self.augmentation = Augmentation(self.crop, self.flip, self.erasing, self.randaugment, self.magnitude)
        self.mixing = Mixing(self.mixup, self.cutmix)

    def eval_transform(self) -> Callable[[Image.Image], Tensor]:
        """What makes of a decoded image (L or RGB) what it would be in the test set: float32 (in_chans, H, W)."""
        normalise = Normalise(*self.normalisation(), torch.device("cpu"))
        return lambda image: normalise(pil_to_tensor(square(image, self.image_size)))

    def strata(self, train: ImageSet) -> np.ndarray:
        """The classes."""
        return train.labels.cpu().numpy()

    def new_train_loader(self, train: ImageSet) -> Loader[Batch]:
        """Augmented, and perhaps mixed, batches."""
        plan = TrainPlan(self.train_indices, self.share, self.seed, self.mixing, self._position)
        return train.train_loader(plan, self.augmentation, self.num_classes)
