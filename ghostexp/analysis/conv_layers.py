"""Find the convolutions of a network that can become ghost modules, with their inputs and the layers that follow."""

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ghostexp.models.base import meta_copy
from ghostexp.models.fuse import fold_batchnorm, is_foldable, rest_of_norm, set_kernel
from ghostexp.models.ghostify import build_ghost_module, replaceable_convs

GEOMETRY = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "padding_mode")


@dataclass
class ConvLayer:
    """A convolution, the shape (C, H, W) of its input, and the BatchNorm and activation that read its output.

    calls: runs in one pass of the network. is_first: it reads the image, so that its input needs no gradient.
    """

    name: str
    conv: nn.Conv2d
    shape: tuple[int, int, int]
    pixels: int  # of its output
    is_first: bool
    calls: int = 1
    after: list[nn.Module] = field(default_factory=list)

    @property
    def key(self) -> tuple[Any, ...]:
        """What decides the time: layers with equal keys are measured once."""
        geometry = (getattr(self.conv, name) for name in GEOMETRY)
        return (*geometry, self.conv.bias is None, self.shape, self.is_first, *(repr(module) for module in self.after))

    def build(self, ratio: int, dw_size: int, folded: bool) -> nn.Sequential:
        """Build the layer with what follows it, as an ordinary convolution (ratio 1) or as a ghost module.

        folded: for inference, as by `fuse`: the BatchNorm after an ordinary convolution becomes a part of it.
        """
        with torch.random.fork_rng():
            conv = copy.deepcopy(self.conv) if ratio == 1 else build_ghost_module(self.conv, ratio, dw_size)
        layers = [conv, *copy.deepcopy(self.after)]
        norm = layers[1] if len(layers) > 1 else None
        if folded and isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and is_foldable(norm):
            set_kernel(conv, *fold_batchnorm(conv.weight, conv.bias, norm))
            layers[1] = rest_of_norm(norm)
        return nn.Sequential(*layers)

    def cost(self, ratio: int, dw_size: int) -> tuple[int, int]:
        """Count parameters, and MACs for one image, without those of the layers that follow."""
        modules = self.build(ratio, dw_size, folded=False)[0].modules()
        convs = [module for module in modules if isinstance(module, nn.Conv2d)]
        params = sum(parameter.numel() for conv in convs for parameter in conv.parameters())
        return params, self.calls * self.pixels * sum(conv.weight.numel() for conv in convs)

    @property
    def title(self) -> str:
        """Describe kernel, channels, resolution and what follows: `3x3, 16 -> 32, 32 x 32, BN, ReLU`."""
        kernel = "x".join(str(side) for side in self.conv.kernel_size)
        size = " x ".join(str(side) for side in self.shape[1:])
        names = [type(module).__name__.replace("BatchNorm", "BN").replace("2d", "") for module in self.after]
        return ", ".join((kernel, f"{self.conv.in_channels} -> {self.conv.out_channels}", size, *names))


def find_conv_layers(network: nn.Module, image_shape: tuple[int, int, int]) -> list[ConvLayer]:
    """List the convolutions that `ghostify` can replace, in the order of their first run on the meta device."""
    meta_network = meta_copy(network)
    ours = {id(meta_network.get_submodule(name)): (name, conv) for name, conv in replaceable_convs(network).items()}
    found: dict[int, ConvLayer] = {}
    last: dict[int, ConvLayer] = {}  # the layer that a tensor is the output of, by the tensor's id
    alive: list[Tensor] = []  # ids would be reused after a tensor is freed
    image = torch.empty(1, *image_shape, device="meta")

    def record(module: nn.Module, inputs: tuple, output: object) -> None:
        if not inputs or not isinstance(inputs[0], Tensor) or not isinstance(output, Tensor):
            return
        alive.extend((inputs[0], output))
        if id(module) in found:
            found[id(module)].calls += 1
        elif id(module) in ours:
            name, conv = ours[id(module)]
            _, *size = inputs[0].shape
            is_first = inputs[0] is image
            found[id(module)] = ConvLayer(
                name, conv, (size[0], size[1], size[2]), math.prod(output.shape[2:]), is_first
            )
            last[id(output)] = found[id(module)]
        elif _follows(module) and (layer := last.pop(id(inputs[0]), None)) is not None and _fits(layer, module):
            layer.after.append(_like(network, meta_network, module))
            last[id(output)] = layer

    for module in meta_network.modules():
        module.register_forward_hook(record)
    with torch.no_grad():
        meta_network(image)
    return list(found.values())


def _follows(module: nn.Module) -> bool:
    """Return whether a module is a BatchNorm or an activation."""
    return isinstance(module, nn.BatchNorm2d) or "activation" in type(module).__module__


def _fits(layer: ConvLayer, module: nn.Module) -> bool:
    """Return whether a module belongs to the layer: one BatchNorm, then one activation."""
    return len(layer.after) < 2 and (not layer.after or not isinstance(module, nn.BatchNorm2d))


def _like(network: nn.Module, meta_network: nn.Module, module: nn.Module) -> nn.Module:
    """Return the original of a module on the meta device."""
    name = next(name for name, one in meta_network.named_modules() if one is module)
    return network.get_submodule(name)
