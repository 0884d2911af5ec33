"""Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899) of whole batches."""

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ghostexp.data.checks import require_number

Box = tuple[float, float, float, float]  # top, left, bottom, right as fractions of height and width


@dataclass(frozen=True)
class Mix:
    """How the images of one global batch take something from their partners."""

    weight: float  # of the image itself, if blended
    box: Box | None  # what CutMix takes from the partner; None: Mixup


@dataclass(frozen=True)
class Mixing:
    """The alpha of each method, 0 for off; with both on, either at even odds for every batch."""

    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        require_number("mixup", self.mixup, 0)
        require_number("cutmix", self.cutmix, 0)

    def __bool__(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0

    def draw(self, generator: np.random.Generator) -> Mix:
        """Choose the method, the weight from Beta(alpha, alpha), and CutMix's box of area 1 - weight."""
        coin, y, x = generator.random(3)
        cut = self.cutmix > 0 and (self.mixup == 0 or coin < 0.5)
        alpha = self.cutmix if cut else self.mixup
        weight = float(generator.beta(alpha, alpha))
        if not cut:
            return Mix(weight, None)
        half = (1 - weight) ** 0.5 / 2
        return Mix(weight, (max(y - half, 0.0), max(x - half, 0.0), min(y + half, 1.0), min(x + half, 1.0)))


def mix_batch(images: Tensor, labels: Tensor, num_classes: int, mix: Mix | None) -> tuple[Tensor, Tensor]:
    """Mix each of (N + 1, C, H, W) images, but the first, with the one before it.

    Returns images (N, C, H, W) and probabilities (N, num_classes); without a mix, what it was given.
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
