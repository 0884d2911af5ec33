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
    assert not network.feature_channels  # they are known at the usual width only


def test_googlenet_returns_only_logits_in_training() -> None:
    assert torchvision_network("googlenet", num_classes=7)(torch.randn(2, *IMAGES)).shape == (2, 7)


def test_feature_maps_rejects_unknown_network() -> None:
    with pytest.raises(ValueError, match=r"ShuffleNetV2 has no known feature maps, must be one of resnet18, "):
        torchvision_network("shufflenet_v2_x0_5").feature_maps(torch.randn(2, *IMAGES))
