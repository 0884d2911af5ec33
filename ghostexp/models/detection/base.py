"""Define the base class of all detectors, the only interface that training, analysis and plots use."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from .fpn import BackboneWithFPN

Images = Sequence[Tensor] | Tensor  # (3, H, W) each, or (N, 3, H, W)
Targets = list[dict[str, Tensor]]
FeatureMaps = dict[str, Tensor]  # {level: (N, channels, H / stride, W / stride)}
Detections = list[dict[str, Tensor]]


class DetectionModel(nn.Module, ABC):
    """A detector: returns losses by name in training mode, detections in evaluation mode.

    Targets: for each image `boxes` (n, 4) in its own pixels and `labels` (n,) from 0 on; n may be 0.
    Detections: for each image `boxes` (k, 4), `scores` (k,) in descending order, and `labels` (k,).
    Images are zero-padded, at the right and bottom, to multiples of the FPN's divisor; in training all to one size.
    On the meta device nothing is detected, but each layer runs once, on the largest possible number of boxes.
    """

    backbone: BackboneWithFPN
    loss_names: tuple[str, ...]

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | Detections:
        if images[0].is_meta:
            self.forward_heads(self.backbone(padded(images, self.backbone.divisor).tensors))
            return []
        if not self.training:
            return self._detect_by_padded_size(images)
        assert targets is not None, "training needs targets"
        batch = padded(images, self.backbone.divisor)
        return self.losses(batch, self.backbone(batch.tensors), targets)

    def _detect_by_padded_size(self, images: Images) -> Detections:
        """Detect in images of one padded size at a time, so that detections do not depend on the rest of the batch."""
        detections: Detections = [{} for _ in images]
        sizes = [padded_size([image], self.backbone.divisor) for image in images]
        for size in dict.fromkeys(sizes):
            indices = [index for index, other in enumerate(sizes) if other == size]
            batch = padded([images[index] for index in indices], self.backbone.divisor)
            for index, one in zip(indices, self.detect(batch, self.backbone(batch.tensors)), strict=True):
                detections[index] = one
        return detections

    @abstractmethod
    def losses(self, batch: ImageList, maps: FeatureMaps, targets: Targets) -> dict[str, Tensor]:
        """Compute the training losses, by the names in `loss_names`."""

    @abstractmethod
    def detect(self, batch: ImageList, maps: FeatureMaps) -> Detections:
        """Detect the boxes of each image."""

    @abstractmethod
    def forward_heads(self, maps: FeatureMaps) -> None:
        """Run the layers after the FPN, without selecting boxes, which would need values."""

    def reparameterize(self) -> None:
        """Fold, in place, the backbone's branches that only training needs."""
        self.backbone.body.reparameterize()


def padded(images: Images, divisor: int) -> ImageList:
    """Pad images into one tensor, each at the top left, height and width multiples of a divisor."""
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    height, width = padded_size(images, divisor)
    batch = images[0].new_zeros(len(sizes), images[0].shape[0], height, width)
    for row, image, (height, width) in zip(batch, images, sizes, strict=True):
        row[:, :height, :width] = image
    return ImageList(batch, sizes)


def padded_size(images: Images, divisor: int) -> tuple[int, int]:
    """Compute the smallest height and width, multiples of a divisor, that all images fit into."""
    height, width = (max(image.shape[side] for image in images) for side in (-2, -1))
    return math.ceil(height / divisor) * divisor, math.ceil(width / divisor) * divisor
