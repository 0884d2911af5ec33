"""What each layer of a network costs on one image."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ghostexp.analysis.cost import Shape, count
from ghostexp.models.ghost import GhostModule

THOP_PER_ELEMENT = 4  # what thop adds for each element that a BatchNorm writes


@dataclass(frozen=True)
class Layer:
    """One layer of a network and what it costs on one image; params are trainable.

    part: `primary` or `cheap` inside a ghost module, else empty. output: (C, H, W), or less.
    """

    name: str
    kind: str
    part: str
    output: str
    params: int
    macs: int
    activations: int
    thop: int


def layers(network: nn.Module, image_shape: Shape) -> list[Layer]:
    """A row for each convolution, linear layer and BatchNorm that runs, in the order of their first run.

    What belongs to no such layer, as the products inside an attention do, is one row at the end, if there is any.

    activations: elements that convolutions and linear layers write, as arXiv 2003.13678 counts them.
    thop: what the package thop would count: MACs, and 4 for each element that a BatchNorm writes.
    """
    shadow = copy.deepcopy(network).to("meta").eval()
    written: dict[str, list[Tensor]] = {}
    for name, module in shadow.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            module.register_forward_hook(_remember(written, name))
    with torch.no_grad():
        shadow(torch.empty(1, *image_shape, device="meta"))
    rows = [_layer(shadow, name, outputs) for name, outputs in written.items()]
    whole = count(network, image_shape)
    params, macs = whole.params - sum(row.params for row in rows), whole.macs - sum(row.macs for row in rows)
    return rows + [Layer("(elsewhere)", "", "", "", params, macs, 0, macs)] * bool(params or macs)


def _remember(written: dict[str, list[Tensor]], name: str) -> Callable[[nn.Module, tuple, Tensor], None]:
    return lambda module, inputs, output: written.setdefault(name, []).append(output)


def _layer(network: nn.Module, name: str, outputs: list[Tensor]) -> Layer:
    module = network.get_submodule(name)
    elements = sum(output.numel() for output in outputs)
    multiplies = not isinstance(module, nn.BatchNorm2d)
    per_element = _macs_per_element(module) if multiplies else THOP_PER_ELEMENT
    return Layer(
        name=name,
        kind=_kind(module),
        part=_part(network, name),
        output=" x ".join(str(side) for side in outputs[0].shape[1:]),
        params=sum(parameter.numel() for parameter in module.parameters()),
        macs=elements * per_element if multiplies else 0,
        activations=elements if multiplies else 0,
        thop=elements * per_element,
    )


def _macs_per_element(module: nn.Module) -> int:
    if isinstance(module, nn.Linear):
        return module.in_features
    assert isinstance(module, nn.Conv2d)
    return module.in_channels // module.groups * math.prod(module.kernel_size)


def _kind(module: nn.Module) -> str:
    if not isinstance(module, nn.Conv2d):
        return "linear" if isinstance(module, nn.Linear) else "batchnorm"
    kernel = "x".join(str(side) for side in module.kernel_size)
    return f"conv {kernel}" + (f", {module.groups} groups" if module.groups > 1 else "")


def _part(network: nn.Module, name: str) -> str:
    """Whether a layer belongs to the primary or the cheap operation of a ghost module, by that module's names."""
    path = name.split(".")
    for depth in range(len(path)):
        if isinstance(network.get_submodule(".".join(path[:depth])), GhostModule):
            parts = [part for part in ("primary", "cheap") if path[depth].startswith(part)]
            return parts[0] if parts else ""
    return ""
