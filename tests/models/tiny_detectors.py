"""Build small detectors of every kind on every network, for tests."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ghostexp.models.base import Network
from ghostexp.models.detection.base import DetectionModel, Targets
from ghostexp.models.detection.faster_rcnn import faster_rcnn
from ghostexp.models.detection.retinanet import retinanet
from ghostexp.models.ghostify import ghostify
from ghostexp.models.ghostnet import ghostnet, ghostnet_replication, ghostnet_small
from ghostexp.models.ghostnetv2 import ghostnetv2
from ghostexp.models.ghostnetv3 import ghostnetv3
from ghostexp.models.resnet_cifar import resnet20
from ghostexp.models.torchvision_timm import timm_network, torchvision_network
from ghostexp.models.vgg_cifar import vgg16

COARSE = (8, 16, 32)
BACKBONES: dict[str, tuple[Callable[[], Network], tuple[int, ...]]] = {  # and the strides of the maps in use
    "ghostnet": (lambda: ghostnet(3, width=0.3), (4, 8, 16, 32)),
    "ghostnet up to stride 16": (lambda: ghostnet(3, width=0.3), (8, 16)),
    "ghostnet_small": (lambda: ghostnet_small(3, width=0.5), COARSE),
    "ghostnetv2": (lambda: ghostnetv2(3, width=0.3), COARSE),
    "ghostnetv3": (lambda: ghostnetv3(3, width=0.3, num_branches=1), COARSE),
    "ghostnet_replication": (lambda: ghostnet_replication(3), COARSE),
    "mobilenet_v2": (lambda: torchvision_network("mobilenet_v2", 3), COARSE),
    "mobilenet_v3_large": (lambda: torchvision_network("mobilenet_v3_large", 3), (4, 8, 16, 32)),
    "resnet50": (lambda: torchvision_network("resnet50", 3), (4, 8)),
    "ghost_resnet50": (lambda: ghostify(torchvision_network("resnet50", 3), exclude="first"), COARSE),
    "regnety_002 of timm": (lambda: timm_network("regnety_002", 3), COARSE),
    "resnet20": (resnet20, (2, 4)),
    "vgg16": (vgg16, (8, 16)),
}


def with_quick_norms(network: Network) -> Network:
    """Set BatchNorm momentum to 1: with the initial statistics, untrained maps would overflow."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    return network


KINDS: dict[str, Callable[..., DetectionModel]] = {
    "faster_rcnn": lambda backbone, classes=3, **kwargs: faster_rcnn(
        backbone, classes, **{"fpn_channels": 8, "head_channels": 16, "rpn_post_nms_top_n": 20, **kwargs}
    ),
    "retinanet": lambda backbone, classes=3, **kwargs: retinanet(backbone, classes, **{"fpn_channels": 8, **kwargs}),
}


def target(*boxes: tuple[float, float, float, float], labels: list[int] | None = None) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels or [0] * len(boxes), dtype=torch.int64),
    }


def total(network: DetectionModel, images: list[Tensor], targets: Targets) -> Tensor:
    losses = network.train()(images, targets)
    assert isinstance(losses, dict)
    assert tuple(losses) == network.loss_names
    return torch.stack(list(losses.values())).sum()


def found(network: DetectionModel, *images: Tensor) -> list[dict[str, Tensor]]:
    with torch.no_grad():
        detections = network.eval()(list(images))
    assert isinstance(detections, list)
    return detections
