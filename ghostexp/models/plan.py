"""Apply a plan: which convolutions of a network become ghost modules, and at which ratio and dw_size."""

import fnmatch
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from torch import nn

from .ghostify import ghostify_convs, replaceable_convs
from .validation import RULES

N = TypeVar("N", bound=nn.Module)
KEYS = ("name", "layers")


class GhostSize(NamedTuple):
    """Hyperparameters of one ghost module; at ratio 1 the convolution stays."""

    ratio: int
    dw_size: int = 3


def apply_plan(network: N, plan: Mapping[str, Any], key: str = "model.plan") -> N:
    """Replace convolutions of `network` by ghost modules as a plan says, in place, and return it.

    plan: `{"layers": {"layer2.*": {"ratio": 2, "dw_size": 3}}}`, by names of convolutions or patterns of them, of which
    the last that matches decides. Convolutions that no pattern matches, or at ratio 1, stay.
    key: the config key in error messages.
    Raises ValueError: a plan of another form, a pattern that matches nothing, or a ratio above the number of channels.
    """
    convs = replaceable_convs(network)
    chosen: dict[str, GhostSize] = {}
    for pattern, values in _layers(plan, key).items():
        matched = fnmatch.filter(convs, pattern)
        if not matched:
            raise ValueError(f"{key}: {pattern} matches no convolution of the network{_there_are(convs)}")
        chosen |= dict.fromkeys(matched, _size(values, f"{key}: {pattern}"))
    sizes = {convs[name]: size for name, size in chosen.items() if size.ratio > 1}
    for name, size in chosen.items():
        if size.ratio > (channels := convs[name].out_channels):
            raise ValueError(f"{key}: {name}: ratio={size.ratio}: must be <= {channels}, its output channels")
    return ghostify_convs(network, sizes) if sizes else network


def _there_are(convs: Mapping[str, nn.Conv2d]) -> str:
    if not convs:
        return ", which has none outside ghost modules; a plan is for the ordinary network, such as model=resnet56"
    return f"; its {len(convs)} ungrouped ones outside ghost modules are {', '.join(list(convs)[:3])}, ..."


def _layers(plan: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    unknown = [name for name in plan if name not in KEYS]
    if unknown:
        raise ValueError(f"{key}.{unknown[0]}: unknown; a plan has {' and '.join(KEYS)}")
    layers = plan.get("layers")
    if not isinstance(layers, Mapping):
        raise ValueError(f"{key}.layers={layers}: must be a mapping such as {{layer2.*: {{ratio: 2}}}}")
    return layers


def _size(values: object, where: str) -> GhostSize:
    """Check the values of one pattern."""
    if not isinstance(values, Mapping) or "ratio" not in values:
        raise ValueError(f"{where}: {values}: must be a mapping with a ratio, such as {{ratio: 2, dw_size: 3}}")
    for name, value in values.items():
        if name not in GhostSize._fields:
            raise ValueError(f"{where}: {name}: unknown; there is {', '.join(GhostSize._fields)}")
        needed, allowed = RULES[str(name)]
        if not allowed(value):
            raise ValueError(f"{where}: {name}={value}: must be {needed}")
    return GhostSize(**values)
