"""Depthwise convolution with several filters for each map, made fast on CPUs."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIN_FLOAT32_MAPS = 8  # to repeat fewer pays in bfloat16 only


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
    on_cpu = x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)
    if is_faster and on_cpu and not torch.compiler.is_exporting():
        x, groups = _RepeatMaps.apply(x, filters // groups), filters
    return F.conv2d(x, weight, bias, *geometry, groups)


class _RepeatMaps(torch.autograd.Function):
    """Each map `multiplier` times in a row, in channels_last: (N, C, H, W) -> (N, multiplier * C, H, W)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, multiplier: int) -> Tensor:
        maps = x.permute(0, 2, 3, 1)
        return maps.unsqueeze(-1).expand(*maps.shape, multiplier).flatten(-2).permute(0, 3, 1, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.multiplier = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Add slices, which is faster than to sum the last axis; in float32 at least, as a convolution does."""
        first, *others = gradient.permute(0, 2, 3, 1).unflatten(-1, (-1, ctx.multiplier)).unbind(-1)
        total = first.to(torch.promote_types(gradient.dtype, torch.float32))
        for other in others:
            total = total + other
        return total.to(gradient.dtype).permute(0, 3, 1, 2), None
