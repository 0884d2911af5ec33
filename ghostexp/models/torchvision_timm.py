"""Build networks of torchvision and timm by name, with the interface of `Network`, and their ghost versions."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import torchvision
from torch import Tensor, nn

from .base import Network, he_init
from .ghost_module import NormAct
from .ghostify import ghostify
from .validation import check_args

HEAD = ("avgpool", "fc", "classifier")  # torchvision's names of the layers after the trunk
AUXILIARY = ("googlenet", "inception_v3")  # return more than logits unless aux_logits=False

# For each network, by stride: the last module at that resolution, and its channels.
FEATURE_MAPS = {
    "resnet18": {4: ("layer1", 64), 8: ("layer2", 128), 16: ("layer3", 256), 32: ("layer4", 512)},
    "resnet34": {4: ("layer1", 64), 8: ("layer2", 128), 16: ("layer3", 256), 32: ("layer4", 512)},
    "resnet50": {4: ("layer1", 256), 8: ("layer2", 512), 16: ("layer3", 1024), 32: ("layer4", 2048)},
    "mobilenet_v2": {
        4: ("features.3", 24),
        8: ("features.6", 32),
        16: ("features.13", 96),
        32: ("features.17", 320),
    },
    "mobilenet_v3_large": {
        4: ("features.3", 24),
        8: ("features.6", 40),
        16: ("features.12", 112),
        32: ("features.15", 160),
    },
    "mobilenet_v3_small": {
        4: ("features.1", 16),
        8: ("features.3", 24),
        16: ("features.8", 48),
        32: ("features.11", 96),
    },
}


class TorchvisionNetwork(Network):
    """A torchvision network with its layers under their own names: the state dict is torchvision's.

    (N, in_chans, H, W) -> (N, num_classes), any H and W.
    """

    def __init__(self, network: nn.Module, maps: dict[int, tuple[str, int]]) -> None:
        super().__init__()
        for name, child in network.named_children():
            self.add_module(name, child)
        self.map_strides = {name: stride for stride, (name, _) in maps.items()}
        self.feature_channels = {stride: channels for stride, (_, channels) in maps.items()}

    def forward_features(self, x: Tensor) -> Tensor:
        for _, layer in self._trunk():
            x = layer(x)
        return x

    def forward_head(self, features: Tensor) -> Tensor:
        *_, classifier = self.children()
        return classifier(features.mean((2, 3)))

    def feature_maps(self, x: Tensor) -> dict[int, Tensor]:
        maps: dict[int, Tensor] = {}
        for name, layer in self._trunk():
            x = layer(x)
            if name in self.map_strides:
                maps[self.map_strides[name]] = x
        return maps

    def _trunk(self) -> list[tuple[str, nn.Module]]:
        trunk = [(name, child) for name, child in self.named_children() if name not in HEAD]
        if trunk[0][0] == "features":
            return [(f"features.{name}", layer) for name, layer in trunk[0][1].named_children()]
        return trunk


class LogitsOnlyNetwork(Network):
    """A network of another library without known feature maps: `as_network` mixes it in."""

    feature_channels: dict[int, int] = {}

    def forward_features(self, x: Tensor) -> Tensor:
        raise ValueError(self._unknown())

    def forward_head(self, features: Tensor) -> Tensor:
        raise ValueError(self._unknown())

    def feature_maps(self, x: Tensor) -> dict[int, Tensor]:
        raise ValueError(self._unknown())

    def _unknown(self) -> str:
        known = ", ".join(FEATURE_MAPS)
        return f"model.name: {type(self).__name__} has no known feature maps, must be one of {known}"


def as_network(network: nn.Module) -> Network:
    """Make a module, in place, a `Network` with its own layers, forward and state dict, but without feature maps."""
    kind = type(network)
    network.__class__ = type(kind.__name__, (kind, LogitsOnlyNetwork), {})  # pyright: ignore[reportGeneralTypeIssues]
    assert isinstance(network, Network)
    return network


def torchvision_network(
    name: str,
    num_classes: int = 1000,
    in_chans: int = 3,
    ratio: int | None = None,
    dw_size: int = 3,
    exclude: str | Sequence[str] = (),
    norm_act: NormAct = "none",
    kwargs: Mapping[str, Any] | None = None,
) -> Network:
    """Build a classification network with torchvision's layers and torchvision's initial weights.

    ratio: None builds the original; an integer its ghost version, by `ghostify` with dw_size, exclude and norm_act.
    kwargs: further arguments of torchvision's builder, such as `width_mult`.
    Raises ValueError for a name that torchvision does not have, and for arguments that its builder rejects.
    """
    check_args(num_classes=num_classes, in_chans=in_chans)
    check_name(name, torchvision.models.list_models(module=torchvision.models), "torchvision")
    given = ({"aux_logits": False} if name in AUXILIARY else {}) | dict(kwargs or {})
    try:
        network = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **given)
    except TypeError as error:
        raise ValueError(f"model.kwargs={given}: torchvision's {name} does not accept them ({error})") from error
    if in_chans != 3:
        _set_in_channels(network, in_chans)
    known = (
        TorchvisionNetwork(network, FEATURE_MAPS[name]) if name in FEATURE_MAPS and not kwargs else as_network(network)
    )
    return known if ratio is None else ghostify(known, ratio, dw_size, exclude=exclude, norm_act=norm_act)


def timm_network(
    name: str,
    num_classes: int = 1000,
    in_chans: int = 3,
    ratio: int | None = None,
    dw_size: int = 3,
    exclude: str | Sequence[str] = (),
    norm_act: NormAct = "none",
    kwargs: Mapping[str, Any] | None = None,
) -> Network:
    """Build a network of timm, if that is installed; arguments and errors as in `torchvision_network`."""
    try:
        import timm
    except ImportError:
        raise ValueError(f'model.name={name}: needs timm; pip install "ghostexp[timm]"') from None
    check_args(num_classes=num_classes, in_chans=in_chans)
    check_name(name, timm.list_models(), "timm")
    given = dict(kwargs or {})
    try:
        network = timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=in_chans, **given)
    except TypeError as error:
        raise ValueError(f"model.kwargs={given}: timm's {name} does not accept them ({error})") from error
    known = as_network(network)
    return known if ratio is None else ghostify(known, ratio, dw_size, exclude=exclude, norm_act=norm_act)


def check_name(name: str, names: Sequence[str], library: str) -> None:
    """Raise ValueError, with the closest names, for a network that a library does not have."""
    if name not in names:
        close = difflib.get_close_matches(str(name), names, n=5, cutoff=0.4)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise ValueError(f"model.name={name}: {library} has no such network{hint}")


def _set_in_channels(network: nn.Module, in_chans: int) -> None:
    """Replace the first convolution's input channels; torchvision initialises it as `he_init` does."""
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    first.in_channels = in_chans
    first.weight = nn.Parameter(first.weight.new_empty(first.out_channels, in_chans, *first.kernel_size))
    he_init(first)
