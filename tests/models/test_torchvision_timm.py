"""Test networks of torchvision and timm by name, and their ghost versions."""

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn

from ghostexp.analysis.compression import conv_reductions
from ghostexp.analysis.cost import count_cost
from ghostexp.models.base import Network
from ghostexp.models.fuse import fuse
from ghostexp.models.ghost_module import GhostModule
from ghostexp.models.ghostify import ghostify
from ghostexp.models.resnet_cifar import resnet20
from ghostexp.models.torchvision_timm import timm_network, torchvision_network
from ghostexp.models.traced_network import as_network

from .timm_reference import of_kind, randomize_norms

IMAGES = (3, 64, 64)


def torchvisions(name: str) -> nn.Module:
    return torchvision.models.get_model(name, num_classes=7)


def timms(name: str) -> nn.Module:
    return timm.create_model(name, num_classes=7)


@pytest.mark.parametrize(
    ("build", "original", "name"),
    [
        (torchvision_network, torchvisions, "resnet18"),
        (torchvision_network, torchvisions, "shufflenet_v2_x0_5"),
        (torchvision_network, torchvisions, "squeezenet1_1"),
        (timm_network, timms, "resnet18"),
        (timm_network, timms, "mobilenetv3_small_050"),  # whose BatchNorms activate too
    ],
)
def test_network_matches_its_library(build, original, name: str) -> None:
    ours, theirs = build(name, num_classes=7).eval(), original(name).eval()
    assert isinstance(ours, Network)
    randomize_norms(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, *IMAGES)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))
        assert torch.equal(copy.deepcopy(ours)(x), theirs(x))
        fused = fuse(ours)
        torch.testing.assert_close(fused(x), theirs(x), rtol=1e-3, atol=1e-3)
    assert len(of_kind(fused, nn.BatchNorm2d)) == 0


@pytest.mark.parametrize(
    ("build", "name"), [(torchvision_network, "shufflenet_v2_x0_5"), (timm_network, "mobilenetv2_035")]
)
def test_ratio_builds_ghost_version(build, name: str) -> None:
    baseline, ghost = build(name, num_classes=7), build(name, num_classes=7, ratio=3, dw_size=5, exclude="first")
    assert not of_kind(baseline, GhostModule)
    ghosts = of_kind(ghost, GhostModule)
    assert len(ghosts) == len(ghost.ghostified) > 10
    assert {module.cheap_operation[0].kernel_size for module in ghosts} == {(5, 5)}
    assert ghost(torch.randn(2, *IMAGES)).shape == (2, 7)
    rows = conv_reductions(ghost, IMAGES)
    before, after = count_cost(baseline, IMAGES), count_cost(ghost, IMAGES)
    assert before.params - after.params == sum(row.params_before - row.params_after for row in rows)
    assert before.macs - after.macs == sum(row.macs_before - row.macs_after for row in rows)


def test_conv_reductions_count_cut_ghosts_and_biases() -> None:
    network = ghostify(nn.Sequential(nn.Conv2d(2, 5, 3, stride=2, padding=1)), 2, 3)
    (row,) = conv_reductions(network, (2, 8, 8))
    assert (row.layer, row.kernel, row.in_channels, row.out_channels) == ("0", "3x3", 2, 5)
    assert (row.params_before, row.params_after) == (2 * 5 * 9 + 5, 2 * 3 * 9 + 3 + 3 * 9 + 3)
    assert (row.macs_before, row.macs_after) == (2 * 5 * 9 * 16, (2 * 3 * 9 + 3 * 9) * 16)
    assert conv_reductions(resnet20(), IMAGES) == []


def test_in_chans_and_kwargs_reach_the_library() -> None:
    network = torchvision_network("mobilenet_v2", in_chans=1, kwargs={"width_mult": 0.35})
    colour = torchvision.models.mobilenet_v2(width_mult=0.35)
    assert (
        count_cost(network, (1, 64, 64)).params == count_cost(colour, IMAGES).params - 2 * 16 * 9
    )  # of the first convolution
    assert network(torch.randn(2, 1, 64, 64)).shape == (2, 1000)
    assert network.feature_channels == {4: 8, 8: 16, 16: 32, 32: 112}


def test_googlenet_returns_only_logits_in_training() -> None:
    assert torchvision_network("googlenet", num_classes=7)(torch.randn(2, *IMAGES)).shape == (2, 7)


@pytest.mark.parametrize(
    "name",
    ["resnet50d", "densenet121", "convnext_atto", "efficientnet_b0", "regnety_002", "dla34", "resnest14d", "vgg11"],
)
def test_timm_maps_equal_features_only(name: str) -> None:
    kwargs = {"mlp_ratio": 0.02} if name == "vgg11" else {}  # else its head has 100 million weights
    ours, theirs = timm_network(name, kwargs=kwargs).eval(), timm.create_model(name, features_only=True).eval()
    weights = {key.replace(".", "_"): value for key, value in ours.state_dict().items()}
    theirs.load_state_dict({key: weights[key.replace(".", "_")] for key in theirs.state_dict()})
    x, reductions = torch.randn(1, *IMAGES), theirs.feature_info.reduction()  # pyright: ignore
    with torch.no_grad():
        maps, expected = ours.feature_maps(x), dict(zip(reductions, theirs(x), strict=True))
        assert torch.equal(ours.forward_head(ours.forward_features(x)), ours(x))
    assert list(maps) == list(ours.feature_channels) == [stride for stride in expected if stride >= 4]
    for stride, found in maps.items():
        assert torch.equal(found, expected[stride])


@pytest.mark.parametrize("in_eval", [True, False])
def test_feature_maps_of_own_module(in_eval: bool) -> None:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    down = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.ReLU())
    network = as_network(nn.Sequential(stem, down, nn.Conv2d(8, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    network.train(not in_eval)
    x = torch.randn(2, 1, 32, 48)
    maps = network.feature_maps(x)
    assert network.feature_channels == {1: 4, 2: 8}
    assert {stride: found.shape for stride, found in maps.items()} == {1: (2, 4, 32, 48), 2: (2, 8, 16, 24)}
    torch.testing.assert_close(maps[2], down(stem(x)))
    torch.testing.assert_close(network.forward_head(network.forward_features(x)), network(x))


def test_maps_follow_replaced_layers() -> None:
    plain, ghost = torchvision_network("mobilenet_v2"), torchvision_network("mobilenet_v2", ratio=2)
    assert ghost.feature_channels == plain.feature_channels  # the head's convolution is pointwise in a ghost module too
    x = torch.randn(1, *IMAGES)
    before = plain.eval().feature_maps(x)
    ghostify(plain)
    after = plain.feature_maps(x)
    assert all(not torch.equal(before[stride], after[stride]) for stride in before)


class UNet(nn.Module):
    """A network whose coarsest map is not all that the following layers read."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.up(nn.functional.interpolate(self.down(x), scale_factor=2)) + x).mean((2, 3))


class PatchTokens(nn.Module):
    """A stem with a map, and layers on tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer = nn.Conv2d(3, 4, 16, stride=16), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.stem(x).flatten(2).mT).mean(1)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (torchvision.models.squeezenet1_1(), "no map of its blocks is"),  # sizes of an odd number of pixels
        (torchvision.models.vit_b_16(), "AssertionError: Wrong image height! Expected 224 but got 256!"),
        (PatchTokens(), "no map of its blocks is"),
        (timm.create_model("hrnet_w18_small"), "no map of its blocks is"),
        (UNet(), "no map of its blocks is"),
    ],
)
def test_feature_maps_rejects_network_without_pyramid(network: nn.Module, reason: str) -> None:
    traced = as_network(network)
    assert traced.feature_channels == {}
    with pytest.raises(ValueError, match=rf"^model: {type(traced).__name__} has no feature maps by stride \({reason}"):
        traced.feature_maps(torch.randn(2, *IMAGES))
