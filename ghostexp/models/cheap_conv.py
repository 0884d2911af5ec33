"""Depthwise convolution with several filters for each map, made fast on CPUs."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIN_FLOAT32_MAPS = 8  # to repeat fewer pays in bfloat16 only
MAX_UNEVEN_MAPS = 192  # to repeat more pays only in blocks, if they are a multiple of 8


class CheapConv2d(nn.Conv2d):
    """A depthwise convolution with several filters for each map: (N, C, H, W) -> (N, multiplier * C, H', W').

    On a CPU, in channels_last, the maps are repeated and filtered one by one: the same sum, but oneDNN has no fast
    kernel for more than one filter for each map. An exported program has the plain convolution.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding_mode != "zeros":
            return super()._conv_forward(input, weight, bias)
        return _depthwise(input, weight, bias, (self.stride, self.padding, self.dilation))


@torch.fx.wrap  # one operation, so that torch.fx can trace a network whose device it does not have
def _depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple[Any, Any, Any]) -> Tensor:
    groups, filters = x.shape[1], weight.shape[0]
    is_faster = x.dtype == torch.bfloat16 or groups >= MIN_FLOAT32_MAPS
    is_faster &= groups % 8 == 0 or groups <= MAX_UNEVEN_MAPS
    on_cpu = x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)
    if is_faster and on_cpu and not torch.compiler.is_exporting():
        x, groups = _repeat_maps(x, filters // groups), filters
    return F.conv2d(x, weight, bias, *geometry, groups)


def _repeat_maps(x: Tensor, times: int) -> Tensor:
    """Each map `times` times in a row, in channels_last: (N, C, H, W) -> (N, times * C, H, W).

    By a product with ones and zeros: exact for finite maps, in bfloat16 too, and several times as fast as copies and
    their sums backward. Blocks of maps bound its work, which grows with the square of C if C is no multiple of 8.
    """
    maps, channels = x.permute(0, 2, 3, 1), x.shape[1]
    block = math.gcd(channels, 16) if channels % 8 == 0 else channels
    ones = torch.eye(block, dtype=x.dtype, device=x.device).repeat_interleave(times, 0)
    return F.linear(maps.unflatten(-1, (-1, block)), ones).flatten(-2).permute(0, 3, 1, 2)
