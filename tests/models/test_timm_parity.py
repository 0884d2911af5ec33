"""GhostNet against timm's, an implementation that nobody here wrote, on weights where every BatchNorm matters."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn

from ghostexp.models.ghost import GhostBottleneck, GhostModule, SqueezeExcite
from ghostexp.models.ghostnet import GhostNet, ghostnet

BOUND = 1e-5  # of a tensor's standard deviation
WIDTHS = {"ghostnet_050": 0.5, "ghostnet_100": 1.0, "ghostnet_130": 1.3}


def pair(name: str, seed: int = 0) -> tuple[GhostNet, nn.Module]:
    """Ours and timm's with the same weights, and random statistics and affine parameters in every BatchNorm."""
    torch.manual_seed(seed)
    theirs = timm.create_model(name, pretrained=False)
    for norm in (module for module in theirs.modules() if isinstance(module, nn.BatchNorm2d)):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        nn.init.normal_(norm.running_mean, std=0.5)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.5)
    ours = ghostnet(width=WIDTHS[name])
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours.eval(), theirs.eval()


def outputs(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The output of every block, in order, and the logits."""
    found: dict[str, Tensor] = {}
    names = {
        block: f"blocks.{i}.{j}"
        for i, stage in network.get_submodule("blocks").named_children()
        for j, block in stage.named_children()
    }

    def remember(block: nn.Module, _: tuple, out: Tensor) -> None:
        found[names[block]] = out.clone()

    for block in names:
        block.register_forward_hook(remember)
    with torch.no_grad():
        found["logits"] = network(x)
    assert len(found) == len(names) + 1
    return found


def worst_error(ours: nn.Module, theirs: nn.Module) -> float:
    """The largest difference in any block's output or the logits, in that tensor's standard deviations."""
    x = torch.randn(2, 3, 97, 65, generator=torch.Generator().manual_seed(1))  # odd sides: padding counts
    expected, found = outputs(theirs, x), outputs(ours, x)
    assert expected.keys() == found.keys()
    return max(float((found[name] - true).abs().max() / true.std()) for name, true in expected.items())


@pytest.mark.parametrize("name", WIDTHS)
def test_every_block_and_the_logits_agree_with_timm(name: str) -> None:
    assert worst_error(*pair(name)) < BOUND


@pytest.mark.parametrize("name", WIDTHS)
def test_the_state_dict_is_timms_in_names_order_and_shapes(name: str) -> None:
    ours = ghostnet(width=WIDTHS[name]).state_dict()
    theirs = timm.create_model(name, pretrained=False).state_dict()
    assert [(key, value.shape) for key, value in ours.items()] == [(k, v.shape) for k, v in theirs.items()]


def test_a_training_step_updates_the_running_statistics_as_timms_does() -> None:
    ours, theirs = pair("ghostnet_050")
    x = torch.randn(4, 3, 64, 64)
    for network in (ours, theirs):
        network.train()
        network(x)
    for (name, found), true in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(found, true, rtol=1e-4, atol=1e-4, msg=name)


def of_kind(network: nn.Module, kind: type) -> list:
    return [module for module in network.modules() if isinstance(module, kind)]


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
def test_each_error_found_in_replications_would_be_seen(mutate: Callable[[nn.Module], None]) -> None:
    ours, theirs = pair("ghostnet_050")
    mutate(ours)
    assert worst_error(ours, theirs) > 10 * BOUND
