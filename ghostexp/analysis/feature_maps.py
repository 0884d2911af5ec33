"""Which layers of a network are looked at, and the maps that they make."""

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
    """What a layer makes of a batch: intrinsic maps (N, M, H, W) and their ghosts (N, G, H, W).

    Each intrinsic map makes `each` ghosts, which stand together; of the last ones some may be cut off.
    An ordinary layer has no ghosts, and all of its maps stand in `intrinsic`.
    """

    intrinsic: Tensor
    ghosts: Tensor | None = None
    each: int = 0

    @property
    def together(self) -> Tensor:
        """All maps, as the layer hands them on: (N, C, H, W)."""
        return self.intrinsic if self.ghosts is None else torch.cat([self.intrinsic, self.ghosts], 1)


def selectable_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Ghost modules, and ungrouped convolutions outside of them, by name."""
    ghosts = [name for name, module in network.named_modules() if isinstance(module, GhostModule)]
    inside = tuple(f"{name}." for name in ghosts)
    return {
        name: module
        for name, module in network.named_modules()
        if name in ghosts or (_is_ordinary(module) and not name.startswith(inside))
    }


def _is_ordinary(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == 1


def select_layers(network: nn.Module, wanted: Sequence[str] | None, image: Tensor) -> dict[str, nn.Module]:
    """The layers of given names, or of patterns of candidates' names; else `DEFAULT` ones spread over depth.

    By default they are ghost modules, of a network without any the convolutions, and those whose map of `image`
    (1, C, H, W) has one pixel, as in squeeze-and-excitation, are left out. A name may be that of any module.
    Raises ValueError: a name or a pattern matches nothing, or a module that makes no maps.
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
            raise ValueError(f"task.layers={pattern}: no such layer; there are {', '.join(named)}")
        chosen |= {name: modules[name] for name in matched}
    for name, maps in extract_feature_maps(network, chosen, image).items():
        if maps.intrinsic.ndim != 4:
            raise ValueError(f"task.layers={name}: makes no maps (N, C, H, W), but {tuple(maps.intrinsic.shape)}")
    return chosen


def _spread(network: nn.Module, named: Mapping[str, nn.Module], image: Tensor) -> dict[str, nn.Module]:
    maps = extract_feature_maps(network, named, image)
    large = [name for name in named if name in maps and maps[name].intrinsic[0, 0].numel() > 1]
    places = torch.linspace(0, len(large) - 1, min(DEFAULT, len(large))).round().int().tolist()
    return {large[place]: named[large[place]] for place in places}


def has_cheap_operation(module: nn.Module) -> TypeGuard[GhostModule]:
    """Whether a layer makes ghosts: a ghost module at ratio 1 does not."""
    return isinstance(module, GhostModule) and module.cheap_operation is not None


def cheap_filters(module: GhostModule) -> Tensor:
    """The filters that make a module's ghosts, (G, d, d); branches have to be re-parameterised before."""
    assert module.cheap_operation is not None
    conv = module.cheap_operation[0]
    assert isinstance(conv, nn.Conv2d)
    return conv.weight.detach()[: module.out_channels - conv.groups, 0]  # there is a group for each intrinsic map


@torch.inference_mode()
def extract_feature_maps(network: nn.Module, layers: Mapping[str, nn.Module], images: Tensor) -> dict[str, FeatureMaps]:
    """The maps that layers make of images (N, C, H, W), before what follows them in the network."""
    found: dict[str, FeatureMaps] = {}
    with _noted(layers) as outputs:
        network(images)
    for name, module in layers.items():
        made = [outputs[part] for part in _parts(module) if part in outputs]
        if has_cheap_operation(module):
            intrinsic, ghosts = made
            kept = ghosts[:, : module.out_channels - intrinsic.shape[1]]
            found[name] = FeatureMaps(intrinsic, kept, each=ghosts.shape[1] // intrinsic.shape[1])
        elif made:
            found[name] = FeatureMaps(made[0])
    return found


def _parts(module: nn.Module) -> list[nn.Module]:
    """What makes a layer's maps: the two halves of a ghost module, or the layer itself."""
    if has_cheap_operation(module):
        assert module.cheap_operation is not None
        return [module.primary_conv, module.cheap_operation]
    return [module]


@contextmanager
def _noted(layers: Mapping[str, nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """While this lasts, note what each layer, and each half of a ghost module, makes."""
    outputs: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, arguments: object, output: Tensor) -> None:
        outputs[module] = output.clone()  # what follows may work in place

    handles = [part.register_forward_hook(note) for module in layers.values() for part in _parts(module)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
