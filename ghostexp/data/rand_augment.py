"""Apply RandAugment, or any transform, to each image of a batch with a seed of its own."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from ghostexp.data.transforms import seeded

Operation = tuple[str, float]  # name and magnitude


def transform_each(images: Tensor, seeds: list[int], transform: Callable[..., Any]) -> Tensor:
    """Transform each of the uint8 images (N, C, H, W) by itself, image i seeded by seeds[i]."""
    if isinstance(transform, v2.RandAugment):
        return rand_augment(images, seeds, transform)
    augmented = []
    for image, seed in zip(images, seeds, strict=True):
        with seeded(seed, images.device):
            augmented.append(transform(image))
    return torch.stack(augmented)


def rand_augment(images: Tensor, seeds: list[int], transform: v2.RandAugment) -> Tensor:
    """Apply RandAugment to each of the uint8 images (N, C, H, W), image i seeded by seeds[i].

    Equal to torchvision's transform of each image, but images with the same operation are transformed together.
    """
    drawn = [_draw_operations(transform, seed, images.shape[-2:]) for seed in seeds]
    position = np.arange(len(images))  # of each row in the batch
    for number in range(transform.num_ops):
        groups: dict[Operation, list[int]] = {}
        for row, index in enumerate(position):
            groups.setdefault(drawn[index][number], []).append(row)
        order = np.concatenate(list(groups.values()))
        parts = _rows(images, order).split([len(rows) for rows in groups.values()])
        applied = [_apply(transform, part, operation) for part, operation in zip(parts, groups, strict=True)]
        images, position = torch.cat(applied), position[order]
    return _rows(images, np.argsort(position))


def _draw_operations(transform: v2.RandAugment, seed: int, size: tuple[int, ...]) -> list[Operation]:
    """Draw the operations of an image as `v2.RandAugment.forward` does."""
    operations = []
    with seeded(seed):
        for _ in range(transform.num_ops):
            name, (magnitudes_of, is_signed) = transform._get_random_item(transform._AUGMENTATION_SPACE)
            magnitudes = magnitudes_of(transform.num_magnitude_bins, *size)
            magnitude = 0.0 if magnitudes is None else float(magnitudes[transform.magnitude])
            if magnitudes is not None and is_signed and torch.rand(()) <= 0.5:
                magnitude *= -1
            operations.append((name, magnitude))
    return operations


def _apply(transform: v2.RandAugment, images: Tensor, operation: Operation) -> Tensor:
    how: Any = {"interpolation": transform.interpolation, "fill": transform._fill}
    return transform._apply_image_or_video_transform(images, *operation, **how)  # pyright: ignore[reportReturnType]


def _rows(images: Tensor, order: np.ndarray) -> Tensor:
    return images.index_select(0, torch.from_numpy(order).to(images.device))
