"""Parameters and multiply-accumulates of a network."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ghostexp.models.contract import Network

Shape = tuple[int, int, int]  # of an image: (C, H, W)


@dataclass(frozen=True)
class Cost:
    """Parameters, frozen ones too, and multiply-accumulates of convolutions and linear layers for one image.

    The GhostNet papers call these MACs "FLOPs"; two operations each are counted elsewhere.
    """

    params: int
    macs: int


def count(network: nn.Module, image_shape: Shape) -> Cost:
    """Count a network's cost on one image; nothing is computed.

    Of a detector: pyramid and heads too, and those for as many proposals as it may look at.
    Raises ValueError: the network does not take images of this shape.
    """
    params = sum(parameter.numel() for parameter in network.parameters())
    return Cost(params, _macs(copy.deepcopy(network).to("meta").eval(), image_shape))


def backbone_macs(network: Network, image_shape: Shape = (3, 224, 224)) -> int:
    """The MACs of a classifier without its head, which arXiv 1911.11907, table 8, prints for a detector's backbone.

    Count them before a detector cuts off what feeds none of its maps.
    """
    return _macs(copy.deepcopy(network).to("meta").eval().forward_features, image_shape)


def _macs(function: Callable[[Tensor], object], image_shape: Shape) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function(torch.empty(1, *image_shape, device="meta"))
    return counter.get_total_flops() // 2
