"""Test what GhostNetV3 adds: branches in training, folded into one convolution afterwards."""

import copy
from collections.abc import Callable

import pytest
import torch
from timm.utils.model import reparameterize_model
from torch import Tensor, nn

from ghostexp.models import reparam
from ghostexp.models.cheap_conv import CheapConv2d
from ghostexp.models.ghostnetv2 import ghostnetv2
from ghostexp.models.ghostnetv3 import GhostBottleneckV3, GhostModuleV3, ghostnetv3
from ghostexp.models.reparam import ReparamBranch, ReparamMixin, sum_branches

from .timm_reference import BOUND, NETWORKS, distance, images, of_kind, outputs, pair, shapes, worst_error

V3 = [name for name in NETWORKS if name.startswith("ghostnetv3")]
EXACTLY = 1e-10  # in float64


@pytest.mark.parametrize("name", V3)
def test_reparameterized_network_matches_timm(name: str) -> None:
    ours, theirs = pair(name)
    ours.double().reparameterize()
    theirs = reparameterize_model(copy.deepcopy(theirs).double(), inplace=True)
    assert shapes(ours) == shapes(theirs)
    assert worst_error(ours, theirs) < EXACTLY


@pytest.mark.parametrize("name", ["ghostnetv3_050", "ghostnetv3_160"])
def test_reparameterize_changes_outputs_by_rounding_only(name: str) -> None:
    ours, x = pair(name)[0], images()
    unfolded = outputs(ours, x)
    reference = outputs(ours.double(), x.double())
    ours.reparameterize()
    assert distance(outputs(ours, x.double()), reference) < EXACTLY
    rounding = distance(unfolded, reference)  # of float32, without any fold
    assert rounding < 2e-4
    assert distance(outputs(ours.float(), x), reference) < 3 * rounding


def test_reparameterize_twice_changes_nothing() -> None:
    network = ghostnetv3(width=0.5).eval()
    network.reparameterize()
    once = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.reparameterize()
    assert all(torch.equal(once[name], tensor) for name, tensor in network.state_dict().items())
    assert not [name for name in once if "_rpr_" in name]
    assert not of_kind(network, ReparamBranch)


def test_reparameterized_convolutions_are_those_of_ghostnetv2() -> None:
    network = ghostnetv3(width=0.5).eval()
    network.reparameterize()
    convs = {name: conv.weight.shape for name, conv in network.named_modules() if isinstance(conv, nn.Conv2d)}
    expected = {
        name: conv.weight.shape for name, conv in ghostnetv2(width=0.5).named_modules() if isinstance(conv, nn.Conv2d)
    }
    assert convs == expected


def test_reparameterized_network_is_trainable() -> None:
    network = ghostnetv3(width=0.5, num_classes=3, image_size=32)
    network.reparameterize()
    network(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("ratio", [1, 2, 3, 5])
@pytest.mark.parametrize("dw_size", [1, 3, 5])
def test_ghost_module_v3_folds_any_ratio_and_dw_size(ratio: int, dw_size: int) -> None:
    torch.manual_seed(0)
    # three intrinsic maps of three channels at ratio 3: the primary convolution has a skip, too
    module = GhostModuleV3(3, 9, ratio, dw_size, num_branches=2, attention=True).double()
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    for _ in range(3):
        module(x)  # statistics
    expected = module.eval()(x)
    assert len(module.branches("primary")) == (3 if ratio == 3 else 2)
    if ratio > 1:
        branches = module.branches("cheap")
        assert len(branches) == 2 + (dw_size > 1) + (ratio == 2)
        kinds = {type(branch.conv) for branch in branches if isinstance(branch, ReparamBranch)}
        assert kinds == {CheapConv2d if ratio > 2 else nn.Conv2d}
    module.reparameterize()
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize(
    ("channels", "groups", "stride", "kernel"), [(6, 1, 1, 3), (6, 3, 1, 5), (6, 6, 2, 3), (6, 1, 2, 1)]
)
def test_pop_fused_conv_any_groups_stride_kernel(channels: int, groups: int, stride: int, kernel: int) -> None:
    torch.manual_seed(0)
    holder = ReparamMixin()
    holder.add_branches("dw", nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=groups), 3)
    randomize(holder)
    found = holder.double().eval().branches("dw")
    assert len(found) == 3 + (kernel > 1) + (stride == 1)
    x = torch.randn(2, channels, 9, 9, dtype=torch.float64)
    expected = sum_branches(found, x)
    torch.testing.assert_close(holder.pop_fused_conv("dw")(x), expected)
    assert not list(holder.parameters())


def randomize(network: nn.Module) -> None:
    for norm in of_kind(network, nn.BatchNorm2d):
        for tensor in (norm.running_mean, norm.bias):
            nn.init.normal_(tensor)
        for tensor in (norm.running_var, norm.weight):
            nn.init.uniform_(tensor, 0.5, 2.0)


@pytest.mark.parametrize("deployed", [False, True])
def test_bottleneck_v3_compiles_as_one_graph(deployed: bool) -> None:
    network = nn.Sequential(GhostBottleneckV3(8, 16, 8, 3, 2, 0.25)).eval()
    randomize(network)
    for block in of_kind(network, ReparamMixin) if deployed else ():
        block.reparameterize()
    x = torch.randn(2, 8, 8, 8)
    with torch.no_grad():
        expected = network(x)
        network.compile(backend="eager", fullgraph=True)
        torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("num_branches", [1, 2, 4])
def test_num_branches_does_not_change_folded_network(num_branches: int) -> None:
    network, three = ghostnetv3(width=0.5, num_branches=num_branches), ghostnetv3(width=0.5)
    assert len(network.get_submodule("blocks.1.0.dw_rpr_conv")) == num_branches  # pyright: ignore[reportArgumentType]
    assert len(of_kind(network, ReparamBranch)) != len(of_kind(three, ReparamBranch))
    for deployed in (network, three):
        deployed.reparameterize()
    assert shapes(network) == shapes(three)


def test_ghostnetv3_rejects_bad_num_branches() -> None:
    with pytest.raises(ValueError, match=r"^model.num_branches=0: must be an integer >= 1$"):
        ghostnetv3(num_branches=0)


def no_scale(network: nn.Module) -> None:
    for module in of_kind(network, GhostModuleV3):
        module.cheap_rpr_scale = None


def no_skip(network: nn.Module) -> None:
    for module in of_kind(network, GhostModuleV3):
        module.cheap_rpr_skip = None


def two_branches(network: nn.Module) -> None:
    for module in of_kind(network, GhostModuleV3):
        del module.primary_rpr_conv[0]


def relu_in_the_projection(network: nn.Module) -> None:
    for module in of_kind(network, GhostModuleV3):
        module.activation = nn.ReLU()


def no_attention(network: nn.Module) -> None:
    for module in of_kind(network, GhostModuleV3):
        module.short_conv = None


def relu_in_every_branch(network: nn.Module) -> None:
    for branch in of_kind(network, ReparamBranch):
        branch.register_forward_hook(lambda _, __, out: out.relu())


MUTATIONS = [no_scale, no_skip, two_branches, relu_in_the_projection, no_attention, relu_in_every_branch]


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_parity_detects_changed_network(mutate: Callable[[nn.Module], None]) -> None:
    ours, theirs = pair("ghostnetv3_050")
    mutate(ours)
    assert worst_error(ours, theirs) > 10 * BOUND


def without_eps(weight: Tensor, _: None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / norm.running_var.double().sqrt()
    return weight.double() * scale[:, None, None, None], norm.bias.double() - norm.running_mean.double() * scale


def without_mean(weight: Tensor, _: None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return weight.double() * scale[:, None, None, None], norm.bias.double()


@pytest.mark.parametrize("fold", [without_eps, without_mean])
def test_parity_detects_wrong_fold(fold: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, x = pair("ghostnetv3_050")[0].double(), images().double()
    reference = outputs(ours, x)
    monkeypatch.setattr(reparam, "fold_batchnorm", fold)
    ours.reparameterize()
    assert distance(outputs(ours, x), reference) > 1e4 * EXACTLY
