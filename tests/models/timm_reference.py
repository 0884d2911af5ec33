"""Build pairs of our network and timm's reference implementation, and measure their distance."""

import functools
from collections.abc import Callable
from functools import partial

import timm
import torch
from torch import Tensor, nn

from ghostexp.models.ghostnet import GhostNet, ghostnet
from ghostexp.models.ghostnetv2 import ghostnetv2
from ghostexp.models.ghostnetv3 import ghostnetv3

BOUND = 1e-5  # of a tensor's standard deviation
NETWORKS: dict[str, Callable[[], GhostNet]] = {
    "ghostnet_050": partial(ghostnet, width=0.5),
    "ghostnet_100": partial(ghostnet, width=1.0),
    "ghostnet_130": partial(ghostnet, width=1.3),
    "ghostnetv2_100": partial(ghostnetv2, width=1.0),
    "ghostnetv2_130": partial(ghostnetv2, width=1.3),
    "ghostnetv2_160": partial(ghostnetv2, width=1.6),
    "ghostnetv3_050": partial(ghostnetv3, width=0.5),
    "ghostnetv3_100": partial(ghostnetv3, width=1.0),
    "ghostnetv3_130": partial(ghostnetv3, width=1.3),
    "ghostnetv3_160": partial(ghostnetv3, width=1.6),
}


def pair(name: str) -> tuple[GhostNet, nn.Module]:
    """Build our network and timm's with the same weights, and random BatchNorms.

    Timm's network is shared by all tests: copy it before changing it.
    """
    theirs = _theirs(name)
    ours = NETWORKS[name]()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours.eval(), theirs


@functools.cache
def _theirs(name: str) -> nn.Module:
    torch.manual_seed(0)
    theirs = timm.create_model(name, pretrained=False).eval()
    randomize_norms(theirs)
    return theirs


def randomize_norms(network: nn.Module) -> None:
    """Set random affine parameters in every BatchNorm, and statistics near those of its input.

    Independent random statistics let the maps grow from layer to layer until the attention's gates are all 0 or 1.
    """

    def randomize(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        var, mean = torch.var_mean(inputs[0], (0, 2, 3))
        var = var + 0.3 * var.mean()  # a channel that is nearly constant would be blown up
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(mean + 0.5 * var.sqrt() * torch.randn_like(mean))
        norm.running_var.copy_(var * torch.empty_like(var).uniform_(0.5, 2.0))

    norms = of_kind(network, nn.BatchNorm2d)
    hooks = [norm.register_forward_pre_hook(randomize) for norm in norms]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.5)
    with torch.no_grad():
        network.eval()(torch.randn(4, 3, 97, 65))
    for hook in hooks:
        hook.remove()


def of_kind(network: nn.Module, kind: type) -> list:
    return [module for module in network.modules() if isinstance(module, kind)]


def shapes(network: nn.Module) -> list[tuple[str, torch.Size]]:
    """List names and shapes of a state dict, in its order."""
    return [(name, tensor.shape) for name, tensor in network.state_dict().items()]


def outputs(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Record the output of every block of a GhostNet, in order, and the logits."""
    found: dict[str, Tensor] = {}
    names = {
        block: f"blocks.{i}.{j}"
        for i, stage in network.get_submodule("blocks").named_children()
        for j, block in stage.named_children()
    }

    def remember(block: nn.Module, _: tuple, out: Tensor) -> None:
        found[names[block]] = out.clone()

    hooks = [block.register_forward_hook(remember) for block in names]
    with torch.no_grad():
        found["logits"] = network(x)
    for hook in hooks:
        hook.remove()
    assert len(found) == len(names) + 1
    return found


def images() -> Tensor:
    return torch.randn(2, 3, 97, 65, generator=torch.Generator().manual_seed(1))  # odd sides: padding counts


def distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Compute the largest difference in any block's output or the logits, in that tensor's standard deviations."""
    assert found.keys() == expected.keys()
    return max(float((found[name] - reference).abs().max() / reference.std()) for name, reference in expected.items())


def worst_error(ours: nn.Module, theirs: nn.Module) -> float:
    """Compute the distance of two networks on the same images, in the precision of their weights."""
    x = images().to(next(ours.parameters()).dtype)
    return distance(outputs(ours, x), outputs(theirs, x))
