"""Make the ghost version of an existing network: replace its convolutions by ghost modules."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from .base import he_init
from .ghost_module import GhostModule, NormAct

N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class GhostifiedConv:
    """A convolution that became a ghost module, and its number of parameters before and after."""

    name: str
    params_before: int
    params_after: int


def ghostify(
    network: N, ratio: int = 2, dw_size: int = 3, *, exclude: str | Sequence[str] = (), norm_act: NormAct = "none"
) -> N:
    """Replace the convolutions of `network` by ghost modules, in place, and return it.

    Replaced are the ungrouped `nn.Conv2d`; grouped and depthwise ones, subclasses of `nn.Conv2d` with their own
    forward, and existing ghost modules stay. Kernel, stride, padding, dilation, padding mode, bias, device and dtype
    are those of the convolution. The new weights are initialised by `he_init`: load trained ones afterwards.

    exclude: which convolutions stay: any of `first` (the first one that the network registers), `1x1`, and patterns of
    module names such as `layer1.*`.
    norm_act: `none` (the network's own BatchNorm and ReLU follow), `bn` or `bn_relu`, see `GhostModule`.
    `network.ghostified` is a tuple with a `GhostifiedConv` for each replaced convolution.
    Raises ValueError when an item of `exclude` matches nothing, and when nothing is left to replace.
    Source: arXiv 1911.11907, section 4.1.
    """
    convs = replaceable_convs(network)
    kept = _excluded([exclude] if isinstance(exclude, str) else exclude, convs)
    return ghostify_convs(network, {conv: (ratio, dw_size) for conv in convs.values() if conv not in kept}, norm_act)


def ghostify_convs(network: N, sizes: Mapping[nn.Conv2d, tuple[int, int]], norm_act: NormAct = "none") -> N:
    """Replace chosen convolutions of `network`, each with a ratio and dw_size of its own, otherwise as `ghostify`."""
    ghosts: dict[nn.Conv2d, GhostModule] = {}  # a convolution used twice becomes one ghost module
    report: list[GhostifiedConv] = []
    for name, conv in replaceable_convs(network).items():
        if conv not in sizes:
            continue
        if conv not in ghosts:
            ghosts[conv] = build_ghost_module(conv, *sizes[conv], norm_act)
            report.append(GhostifiedConv(name, _params(conv), _params(ghosts[conv])))
        network.set_submodule(name, ghosts[conv])
    if not report:
        raise ValueError(f"model.network: {type(network).__name__} has no convolution left that ghostify can replace")
    network.ghostified = (*getattr(network, "ghostified", ()), *report)  # pyright: ignore[reportArgumentType]
    return network


def replaceable_convs(network: nn.Module) -> dict[str, nn.Conv2d]:
    """List ungrouped convolutions outside ghost modules by name, under each of its names when one is used twice."""
    modules = dict(network.named_modules(remove_duplicate=False))
    inside = tuple(name and f"{name}." for name, module in modules.items() if isinstance(module, GhostModule))
    return {
        name: module
        for name, module in modules.items()
        if type(module) is nn.Conv2d and module.groups == 1 and name and not name.startswith(inside)
    }


def _excluded(exclude: Sequence[str], convs: dict[str, nn.Conv2d]) -> set[nn.Conv2d]:
    kept: set[nn.Conv2d] = set()
    for pattern in exclude:
        if pattern == "first":
            matched = list(convs.values())[:1]
        elif pattern == "1x1":
            matched = [conv for conv in convs.values() if conv.kernel_size == (1, 1)]
        else:
            matched = [conv for name, conv in convs.items() if fnmatch.fnmatchcase(name, pattern)]
        if not matched:
            some = ", ".join(list(convs)[:3])
            raise ValueError(f"model.exclude={pattern}: none of the {len(convs)} convolutions ({some}, ...) matches")
        kept.update(matched)
    return kept


def build_ghost_module(conv: nn.Conv2d, ratio: int, dw_size: int, norm_act: NormAct = "none") -> GhostModule:
    """Build the ghost module with the geometry, device and dtype of a convolution, initialised by `he_init`."""
    geometry = {key: getattr(conv, key) for key in ("kernel_size", "stride", "padding", "dilation", "padding_mode")}
    with torch.device(conv.weight.device):
        ghost = GhostModule(
            conv.in_channels,
            conv.out_channels,
            ratio=ratio,
            dw_size=dw_size,
            bias=conv.bias is not None,
            norm_act=norm_act,
            **geometry,
        )
    he_init(ghost)
    return ghost.to(conv.weight.dtype).train(conv.training)


def _params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
