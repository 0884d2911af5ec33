"""Transform whole batches on their device: crop, flip, random erasing, RandAugment, Mixup and CutMix.

Torchvision's v2 transforms draw once for a batch, from the global generator; here each image and each batch has a seed.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from ghostexp.validation import require, require_int, require_number

ERASED_AREA = (0.02, 0.33)  # of the image; these ranges are those of arXiv 1708.04896 and of torchvision
ERASED_ASPECT = (0.3, 3.3)


@dataclass(frozen=True)
class Augmentation:
    """Augmentations of training images, off by default."""

    crop_padding: int = 0  # pixels of zero-padding
    hflip: bool = False
    random_erasing: float = 0.0  # probability
    randaugment_num_ops: int = 0  # operations for each image
    randaugment_magnitude: int = 9  # of RandAugment, 0 to 30
    transforms: Mapping[str, Callable[..., Any]] = field(default_factory=dict)  # of uint8 images, after the others

    def __post_init__(self) -> None:
        require_int("crop_padding", self.crop_padding, 0)
        require(isinstance(self.hflip, bool), "hflip", self.hflip, "must be true or false")
        require_number("random_erasing", self.random_erasing, 0, 1)
        require_int("randaugment_num_ops", self.randaugment_num_ops, 0)
        require_int("randaugment_magnitude", self.randaugment_magnitude, 0)
        require(
            self.randaugment_magnitude <= 30,
            "randaugment_magnitude",
            self.randaugment_magnitude,
            "must be an integer in [0, 30]",
        )

    def of_image(self) -> Callable[..., Any] | None:
        """Build what is drawn for each image by itself, RandAugment and `transforms`; None if there is neither."""
        steps: list[Callable[..., Any]] = list(self.transforms.values())
        if self.randaugment_num_ops:
            steps.insert(0, v2.RandAugment(self.randaugment_num_ops, self.randaugment_magnitude))
        return v2.Compose(steps) if len(steps) > 1 else steps[0] if steps else None

    def check_transforms(self, in_chans: int, image_size: int) -> None:
        """Raise ValueError for a transform that does not map a uint8 image to one of the same shape."""
        image = torch.zeros(in_chans, image_size, image_size, dtype=torch.uint8)
        for name, transform in self.transforms.items():
            needed = f"datamodule.transforms.{name}: must map uint8 images {tuple(image.shape)} to such images"
            try:
                with seeded(0):
                    found = transform(image)
            except Exception as error:  # of any library
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise ValueError(f"{needed}, got {reason}") from error
            if not isinstance(found, Tensor) or found.dtype != torch.uint8 or found.shape != image.shape:
                is_tensor = isinstance(found, Tensor)
                got = f"{found.dtype} {tuple(found.shape)}" if is_tensor else type(found).__name__
                raise ValueError(f"{needed}, got {got}")


def crop(images: Tensor, offsets: Tensor, padding: int) -> Tensor:
    """Pad images (N, C, H, W) with zeros and cut out H x W at offsets (N, 2): top and left in 0 ... 2 * padding."""
    count, _, height, width = images.shape
    padded = F.pad(images, (padding, padding, padding, padding))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1).permute(0, 2, 3, 1, 4, 5)  # (N, top, left, C, H, W)
    return windows[torch.arange(count, device=images.device), offsets[:, 0], offsets[:, 1]]


def flip(images: Tensor, mask: Tensor) -> Tensor:
    """Flip horizontally those images (N, C, H, W) for which mask (N,) is true."""
    count = len(images)
    rows = torch.arange(count, device=images.device) + count * mask
    return torch.cat([images, images.flip(-1)]).index_select(0, rows)  # several times faster than torch.where


def erase(images: Tensor, boxes: Tensor) -> Tensor:
    """Set images (N, C, H, W) to 0, the mean after normalisation, in boxes (N, 4): top, left, bottom, right."""
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    top, left, bottom, right = boxes[:, :, None].unbind(1)  # each (N, 1)
    inside = ((rows >= top) & (rows < bottom))[:, :, None] & ((columns >= left) & (columns < right))[:, None, :]
    return images.masked_fill(inside[:, None], 0)


def erasing_boxes(uniforms: Tensor, probability: float, height: int, width: int) -> Tensor:
    """Turn uniforms (N, 5) into boxes (N, 4) for `erase`, empty where an image is not erased.

    A box that does not fit is clipped to the image, where torchvision samples another.
    """
    threshold, area, aspect, y, x = uniforms.unbind(1)
    area = height * width * (ERASED_AREA[0] + area * (ERASED_AREA[1] - ERASED_AREA[0]))
    low, high = (math.log(edge) for edge in ERASED_ASPECT)
    aspect = torch.exp(low + aspect * (high - low))
    erased = threshold < probability
    box_height = (area * aspect).sqrt().round().clamp(1, height) * erased
    box_width = (area / aspect).sqrt().round().clamp(1, width) * erased
    top = (y * (height - box_height + 1)).floor()
    left = (x * (width - box_width + 1)).floor()
    return torch.stack([top, left, top + box_height, left + box_width], 1).long()


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's CPU generator, and a GPU's if device is one, and restore their states afterwards."""
    gpus = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(gpus, device_type="cuda"):
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            torch.cuda.default_generators[gpu.index].manual_seed(seed)
        yield


@contextmanager
def all_seeded(seed: int) -> Iterator[None]:
    """Seed the generators of torch, NumPy and Python, and restore their states afterwards."""
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        with seeded(seed):
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


class Normalize:
    """Normalise uint8 images (N, C, H, W) to float32 with mean and std (of values in [0, 1]), as one multiply-add."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        self.scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(-1, 1, 1)
        self.shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(-1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        return images.float().mul_(self.scale).add_(self.shift)


RelativeBox = tuple[float, float, float, float]  # top, left, bottom, right as fractions of height and width


@dataclass(frozen=True)
class MixParams:
    """Mixup or CutMix parameters of one global batch."""

    weight: float  # of the image itself, in Mixup
    box: RelativeBox | None  # the region that CutMix pastes from the other image; None: Mixup


@dataclass(frozen=True)
class MixupCutmix:
    """The alpha of each method, 0 for off; with both on, each batch gets either with probability 1/2."""

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0

    def __post_init__(self) -> None:
        require_number("mixup_alpha", self.mixup_alpha, 0)
        require_number("cutmix_alpha", self.cutmix_alpha, 0)

    def __bool__(self) -> bool:
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0

    def sample(self, generator: np.random.Generator) -> MixParams:
        """Sample the method, the weight from Beta(alpha, alpha), and CutMix's box of area 1 - weight."""
        uniform, y, x = generator.random(3)
        cut = self.cutmix_alpha > 0 and (self.mixup_alpha == 0 or uniform < 0.5)
        alpha = self.cutmix_alpha if cut else self.mixup_alpha
        weight = float(generator.beta(alpha, alpha))
        if not cut:
            return MixParams(weight, None)
        half = (1 - weight) ** 0.5 / 2
        return MixParams(weight, (max(y - half, 0.0), max(x - half, 0.0), min(y + half, 1.0), min(x + half, 1.0)))


def mix_batch(images: Tensor, labels: Tensor, num_classes: int, mix: MixParams | None) -> tuple[Tensor, Tensor]:
    """Mix each of (N + 1, C, H, W) images, except the first, with the one before it.

    Returns images (N, C, H, W) and probabilities (N, num_classes); without a mix, the inputs.
    """
    if mix is None:
        return images, labels
    one_hot = F.one_hot(labels, num_classes).float()
    if mix.box is None:
        mixed, weight = images[1:] * mix.weight + images[:-1] * (1 - mix.weight), mix.weight
    else:
        height, width = images.shape[-2:]
        top, left, bottom, right = (round(edge * size) for edge, size in zip(mix.box, (height, width) * 2, strict=True))
        mixed = images[1:].clone()
        mixed[..., top:bottom, left:right] = images[:-1, :, top:bottom, left:right]
        weight = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, one_hot[1:] * weight + one_hot[:-1] * (1 - weight)
