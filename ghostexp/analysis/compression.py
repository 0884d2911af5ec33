"""Measure the parameters and MACs that `ghostify` saved in each convolution of a network."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ghostexp.analysis.cost import without_norms
from ghostexp.models.base import meta_copy
from ghostexp.models.ghost_module import GhostModule
from ghostexp.models.ghostify import GhostifiedConv


@dataclass(frozen=True)
class ConvReduction:
    """A convolution before and after it became a ghost module: parameters, and MACs for one image."""

    layer: str
    kernel: str
    in_channels: int
    out_channels: int
    params_before: int
    params_after: int
    macs_before: int
    macs_after: int


def conv_reductions(network: nn.Module, image_shape: tuple[int, int, int]) -> list[ConvReduction]:
    """List each convolution that `ghostify` replaced, in the network's order; runs on the meta device.

    image_shape: (C, H, W). Ghosts that are computed and then cut off are counted.
    """
    replaced: tuple[GhostifiedConv, ...] = getattr(network, "ghostified", ())
    if not replaced:
        return []
    meta_network = without_norms(meta_copy(network))
    pixels: Counter[str] = Counter()  # of a module's output, summed over all its calls
    for row in replaced:
        meta_network.get_submodule(row.name).register_forward_hook(_count_pixels(pixels, row.name))
    with torch.no_grad():
        meta_network(torch.empty(1, *image_shape, device="meta"))
    return [_conv_reduction(row, meta_network.get_submodule(row.name), pixels[row.name]) for row in replaced]


def _count_pixels(pixels: Counter[str], name: str) -> Callable[[nn.Module, tuple, Tensor], None]:
    return lambda ghost, inputs, output: pixels.update({name: math.prod(output.shape[2:])})


def _conv_reduction(replaced: GhostifiedConv, ghost: nn.Module, pixels: int) -> ConvReduction:
    assert isinstance(ghost, GhostModule)
    primary, *_ = convs = [module for module in ghost.modules() if isinstance(module, nn.Conv2d)]
    weights_before = ghost.out_channels * primary.in_channels * math.prod(primary.kernel_size)
    return ConvReduction(
        layer=replaced.name,
        kernel="x".join(str(side) for side in primary.kernel_size),
        in_channels=primary.in_channels,
        out_channels=ghost.out_channels,
        params_before=replaced.params_before,
        params_after=replaced.params_after,
        macs_before=weights_before * pixels,
        macs_after=sum(conv.weight.numel() for conv in convs) * pixels,
    )
