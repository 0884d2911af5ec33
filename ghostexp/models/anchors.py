"""Anchors whose size follows from the level that they stand on."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList


class Anchors(AnchorGenerator):
    """At each pixel of each level, boxes of `scale` strides' side, in each ratio of height to width and each octave.

    The side is that of the square of equal area; of `octaves` boxes each is larger than the one before by the factor
    2^(1 / octaves). Anchors are float32 and stand a level's stride apart. Torchvision's own have the maps' precision
    (whole steps of 8 pixels under bfloat16), and a distance that is wrong where a map's size was rounded up.
    """

    def __init__(self, strides: Sequence[int], scale: float, ratios: Sequence[float], octaves: int = 1) -> None:
        factors = [scale * 2 ** (octave / octaves) for octave in range(octaves)]
        sizes = tuple(tuple(factor * stride for factor in factors) for stride in strides)
        super().__init__(sizes, (tuple(ratios),) * len(strides))  # pyright: ignore[reportArgumentType]
        self.strides = list(strides)

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        device = feature_maps[0].device
        self.set_cell_anchors(torch.float32, device)
        sizes = [list(level.shape[-2:]) for level in feature_maps]
        steps = [[stride] * 2 for stride in self.strides]
        # Plain numbers: tensors would be a blocking copy to the device each.
        anchors = torch.cat(self.grid_anchors(sizes, steps))  # pyright: ignore[reportArgumentType]  # (A, 4)
        return [anchors] * len(image_list.image_sizes)
