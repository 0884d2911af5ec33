"""Networks that others wrote, by name, under this project's contract."""

import torchvision
from torch import Tensor, nn

from .contract import Network
from .init import he_init
from .knobs import check_choice, check_knobs

HEAD = ("avgpool", "fc", "classifier")  # torchvision's names for what stands behind the trunk

# Of each network, by stride: the last module at that resolution, and its channels.
MAPS = {
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


def torchvision_network(name: str, num_classes: int = 1000, in_chans: int = 3) -> TorchvisionNetwork:
    """Build the network `name` of MAPS with torchvision's layers and torchvision's initial weights.

    Raises ValueError for a name that is not there.
    """
    check_choice("name", name, tuple(MAPS))
    check_knobs(num_classes=num_classes, in_chans=in_chans)
    network = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    if in_chans != 3:
        _read_channels(network, in_chans)
    return TorchvisionNetwork(network, MAPS[name])


def _read_channels(network: nn.Module, in_chans: int) -> None:
    """Let the first convolution read another number of channels; torchvision draws it as `he_init` does."""
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    first.in_channels = in_chans
    first.weight = nn.Parameter(first.weight.new_empty(first.out_channels, in_chans, *first.kernel_size))
    he_init(first)
