"""Augmentation of a whole batch by tensor operations, on whichever device the images are.

Chance comes in as tensors with one entry for each image; nothing here draws, but for torchvision's RandAugment, which
is given a seed for each image.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from ghostexp.data.checks import require, require_number, require_whole

ERASED_AREA = (0.02, 0.33)  # of the image; these ranges are those of arXiv 1708.04896 and of torchvision
ERASED_ASPECT = (0.3, 3.3)


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training image, off by default."""

    crop: int = 0  # pixels of zero-padding
    flip: bool = False
    erasing: float = 0.0  # probability
    randaugment: int = 0  # operations for each image
    magnitude: int = 9  # of RandAugment, 0 to 30

    def __post_init__(self) -> None:
        require_whole("crop", self.crop, 0)
        require(isinstance(self.flip, bool), "flip", self.flip, "true or false is needed")
        require_number("erasing", self.erasing, 0, 1)
        require_whole("randaugment", self.randaugment, 0)
        require_whole("magnitude", self.magnitude, 0)
        require(self.magnitude <= 30, "magnitude", self.magnitude, "a whole number from 0 to 30 is needed")


def crop(images: Tensor, corners: Tensor, padding: int) -> Tensor:
    """Pad images (N, C, H, W) with zeros and cut out H x W at corners (N, 2), top and left in 0 ... 2 * padding."""
    count, _, height, width = images.shape
    padded = F.pad(images, (padding, padding, padding, padding))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1).permute(0, 2, 3, 1, 4, 5)  # (N, top, left, C, H, W)
    return windows[torch.arange(count, device=images.device), corners[:, 0], corners[:, 1]]


def flip(images: Tensor, flipped: Tensor) -> Tensor:
    """Mirror left and right those images (N, C, H, W) for which flipped (N,) is true."""
    count = len(images)
    rows = torch.arange(count, device=images.device) + count * flipped
    return torch.cat([images, images.flip(-1)]).index_select(0, rows)  # several times faster than torch.where


def erase(images: Tensor, boxes: Tensor) -> Tensor:
    """Set images (N, C, H, W) to 0, the mean after normalisation, in boxes (N, 4): top, left, bottom, right."""
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    top, left, bottom, right = boxes[:, :, None].unbind(1)  # each (N, 1)
    inside = ((rows >= top) & (rows < bottom))[:, :, None] & ((columns >= left) & (columns < right))[:, None, :]
    return images.masked_fill(inside[:, None], 0)


def erasing_boxes(uniforms: Tensor, probability: float, height: int, width: int) -> Tensor:
    """Turn uniforms (N, 5) into boxes (N, 4) for `erase`, empty where an image is left alone.

    Where torchvision draws again if a box does not fit, the box is cut to the image.
    """
    chance, area, aspect, y, x = uniforms.unbind(1)
    area = height * width * (ERASED_AREA[0] + area * (ERASED_AREA[1] - ERASED_AREA[0]))
    low, high = (math.log(edge) for edge in ERASED_ASPECT)
    aspect = torch.exp(low + aspect * (high - low))
    erased = chance < probability
    box_height = (area * aspect).sqrt().round().clamp(1, height) * erased
    box_width = (area / aspect).sqrt().round().clamp(1, width) * erased
    top = (y * (height - box_height + 1)).floor()
    left = (x * (width - box_width + 1)).floor()
    return torch.stack([top, left, top + box_height, left + box_width], 1).long()


def rand_augment(images: Tensor, seeds: list[int], transform: v2.RandAugment) -> Tensor:
    """Apply RandAugment to each of the uint8 images (N, C, H, W), image i seeded by seeds[i]."""
    augmented = []
    for image, seed in zip(images, seeds, strict=True):
        with seeded(seed):
            augmented.append(transform(image))
    return torch.stack(augmented)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator, and leave it afterwards as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class Normalise:
    """uint8 images (N, C, H, W) to float32 with the given mean and std (of values in [0, 1]), as one multiply-add."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        self.scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(-1, 1, 1)
        self.shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(-1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        return images.float().mul_(self.scale).add_(self.shift)
