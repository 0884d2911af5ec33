"""Build RetinaNet (arXiv 1708.02002) on the feature pyramid of any network, with torchvision's heads."""

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from ..base import Network
from ..validation import check_args
from .base import DetectionModel, Detections, FeatureMaps, Targets
from .fpn import BackboneWithFPN, LevelAnchorGenerator

GROUP = 8  # channels per group of GroupNorm: 32 groups of 256 channels


class RetinaNet(DetectionModel, detection.RetinaNet):
    """Class and box of every anchor on every level, trained by the focal loss. Source: arXiv 1708.02002."""

    loss_names = ("classification", "box")

    def losses(self, batch: ImageList, maps: FeatureMaps, targets: Targets) -> dict[str, Tensor]:
        levels = list(maps.values())
        losses = self.compute_loss(targets, self.head(levels), self.anchor_generator(batch, levels))
        return {"classification": losses["classification"], "box": losses["bbox_regression"]}

    def detect(self, batch: ImageList, maps: FeatureMaps) -> Detections:
        levels = list(maps.values())
        each = self.anchor_generator.num_anchors_per_location()[0]
        sizes = [each * level.shape[-2] * level.shape[-1] for level in levels]
        outputs = {name: list(values.split(sizes, 1)) for name, values in self.head(levels).items()}
        anchors = [list(one.split(sizes)) for one in self.anchor_generator(batch, levels)]
        return self.postprocess_detections(outputs, anchors, batch.image_sizes)

    def forward_heads(self, maps: FeatureMaps) -> None:
        self.head(list(maps.values()))


class RetinaNetHeadFloat32(RetinaNetHead):
    """Torchvision's RetinaNet head with float32 outputs."""

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        return {name: values.float() for name, values in super().forward(x).items()}


def retinanet(
    backbone: Network,
    num_classes: int,
    strides: Sequence[int] = (8, 16, 32),
    fpn_channels: int = 256,
    anchor_scale: float = 4,
    anchor_ratios: Sequence[float] = (0.5, 1, 2),
    freeze_stages: int = 0,
    freeze_batchnorm: bool = False,
    head_norm: bool = False,
    box_score_thresh: float = 0.05,
    box_nms_thresh: float = 0.5,
    box_detections_per_img: int = 100,
) -> RetinaNet:
    """Build RetinaNet, with three octaves of anchors per level, P6 and P7; arguments and errors as of `faster_rcnn`.

    head_norm: GroupNorm after the heads' convolutions (arXiv 1803.08494), as in torchvision's second version.
    """
    check_args(
        num_classes=num_classes, fpn_channels=fpn_channels, anchor_scale=anchor_scale, anchor_ratios=anchor_ratios
    )
    check_args(
        box_score_thresh=box_score_thresh, box_nms_thresh=box_nms_thresh, box_detections_per_img=box_detections_per_img
    )
    check_args(head_norm=head_norm, freeze_batchnorm=freeze_batchnorm)
    if head_norm and fpn_channels % GROUP:
        raise ValueError(f"model.fpn_channels={fpn_channels}: must be a multiple of {GROUP} with model.head_norm=true")
    extra = LastLevelP6P7(fpn_channels, fpn_channels)
    pyramid = BackboneWithFPN(backbone, strides, fpn_channels, extra, 2, freeze_stages, freeze_batchnorm)
    anchors = LevelAnchorGenerator(pyramid.strides, anchor_scale, anchor_ratios, octaves=3)
    network = RetinaNet(
        pyramid,
        num_classes,
        anchor_generator=anchors,
        head=RetinaNetHeadFloat32(
            fpn_channels,
            anchors.num_anchors_per_location()[0],
            num_classes,
            norm_layer=_group_norm if head_norm else None,
        ),
        score_thresh=box_score_thresh,
        nms_thresh=box_nms_thresh,
        detections_per_img=box_detections_per_img,
    )
    del network.transform  # would resize and normalise images
    return network


def _group_norm(fpn_channels: int) -> nn.Module:
    return nn.GroupNorm(fpn_channels // GROUP, fpn_channels)
