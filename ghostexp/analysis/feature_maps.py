"""Select layers of a network, and extract their feature maps."""

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor, nn

from ghostexp.models.ghost_module import GhostModule

DEFAULT = 3  # layers, spread over depth


@dataclass(frozen=True)
class FeatureMaps:
    """A layer's output for a batch: intrinsic maps (N, M, H, W) and their ghosts (N, G, H, W), before any attention.

    Each intrinsic map has `ghosts_per_map` ghosts in a row; some of the last ones may be cut off.
    For a layer without ghosts, `intrinsic` holds all maps.
    """

    intrinsic: Tensor
    ghosts: Tensor | None = None
    ghosts_per_map: int = 0

    @property
    def all_maps(self) -> Tensor:
        """Concatenate all maps: (N, C, H, W)."""
        return self.intrinsic if self.ghosts is None else torch.cat([self.intrinsic, self.ghosts], 1)


def selectable_layers(network: nn.Module) -> dict[str, nn.Module]:
    """List ghost modules, and ungrouped convolutions outside of them, by name."""
    ghosts = [name for name, module in network.named_modules() if isinstance(module, GhostModule)]
    inside = tuple(f"{name}." for name in ghosts)
    return {
        name: module
        for name, module in network.named_modules()
        if name in ghosts or (_is_ungrouped_conv(module) and not name.startswith(inside))
    }


def _is_ungrouped_conv(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == 1


def select_layers(network: nn.Module, wanted: Sequence[str] | None, image: Tensor) -> dict[str, nn.Module]:
    """Select layers by name, or by patterns of the names in `selectable_layers`; else `DEFAULT` ones spread over depth.

    By default ghost modules, in a network without any convolutions; layers whose map of `image` (1, C, H, W) has one
    pixel, as in squeeze-and-excitation, are left out. A name may be that of any module.
    Raises ValueError: a name or a pattern matches nothing, or a module whose output is no feature map.
    """
    named = selectable_layers(network)
    if wanted is None:
        ghosts = {name: module for name, module in named.items() if has_cheap_operation(module)}
        return _spread(network, ghosts or named, image)
    chosen: dict[str, nn.Module] = {}
    modules = dict(network.named_modules())
    for pattern in wanted:
        matched = [name for name in named if fnmatch.fnmatchcase(name, pattern)]
        matched = matched or [name for name in modules if name and name == pattern]
        if not matched:
            raise ValueError(f"task.layers={pattern}: must be one of {', '.join(named)}")
        chosen |= {name: modules[name] for name in matched}
    extracted = extract_feature_maps(network, chosen, image)
    for name in chosen:
        found = tuple(extracted[name].intrinsic.shape) if name in extracted else "no tensor"
        if len(found) != 4:
            raise ValueError(f"task.layers={name}: must output maps (N, C, H, W), got {found}")
    return chosen


def _spread(network: nn.Module, named: Mapping[str, nn.Module], image: Tensor) -> dict[str, nn.Module]:
    maps = extract_feature_maps(network, named, image)
    large = [name for name in named if name in maps and maps[name].intrinsic[0, 0].numel() > 1]
    indices = torch.linspace(0, len(large) - 1, min(DEFAULT, len(large))).round().int().tolist()
    return {large[index]: named[large[index]] for index in indices}


def has_cheap_operation(module: nn.Module) -> TypeGuard[GhostModule]:
    """Return whether a layer computes ghosts: a ghost module at ratio 1 does not."""
    return isinstance(module, GhostModule) and module.cheap_operation is not None


def cheap_filters(module: GhostModule) -> Tensor:
    """Return the filters of a module's ghosts, (G, d, d); re-parameterise branches before."""
    assert module.cheap_operation is not None
    conv = module.cheap_operation[0]
    assert isinstance(conv, nn.Conv2d)
    return conv.weight.detach()[: module.out_channels - conv.groups, 0]  # one group per intrinsic map


@torch.inference_mode()
def extract_feature_maps(network: nn.Module, layers: Mapping[str, nn.Module], images: Tensor) -> dict[str, FeatureMaps]:
    """Extract the maps of layers for images (N, C, H, W), before later layers change them in place."""
    extracted: dict[str, FeatureMaps] = {}
    with _record_outputs(layers) as outputs:
        network(images)
    for name, module in layers.items():
        parts = [outputs[part] for part in _parts(module) if part in outputs]
        if has_cheap_operation(module) and parts:
            intrinsic, ghosts = parts
            kept = ghosts[:, : module.out_channels - intrinsic.shape[1]]
            extracted[name] = FeatureMaps(intrinsic, kept, ghosts_per_map=ghosts.shape[1] // intrinsic.shape[1])
        elif parts:
            extracted[name] = FeatureMaps(parts[0])
    return extracted


def _parts(module: nn.Module) -> list[nn.Module]:
    """List the modules that output a layer's maps: the two parts of a ghost module, or the layer itself."""
    if has_cheap_operation(module):
        assert module.cheap_operation is not None
        return [module.primary_conv, module.cheap_operation]
    return [module]


@contextmanager
def _record_outputs(layers: Mapping[str, nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """Record, within the context, the output of each layer, and of each part of a ghost module."""
    outputs: dict[nn.Module, Tensor] = {}

    def record(module: nn.Module, arguments: object, output: object) -> None:
        if isinstance(output, Tensor):
            outputs[module] = output.clone()  # later layers may work in place

    handles = [part.register_forward_hook(record) for module in layers.values() for part in _parts(module)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
