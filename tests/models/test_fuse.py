"""Test networks fused for inference: the same logits without BatchNorm."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghostexp.analysis.cost import count_cost
from ghostexp.models.base import Network
from ghostexp.models.fuse import fuse, is_foldable
from ghostexp.models.ghostify import ghostify
from ghostexp.models.ghostnet import ghostnet, ghostnet_small
from ghostexp.models.ghostnetv2 import ghostnetv2
from ghostexp.models.ghostnetv3 import ghostnetv3
from ghostexp.models.plan import apply_plan
from ghostexp.models.resnet_cifar import resnet20
from ghostexp.models.torchvision_timm import timm_network, torchvision_network
from ghostexp.models.vgg_cifar import vgg16

from .timm_reference import of_kind, randomize_norms

TORCHVISION = ("resnet18", "resnet34", "resnet50", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")
EXACTLY = 1e-10  # of the logits' standard deviation, in float64
NETWORKS: dict[str, Callable[[], Network]] = {
    "ghostnet": lambda: ghostnet(num_classes=7, width=0.5),
    "ghostnet ratio 3": lambda: ghostnet(num_classes=7, width=0.5, ratio=3, dw_size=5),
    "ghostnet_small": lambda: ghostnet_small(num_classes=7),
    "ghostnetv2": lambda: ghostnetv2(num_classes=7, width=0.5),
    "ghostnetv3": lambda: ghostnetv3(num_classes=7, width=0.5),
    "resnet20": lambda: resnet20(num_classes=7, shortcut="B"),
    "vgg16": lambda: vgg16(num_classes=7),
    "ghost_resnet20, BatchNorm inside": lambda: ghostify(resnet20(num_classes=7), norm_act="bn_relu"),
    "ghost_resnet20": lambda: ghostify(resnet20(num_classes=7)),
    "ghost_resnet20 ratio 3, channels cut off": lambda: ghostify(resnet20(num_classes=7), 3, 5),
    "ghost_vgg16": lambda: ghostify(vgg16(num_classes=7)),
    "planned": lambda: apply_plan(resnet20(num_classes=7), {"layers": {"layer1.*": {"ratio": 2}}}),
    "ghost resnet18 of torchvision": lambda: torchvision_network("resnet18", num_classes=7, ratio=2),
    "ghost network of timm": lambda: timm_network("mobilenetv3_small_050", num_classes=7, ratio=2),
    "ghost_resnet20 ratio 1": lambda: ghostify(resnet20(num_classes=7), 1),
    **{name: lambda name=name: torchvision_network(name, num_classes=7) for name in TORCHVISION},
}
STAY = {  # BatchNorms after a ghost module; its other convolutions' are folded
    "ghost_resnet20, BatchNorm inside": 19,
    "ghost_resnet20": 19,
    "ghost_resnet20 ratio 3, channels cut off": 19,
    "ghost_vgg16": 13,
    "planned": 6,
    "ghost resnet18 of torchvision": 20,
    "ghost network of timm": 23,
}


def pair(build: Callable[[], Network]) -> tuple[Network, Network]:
    """Build a network with random BatchNorms, and its fused copy, in float64."""
    torch.manual_seed(0)
    network = build()
    randomize_norms(network)
    return network.double(), fuse(network)


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.std())


@pytest.mark.parametrize("name", NETWORKS)
def test_fuse_keeps_logits_and_removes_batchnorm(name: str) -> None:
    network, fused = pair(NETWORKS[name])
    assert len(of_kind(fused, nn.BatchNorm2d)) == STAY.get(name, 0)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        reference = network(x.double())
        assert distance(fused(x.double()), reference) < EXACTLY
        rounding = distance(network.float()(x), reference)  # of float32, without any fold
        assert distance(fused.float()(x), reference) < 5 * max(rounding, 1e-6)


def test_fuse_does_not_change_the_network() -> None:
    network = ghostnetv3(width=0.5).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fused = fuse(network)
    assert network.training
    assert not fused.training
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_fuse_keeps_layout_dtype_and_feature_maps() -> None:
    network = ghostnetv2(width=0.5, num_classes=7).bfloat16().eval()
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    fused = fuse(network)
    assert {parameter.dtype for parameter in fused.parameters()} == {torch.bfloat16}
    assert fused.conv_stem.weight.is_contiguous(memory_format=torch.channels_last)
    maps = fused.feature_maps(torch.randn(1, 3, 64, 64, dtype=torch.bfloat16))
    assert {stride: found.shape[1] for stride, found in maps.items()} == network.feature_channels


def test_fuse_saves_one_parameter_per_channel() -> None:
    network = ghostnet(width=0.5)
    channels = sum(norm.num_features for norm in of_kind(network, nn.BatchNorm2d))
    before, after = count_cost(network, (3, 64, 64)), count_cost(fuse(network), (3, 64, 64))
    assert after.macs == before.macs
    assert after.params == before.params - channels


class Trap(Network):
    """A convolution and a BatchNorm that look as if they could be folded."""

    def __init__(self, follow: Callable[["Trap", Tensor], Tensor]) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)  # registered in another order than they run
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.again = nn.Conv2d(4, 4, 1, bias=False)
        self.fc = nn.Linear(4, 7)
        self.follow = follow

    def forward_features(self, x: Tensor) -> Tensor:
        return self.follow(self, x)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.fc(features.mean((2, 3)))

    def feature_maps(self, x: Tensor) -> dict[int, Tensor]:
        return {1: self.forward_features(x)}


def read_by_another(trap: Trap, x: Tensor) -> Tensor:
    y = trap.conv(x)
    return trap.norm(y) + y


def changed_in_place(trap: Trap, x: Tensor) -> Tensor:
    return trap.norm(trap.relu(trap.conv(x)))


def norm_of_two_convolutions(trap: Trap, x: Tensor) -> Tensor:
    return trap.norm(trap.again(trap.norm(trap.conv(x))))


def convolution_used_twice(trap: Trap, x: Tensor) -> Tensor:
    y = trap.norm(trap.conv(x))
    return y + trap.conv(x)


def convolution_behind(trap: Trap, x: Tensor) -> Tensor:
    return trap.again(trap.norm(F.pad(x, (0, 0, 0, 0, 0, 1))))


def kernel_read_elsewhere(trap: Trap, x: Tensor) -> Tensor:
    return trap.norm(trap.conv(x)) * trap.conv.weight.sum()


def concatenated(trap: Trap, x: Tensor) -> Tensor:
    y = trap.conv(x)
    return trap.norm(torch.cat([y[:, :2], y[:, 2:]], 1))


@pytest.mark.parametrize(
    "follow",
    [
        read_by_another,
        changed_in_place,
        norm_of_two_convolutions,
        convolution_used_twice,
        convolution_behind,
        kernel_read_elsewhere,
        concatenated,
    ],
    ids=lambda follow: follow.__name__,
)
def test_fuse_keeps_unfoldable_batchnorm(follow: Callable[[Trap, Tensor], Tensor]) -> None:
    network, fused = pair(lambda: Trap(follow))
    assert isinstance(fused.norm, nn.BatchNorm2d)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(fused(x), network(x))


def test_fuse_follows_execution_order_not_names() -> None:
    network, fused = pair(lambda: Trap(lambda trap, x: trap.relu(trap.norm(trap.conv(x)))))
    assert isinstance(fused.norm, nn.Identity)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(fused(x), network(x))


@pytest.mark.parametrize(("name", "side"), [("vit_b_16", 224), ("alexnet", 224), ("inception_v3", 96)])
def test_fuse_runs_networks_on_images_of_their_size(name: str, side: int) -> None:
    with torch.device("meta"):
        network = torchvision_network(name, num_classes=2)
    fused = fuse(network, (3, side, side))
    norms = [sum(is_foldable(module) for module in one.modules()) for one in (network, fused)]
    assert norms == ([94, 0] if name == "inception_v3" else [0, 0])


@pytest.mark.parametrize(("name", "macs"), [("mobileone_s0", 275_110_400), ("ghostnetv3_050", 49_640_656)])
def test_fuse_folds_the_branches_of_timm(name: str, macs: int) -> None:
    """The counts are those of timm's own `reparameterize_model`."""
    torch.manual_seed(0)
    network = timm_network(name)
    randomize_norms(network)
    fused = fuse(network.double(), (3, 128, 128))
    x = torch.randn(1, 3, 128, 128, dtype=torch.float64)
    with torch.no_grad():
        assert distance(fused(x), network(x)) < EXACTLY
    assert count_cost(fused.float(), (3, 224, 224)).macs == macs
