"""Test the cost of detectors and their backbones against the counts of the paper and its replication."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from ghostexp.analysis.cost import Cost, backbone_macs, count_cost, layer_costs
from ghostexp.models.base import Network
from ghostexp.models.detection.faster_rcnn import faster_rcnn
from ghostexp.models.detection.retinanet import retinanet
from ghostexp.models.ghostnet import ghostnet, ghostnet_replication
from ghostexp.models.torchvision_timm import torchvision_network


@pytest.mark.parametrize(
    ("build", "macs"),
    [
        (lambda: ghostnet(width=1.1), 164355184),
        (lambda: torchvision_network("mobilenet_v2"), 299494272),
        (lambda: torchvision_network("mobilenet_v3_large"), 214080960),  # the paper prints 219M, of its whole network
    ],
)
def test_backbone_macs_match_paper(build: Callable[[], Network], macs: int) -> None:
    with torch.device("meta"):
        assert backbone_macs(build()) == macs


def test_replication_backbone_counts() -> None:
    with torch.device("meta"):
        network = ghostnet_replication()
        backbone = nn.Sequential(network.conv_stem, network.bn1, network.act1, *network.blocks[:-1])
    rows = layer_costs(backbone, (3, 224, 224))
    assert sum(row.params for row in rows) == 1055832
    assert sum(row.macs for row in rows) == 135408560
    assert sum(row.thop for row in rows) == 149310448


def test_replication_trunk_is_pruned() -> None:
    with torch.device("meta"):
        network = faster_rcnn(ghostnet_replication(), 80, strides=[8, 16, 32], p6=False, anchor_scale=4)
    assert sum(one.numel() for one in network.backbone.body.parameters()) == 376472


def test_detector_cost_is_trunk_fpn_and_heads() -> None:
    kwargs = {"fpn_channels": 16, "head_channels": 32}
    with torch.device("meta"):
        network = faster_rcnn(ghostnet(width=0.5), 4, rpn_post_nms_top_n=100, **kwargs)  # pyright: ignore[reportArgumentType]
    maps = {4: 12, 8: 20, 16: 56, 32: 80}  # stride -> channels of a 64 x 64 image's maps
    pixels = {stride: (64 // stride) ** 2 for stride in maps}
    pyramid = sum(pixels[stride] * (maps[stride] * 16 + 16 * 16 * 9) for stride in maps)
    levels = sum(pixels.values()) + 1  # and P6
    proposals = levels * (16 * 16 * 9 + 16 * 3 * (1 + 4))
    classifier = 100 * (16 * 49 * 32 + 32 * 32 + 32 * 5 * (1 + 4))
    trunk = sum(row.macs for row in layer_costs(network, (3, 64, 64)) if row.name.startswith("backbone.body."))
    assert trunk > 1_000_000
    assert count_cost(network, (3, 64, 64)).macs == trunk + pyramid + proposals + classifier


def test_detector_cost_counts_padded_size() -> None:
    with torch.device("meta"):
        network = retinanet(ghostnet(width=0.5), 4, fpn_channels=16)
    assert count_cost(network, (3, 50, 33)) == count_cost(network, (3, 64, 64))


def test_paper_detectors_cost_on_coco_image() -> None:
    with torch.device("meta"):
        first, second = faster_rcnn(ghostnet(width=1.1), 80), retinanet(ghostnet(width=1.1), 80)
    assert count_cost(first, (3, 800, 1333)) == Cost(20395038, 124238040288)
    assert count_cost(second, (3, 800, 1333)) == Cost(12536174, 161585000416)
