"""What every detecting network promises, so that training, analysis and pictures need to know nothing else about it."""

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
    """A network that finds boxes: losses by name in training, detections under evaluation.

    Targets: for each image `boxes` (n, 4) in its own pixels and `labels` (n,) from 0 on; n may be 0.
    Detections: for each image `boxes` (k, 4), `scores` (k,) from the best on, and `labels` (k,).
    Images are padded by zeros, at the right and below, to sizes that the pyramid divides, and in training to one.
    On the meta device nothing is found, but each layer runs once on as many boxes as there can be.
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
        """Detect in images of one padded size at a time: what is found does not depend on who shares a batch."""
        found: Detections = [{} for _ in images]
        sizes = [padded_size([image], self.backbone.divisor) for image in images]
        for size in dict.fromkeys(sizes):
            places = [place for place, other in enumerate(sizes) if other == size]
            batch = padded([images[place] for place in places], self.backbone.divisor)
            for place, one in zip(places, self.detect(batch, self.backbone(batch.tensors)), strict=True):
                found[place] = one
        return found

    @abstractmethod
    def losses(self, batch: ImageList, maps: FeatureMaps, targets: Targets) -> dict[str, Tensor]:
        """What training makes smaller, by the names in `loss_names`."""

    @abstractmethod
    def detect(self, batch: ImageList, maps: FeatureMaps) -> Detections:
        """What is found in each image."""

    @abstractmethod
    def forward_heads(self, maps: FeatureMaps) -> None:
        """Run the layers behind the pyramid, without choosing between boxes, which takes values."""

    def reparameterize(self) -> None:
        """Fold, in place, the trunk's branches that only training needs."""
        self.backbone.body.reparameterize()


def padded(images: Images, divisor: int) -> ImageList:
    """Images in one tensor, each at its left upper corner, height and width multiples of a divisor."""
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    height, width = padded_size(images, divisor)
    batch = images[0].new_zeros(len(sizes), images[0].shape[0], height, width)
    for place, image, (height, width) in zip(batch, images, sizes, strict=True):
        place[:, :height, :width] = image
    return ImageList(batch, sizes)


def padded_size(images: Images, divisor: int) -> tuple[int, int]:
    """The least height and width, multiples of a divisor, that all images fit into."""
    height, width = (max(image.shape[side] for image in images) for side in (-2, -1))
    return math.ceil(height / divisor) * divisor, math.ceil(width / divisor) * divisor
