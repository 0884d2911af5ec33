"""Build Faster R-CNN (arXiv 1506.01497) on the feature pyramid of any network, with torchvision's heads."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models import detection
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.poolers import LevelMapper

from ..base import Network
from ..validation import check_args
from .base import DetectionModel, Detections, FeatureMaps, Targets
from .fpn import BackboneWithFPN, LevelAnchorGenerator

ROI_SIDE = 7  # output size of RoIAlign, pixels


class FasterRCNN(DetectionModel, detection.FasterRCNN):
    """Region proposals on all levels, and a box head on their RoIAlign features. Source: arXiv 1506.01497, 1612.03144.

    Internally, label 0 is the background.
    """

    rpn: RegionProposalNetwork
    roi_heads: RoIHeads
    loss_names = ("objectness", "proposal_box", "classification", "box")

    def losses(self, batch: ImageList, maps: FeatureMaps, targets: Targets) -> dict[str, Tensor]:
        shifted = [{"boxes": target["boxes"], "labels": target["labels"] + 1} for target in targets]
        proposals, first = self.rpn(batch, maps, shifted)
        _, second = self.roi_heads(maps, proposals, batch.image_sizes, shifted)
        return {
            "objectness": first["loss_objectness"],
            "proposal_box": first["loss_rpn_box_reg"],
            "classification": second["loss_classifier"],
            "box": second["loss_box_reg"],
        }

    def detect(self, batch: ImageList, maps: FeatureMaps) -> Detections:
        proposals, _ = self.rpn(batch, maps)
        detections, _ = self.roi_heads(maps, proposals, batch.image_sizes)
        return [one | {"labels": one["labels"] - 1} for one in detections]

    def forward_heads(self, maps: FeatureMaps) -> None:
        self.rpn.head(list(maps.values()))
        finest = next(iter(maps.values()))
        proposals = len(finest) * self.rpn.post_nms_top_n()
        pooled = finest.new_empty(proposals, finest.shape[1], ROI_SIDE, ROI_SIDE)
        self.roi_heads.box_predictor(self.roi_heads.box_head(pooled))


# Boxes are decoded in the precision of the heads' outputs, and bfloat16 resolves only every second pixel beyond 256:
# the heads' outputs are float32, also under autocast; float64 stays, as RoIAlign needs boxes of the maps' precision.


class RPNHeadFloat32(RPNHead):
    """Torchvision's RPN head with float32 outputs, or float64."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        objectness, deltas = super().forward(x)
        return [_at_least_float32(level) for level in objectness], [_at_least_float32(level) for level in deltas]


class BoxPredictorFloat32(FastRCNNPredictor):
    """Torchvision's box predictor with float32 outputs, or float64."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = super().forward(x)
        return _at_least_float32(logits), _at_least_float32(deltas)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def faster_rcnn(
    backbone: Network,
    num_classes: int,
    strides: Sequence[int] = (4, 8, 16, 32),
    fpn_channels: int = 256,
    p6: bool = True,
    anchor_scale: float = 8,
    anchor_ratios: Sequence[float] = (0.5, 1, 2),
    freeze_stages: int = 0,
    freeze_batchnorm: bool = False,
    head_channels: int = 1024,
    rpn_pre_nms_top_n: int = 2000,
    rpn_post_nms_top_n: int = 1000,
    box_batch_size_per_image: int = 512,
    box_score_thresh: float = 0.05,
    box_nms_thresh: float = 0.5,
    box_detections_per_img: int = 100,
) -> FasterRCNN:
    """Build Faster R-CNN on a network that has its weights already; the network is pruned in place.

    strides, fpn_channels, freeze_*: see `BackboneWithFPN`. p6: a level of proposals at twice the last stride.
    anchor_scale: side of a level's anchors, in strides of that level. anchor_ratios: height / width.
    rpn_pre_nms_top_n: anchors of each level that non-maximum suppression, whose time grows with their square, reads.
    rpn_post_nms_top_n: proposals of an image. box_batch_size_per_image: proposals that training samples.
    Raises ValueError: an argument out of its range, or a network without these maps.
    """
    check_args(
        num_classes=num_classes, fpn_channels=fpn_channels, anchor_scale=anchor_scale, anchor_ratios=anchor_ratios
    )
    check_args(
        p6=p6,
        freeze_batchnorm=freeze_batchnorm,
        head_channels=head_channels,
        box_batch_size_per_image=box_batch_size_per_image,
    )
    check_args(rpn_pre_nms_top_n=rpn_pre_nms_top_n, rpn_post_nms_top_n=rpn_post_nms_top_n)
    check_args(
        box_score_thresh=box_score_thresh, box_nms_thresh=box_nms_thresh, box_detections_per_img=box_detections_per_img
    )
    extra = LastLevelMaxPool() if p6 else None
    pyramid = BackboneWithFPN(backbone, strides, fpn_channels, extra, int(p6), freeze_stages, freeze_batchnorm)
    anchors = LevelAnchorGenerator(pyramid.strides, anchor_scale, anchor_ratios)
    network = FasterRCNN(
        pyramid,
        rpn_anchor_generator=anchors,
        rpn_head=RPNHeadFloat32(fpn_channels, len(anchor_ratios)),
        rpn_pre_nms_top_n_train=rpn_pre_nms_top_n,
        rpn_pre_nms_top_n_test=rpn_pre_nms_top_n,
        rpn_post_nms_top_n_train=rpn_post_nms_top_n,
        rpn_post_nms_top_n_test=rpn_post_nms_top_n,
        box_roi_pool=_roi_align(pyramid),
        box_head=TwoMLPHead(fpn_channels * ROI_SIDE**2, head_channels),
        box_predictor=BoxPredictorFloat32(head_channels, num_classes + 1),
        box_score_thresh=box_score_thresh,
        box_nms_thresh=box_nms_thresh,
        box_detections_per_img=box_detections_per_img,
        box_batch_size_per_image=box_batch_size_per_image,
    )
    del network.transform  # would resize and normalise images
    return network


def _roi_align(pyramid: BackboneWithFPN) -> MultiScaleRoIAlign:
    """Build RoIAlign on the map levels with explicit scales: it would infer them from the first batch."""
    strides = list(pyramid.map_levels.values())
    pool = MultiScaleRoIAlign(list(pyramid.map_levels), output_size=ROI_SIDE, sampling_ratio=2)
    pool.scales = [1 / stride for stride in strides]
    finest, coarsest = (round(math.log2(stride)) for stride in (strides[0], strides[-1]))
    pool.map_levels = LevelMapper(finest, coarsest, pool.canonical_scale, pool.canonical_level, eps=1e-6)
    return pool
