"""Parameters and multiply-accumulates of a network."""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

Shape = tuple[int, int, int]  # of an image: (C, H, W)


@dataclass(frozen=True)
class Cost:
    """Trainable parameters, and multiply-accumulates of convolutions and linear layers for one image.

    The GhostNet papers call these MACs "FLOPs"; two operations each are counted elsewhere.
    """

    params: int
    macs: int


def count(network: nn.Module, image_shape: Shape) -> Cost:
    """Count a network's cost on one image; nothing is computed.

    Raises ValueError: the network does not take images of this shape.
    """
    params = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    shadow = copy.deepcopy(network).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow(torch.empty(1, *image_shape, device="meta"))
    return Cost(params=params, macs=counter.get_total_flops() // 2)
