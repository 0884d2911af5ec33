"""Initial weights: one rule for every network that is built here."""

import math

from torch import nn


def he_init(network: nn.Module) -> None:
    """Draw every convolution from He's normal distribution by fan-out and set its bias to zero.

    The fan-out is counted within a group, so a depthwise filter is not drawn too small; torch's own
    `kaiming_normal_(mode="fan_out")` ignores groups. Linear and BatchNorm layers keep torch's defaults.
    Source: arXiv 1502.01852.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels // module.groups * math.prod(module.kernel_size)
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
