"""Small detectors of every kind on every network, for tests."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ghostexp.models.contract import Network
from ghostexp.models.detection import DetectionNetwork, Targets
from ghostexp.models.external import torchvision_network
from ghostexp.models.faster_rcnn import faster_rcnn
from ghostexp.models.ghostify import ghostify
from ghostexp.models.ghostnet import ghostnet, ghostnet_small
from ghostexp.models.ghostnet_replication import ghostnet_replication
from ghostexp.models.ghostnet_v2 import ghostnetv2
from ghostexp.models.ghostnet_v3 import ghostnetv3
from ghostexp.models.resnet import resnet20
from ghostexp.models.retinanet import retinanet
from ghostexp.models.vgg import vgg16

COARSE = (8, 16, 32)
BACKBONES: dict[str, tuple[Callable[[], Network], tuple[int, ...]]] = {  # and the strides of the maps in use
    "ghostnet": (lambda: ghostnet(3, width=0.3), (4, 8, 16, 32)),
    "ghostnet up to stride 16": (lambda: ghostnet(3, width=0.3), (8, 16)),
    "ghostnet_small": (lambda: ghostnet_small(3, width=0.5), COARSE),
    "ghostnetv2": (lambda: ghostnetv2(3, width=0.3), COARSE),
    "ghostnetv3": (lambda: ghostnetv3(3, width=0.3, branches=1), COARSE),
    "ghostnet_replication": (lambda: ghostnet_replication(3), COARSE),
    "mobilenet_v2": (lambda: torchvision_network("mobilenet_v2", 3), COARSE),
    "mobilenet_v3_large": (lambda: torchvision_network("mobilenet_v3_large", 3), (4, 8, 16, 32)),
    "resnet50": (lambda: torchvision_network("resnet50", 3), (4, 8)),
    "ghost_resnet50": (lambda: ghostify(torchvision_network("resnet50", 3), keep="first"), COARSE),
    "resnet20": (resnet20, (2, 4)),
    "vgg16": (vgg16, (8, 16)),
}


def with_quick_norms(network: Network) -> Network:
    """Let each BatchNorm remember the last batch alone: with its first statistics, untrained maps would overflow."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    return network


KINDS: dict[str, Callable[..., DetectionNetwork]] = {
    "faster_rcnn": lambda backbone, classes=3, **knobs: faster_rcnn(
        backbone, classes, **{"channels": 8, "head_channels": 16, "rpn_post_nms_top_n": 20, **knobs}
    ),
    "retinanet": lambda backbone, classes=3, **knobs: retinanet(backbone, classes, **{"channels": 8, **knobs}),
}


def target(*boxes: tuple[float, float, float, float], labels: list[int] | None = None) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels or [0] * len(boxes), dtype=torch.int64),
    }


def total(network: DetectionNetwork, images: list[Tensor], targets: Targets) -> Tensor:
    losses = network.train()(images, targets)
    assert isinstance(losses, dict)
    assert tuple(losses) == network.loss_names
    return torch.stack(list(losses.values())).sum()


def found(network: DetectionNetwork, *images: Tensor) -> list[dict[str, Tensor]]:
    with torch.no_grad():
        detections = network.eval()(list(images))
    assert isinstance(detections, list)
    return detections
