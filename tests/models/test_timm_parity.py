"""Compare every generation of GhostNet with timm's, on random BatchNorms."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from ghostexp.models.ghost_module import GhostBottleneck, GhostModule, SqueezeExcite

from .timm_reference import BOUND, NETWORKS, of_kind, pair, shapes, worst_error


@pytest.mark.parametrize("name", NETWORKS)
def test_every_block_and_logits_match_timm(name: str) -> None:
    ours, theirs = pair(name)
    assert shapes(ours) == shapes(theirs)  # in names and order too
    assert worst_error(ours, theirs) < BOUND


@pytest.mark.parametrize("name", ["ghostnet_050", "ghostnetv2_100", "ghostnetv3_050"])
def test_running_statistics_match_timm(name: str) -> None:
    ours, theirs = copy.deepcopy(pair(name))
    x = torch.randn(4, 3, 64, 64)
    for network in (ours, theirs):
        network.train()
        network(x)
    for (buffer, found), expected in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, msg=buffer)


def soft_gate(network: nn.Module) -> None:
    for se in of_kind(network, SqueezeExcite):
        se.gate = nn.Sigmoid()


def gate_instead_of_features(network: nn.Module) -> None:
    for se in of_kind(network, SqueezeExcite):
        se.register_forward_hook(lambda _, args, out: torch.where(args[0] == 0, out, out / args[0]))


def no_squeeze_excite(network: nn.Module) -> None:
    for block in of_kind(network, GhostBottleneck):
        block.se = nn.Identity()


def relu_in_the_shortcut(network: nn.Module) -> None:
    for block in of_kind(network, GhostBottleneck):
        if len(block.shortcut):
            block.shortcut.insert(2, nn.ReLU())


def eps_of_1e_3(network: nn.Module) -> None:
    for norm in of_kind(network, nn.BatchNorm2d):
        norm.eps = 1e-3


def relu_in_the_projection(network: nn.Module) -> None:
    for block in of_kind(network, GhostBottleneck):
        block.ghost2.cheap_operation.append(nn.ReLU())


def no_relu_in_the_expansion(network: nn.Module) -> None:
    for block in of_kind(network, GhostBottleneck):
        block.ghost1.cheap_operation[2] = nn.Identity()


def relu_behind_the_sum(network: nn.Module) -> None:
    for block in of_kind(network, GhostBottleneck):
        block.register_forward_hook(lambda _, __, out: out.relu())


def ghosts_before_the_intrinsic_maps(network: nn.Module) -> None:
    for module in of_kind(network, GhostModule):
        module.register_forward_hook(lambda _, __, out: out.roll(out.shape[1] // 2, dims=1))


def relu_on_the_downsampling(network: nn.Module) -> None:
    for block in of_kind(network, GhostBottleneck):
        if isinstance(block.bn_dw, nn.BatchNorm2d):
            block.bn_dw.register_forward_hook(lambda _, __, out: out.relu())


MUTATIONS: list[Callable[[nn.Module], None]] = [
    soft_gate,
    gate_instead_of_features,
    no_squeeze_excite,
    relu_in_the_shortcut,
    eps_of_1e_3,
    relu_in_the_projection,
    no_relu_in_the_expansion,
    relu_behind_the_sum,
    ghosts_before_the_intrinsic_maps,
    relu_on_the_downsampling,
]


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_parity_detects_known_replication_bugs(mutate: Callable[[nn.Module], None]) -> None:
    ours, theirs = pair("ghostnet_050")
    mutate(ours)
    assert worst_error(ours, theirs) > 10 * BOUND
