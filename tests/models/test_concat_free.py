"""Networks without concatenations compute the same."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ghostexp.models.base import Network
from ghostexp.models.concat_free import CAT, concat_free, has_concatenations
from ghostexp.models.fuse import fuse
from ghostexp.models.ghost_module import GhostModule
from ghostexp.models.ghostify import ghostify
from ghostexp.models.ghostnet import ghostnet_replication, ghostnet_small
from ghostexp.models.ghostnetv2 import ghostnetv2
from ghostexp.models.ghostnetv3 import ghostnetv3
from ghostexp.models.plan import apply_plan
from ghostexp.models.resnet_cifar import resnet20
from ghostexp.models.torchvision_timm import torchvision_network
from ghostexp.models.vgg_cifar import vgg16

from .timm_reference import randomize_norms

EXACTLY = 1e-10  # of the logits' standard deviation, in float64
# A builder, the concatenations before, and those that stay: where a map of ordinary layers is added, or at the head.
NETWORKS: dict[str, tuple[Callable[[], Network], int, int]] = {
    "ghostnet_small": (lambda: ghostnet_small(width=0.25), 20, 0),
    "ratio 3, channels cut off": (lambda: ghostnet_small(width=0.25, ratio=3, dw_size=5), 20, 0),
    "ghostnet_replication": (ghostnet_replication, 32, 1),
    "ghostnetv2": (lambda: ghostnetv2(width=0.25), 32, 1),
    "ghostnetv3": (lambda: ghostnetv3(width=0.25), 32, 1),
    "ghost_resnet20": (lambda: ghostify(resnet20()), 19, 7),
    "ghost_resnet20, shortcut B": (lambda: ghostify(resnet20(shortcut="B"), 3), 21, 1),
    "ghost_resnet20, BatchNorm inside": (lambda: ghostify(resnet20(), norm_act="bn_relu"), 19, 7),
    "ghost_vgg16": (lambda: ghostify(vgg16()), 13, 1),
    "planned": (lambda: apply_plan(resnet20(), {"layers": {"layer1.*": {"ratio": 2}}}), 6, 3),
    "ghost resnext of torchvision": (lambda: torchvision_network("resnext50_32x4d", ratio=2), 37, 17),
    "ghost resnet18 of torchvision": (lambda: torchvision_network("resnet18", ratio=2), 20, 1),
}

FAST = ("ratio 3, channels cut off", "ghost resnet18 of torchvision", "planned")


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
)
def test_network_without_concatenations_computes_the_same(name: str) -> None:
    """All networks, half a minute: pytest -m "slow or not slow" tests/models/test_concat_free.py"""
    build, before, after = NETWORKS[name]
    torch.manual_seed(0)
    network = build().eval()
    randomize_norms(network)
    fused = fuse(network.double())
    side = 32 if "vgg" in name else 16 if "resnet20" in name or name == "planned" else 64
    images = torch.randn(2, 3, side, side, dtype=torch.float64)
    program = torch.export.export(fused, (images,))
    assert has_concatenations(program)
    assert sum(node.target is CAT for node in program.graph.nodes) == before
    found = concat_free(program)
    assert sum(node.target is CAT for node in found.graph.nodes) == after
    with torch.inference_mode():
        expected = fused(images)
        assert float((found(images) - expected).abs().max() / expected.std()) < EXACTLY


class Reader(nn.Module):
    """Reads two ghost modules in a way that treats no channel alone, or with a scalar."""

    def __init__(self, read: Callable[["Reader", Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.two = (GhostModule(3, 8, kernel_size=3) for _ in range(2))
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.gain = nn.Parameter(torch.tensor(0.5))
        self.read = read

    def forward(self, images: Tensor) -> Tensor:
        return self.read(self, self.one(images), self.two(images))


@pytest.mark.parametrize(
    "read",
    [
        lambda net, one, two: net.grouped(one) + two,
        lambda net, one, two: one + net.grouped(torch.relu(one + two)),
        lambda net, one, two: torch.add(one, two, alpha=3),
        lambda net, one, two: one * net.gain + two,
        lambda net, one, two: one * 2.0 + two,
    ],
)
def test_what_mixes_or_scales_channels_computes_the_same(read: Callable[[Reader, Tensor, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    network = Reader(read).eval().double()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with torch.inference_mode():
        found = concat_free(torch.export.export(network, (images,)))(images)
        assert torch.allclose(found, network(images), atol=1e-12)


def test_ordinary_network_has_no_concatenations() -> None:
    assert not has_concatenations(torch.export.export(resnet20().eval(), (torch.zeros(2, 3, 8, 8),)))


class Standardised(nn.Conv2d):
    """A convolution whose weight is computed."""

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


@pytest.mark.parametrize(
    "after",
    [
        Standardised(8, 4, 3, padding=1),
        Standardised(8, 8, 3, padding=1, groups=8),
        nn.BatchNorm2d(8, affine=False),
    ],
    ids=["computed", "computed, depthwise", "BatchNorm without weights"],
)
def test_layers_whose_weights_cannot_be_divided_stay(after: nn.Module) -> None:
    network = nn.Sequential(GhostModule(3, 8, 3, padding=1), after).eval().double()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    found = concat_free(torch.export.export(network, (images,)))
    torch.testing.assert_close(found(images), network(images))
