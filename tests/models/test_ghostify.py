"""Test ghost versions of existing networks."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

from ghostexp.models.ghost_module import GhostModule
from ghostexp.models.ghostify import GhostifiedConv, ghostify
from ghostexp.models.ghostnet import ghostnet_small
from ghostexp.models.resnet_cifar import resnet20
from ghostexp.models.vgg_cifar import vgg16


def convs_of(network: nn.Module, kind: type = nn.Conv2d) -> dict[str, nn.Module]:
    return {name: module for name, module in network.named_modules() if isinstance(module, kind)}


def ghostified(network: nn.Module) -> tuple[GhostifiedConv, ...]:
    report = network.ghostified
    assert isinstance(report, tuple)
    return report


def params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_ghostify_replaces_every_convolution_in_place() -> None:
    network = resnet20(shortcut="B")
    names = list(convs_of(network))
    assert ghostify(network, 3, 5) is network
    ghosts = convs_of(network, GhostModule)
    assert list(ghosts) == names
    assert len(names) == 21
    assert network(torch.randn(2, 3, 16, 16)).shape == (2, 10)


def test_ghostified_lists_parameters_before_and_after() -> None:
    network = resnet20()
    before = params(network)
    report = ghostified(ghostify(network, 2, 3))
    assert report[0] == GhostifiedConv("conv1", 3 * 16 * 9, 3 * 8 * 9 + 8 * 9)
    assert report[-1].name == "layer3.2.conv2"
    assert before - params(network) == sum(row.params_before - row.params_after for row in report)


def test_ghostify_initialises_weights_with_he_init() -> None:
    torch.manual_seed(0)
    network = ghostify(nn.Sequential(nn.Conv2d(64, 512, 3)), 2, 5)
    primary = network.get_parameter("0.primary_conv.0.weight")
    cheap = network.get_parameter("0.cheap_operation.0.weight")
    assert primary.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.03)
    assert cheap.std().item() == pytest.approx((2 / 25) ** 0.5, rel=0.03)


def test_ghostified_accumulates_over_two_passes() -> None:
    network = ghostify(ghostify(resnet20(shortcut="B"), 4, exclude=["first", "1x1"]), 2)
    assert [row.name for row in ghostified(network)[-3:]] == ["conv1", "layer2.0.shortcut.0", "layer3.0.shortcut.0"]
    assert len(ghostified(network)) == 21


def test_ghostify_ratio_1_matches_the_original() -> None:
    network = resnet20().eval()
    original, x = resnet20().eval(), torch.randn(2, 3, 16, 16)
    ghostify(network, 1)
    original.load_state_dict({key.replace(".primary_conv.0", ""): value for key, value in network.state_dict().items()})
    assert torch.equal(network(x), original(x))


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
def test_ghostify_keeps_geometry_and_padding_mode(padding_mode: str) -> None:
    conv = nn.Conv2d(4, 8, (3, 5), (2, 1), (1, 4), (1, 2), bias=True, padding_mode=padding_mode)  # pyright: ignore[reportArgumentType]
    network = ghostify(nn.Sequential(conv))
    ghost = network[0]
    assert isinstance(ghost, GhostModule)
    primary = ghost.primary_conv[0]
    for key in ("kernel_size", "stride", "padding", "dilation", "padding_mode"):
        assert getattr(primary, key) == getattr(conv, key), key
    x = torch.randn(2, 4, 12, 12)
    assert network(x).shape == conv(x).shape


def test_ghostify_keeps_circular_padding_shift_equivariant() -> None:
    torch.manual_seed(0)
    network = ghostify(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular")), 2, 5)
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(network(x.roll((3, 2), (2, 3))), network(x).roll((3, 2), (2, 3)))


def test_ghostify_keeps_string_padding() -> None:
    network = ghostify(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding="same", dilation=2), nn.Conv2d(8, 8, 3, padding="valid"))
    )
    assert network(torch.randn(1, 3, 9, 9)).shape == (1, 8, 7, 7)


@pytest.mark.parametrize("bias", [True, False])
def test_ghostify_keeps_bias_per_output_channel(bias: bool) -> None:
    network = ghostify(nn.Sequential(nn.Conv2d(3, 8, 3, bias=bias)), 4)
    biases = [parameter for name, parameter in network.named_parameters() if name.endswith("bias")]
    assert sum(parameter.numel() for parameter in biases) == (8 if bias else 0)


def test_ghostify_skips_grouped_convolutions_and_subclasses() -> None:
    class Scaled(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    network = nn.Sequential(
        nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3, groups=2), Scaled(8, 8, 1)
    )
    stay = [network[1], network[2], network[3]]
    ghostify(network)
    assert isinstance(network[0], GhostModule)
    assert [network[1], network[2], network[3]] == stay


def test_ghostify_skips_existing_ghost_modules() -> None:
    network = ghostnet_small()
    ghosts = convs_of(network, GhostModule)
    ghostify(network, exclude=["*.conv_reduce", "*.conv_expand"])
    after = convs_of(network, GhostModule)
    assert ghosts.items() <= after.items()
    assert set(after) - set(ghosts) == {row.name for row in ghostified(network)}
    assert {"conv_stem", "conv_head", "blocks.0.0.shortcut.2"} <= set(after)


def test_ghostify_keeps_shared_convolution_shared() -> None:
    conv = nn.Conv2d(4, 4, 1)
    network = ghostify(nn.Sequential(conv, nn.ReLU(), conv))
    assert isinstance(network[0], GhostModule)
    assert network[0] is network[2]
    assert len(ghostified(network)) == 1


@pytest.mark.parametrize(
    ("exclude", "kept"),
    [
        ([], set()),
        ("first", {"conv1"}),
        (["1x1"], {"layer2.0.shortcut.0", "layer3.0.shortcut.0"}),
        (["first", "layer1.*"], {"conv1"} | {f"layer1.{i}.conv{j}" for i in range(3) for j in (1, 2)}),
        (["layer[12].0.conv?"], {f"layer{i}.0.conv{j}" for i in (1, 2) for j in (1, 2)}),
    ],
)
def test_ghostify_exclude_keeps_convolutions(exclude: str | list[str], kept: set[str]) -> None:
    network = resnet20(shortcut="B")
    names = set(convs_of(network))
    ghostify(network, exclude=exclude)
    assert names - set(convs_of(network, GhostModule)) == kept


@pytest.mark.parametrize("exclude", ["layer9.*", "1x1", ["first", "conv2"]])
def test_ghostify_rejects_exclude_without_match(exclude: str | list[str]) -> None:
    network = resnet20(shortcut="A")
    pattern = exclude if isinstance(exclude, str) else exclude[-1]
    with pytest.raises(ValueError, match="model") as error:
        ghostify(network, exclude=exclude)
    assert str(error.value).startswith(f"model.exclude={pattern}: none of the 19 convolutions (conv1, ")
    assert not convs_of(network, GhostModule)


@pytest.mark.parametrize(
    "network", [nn.Sequential(nn.Linear(2, 2)), nn.Conv2d(3, 8, 1), GhostModule(3, 8), ghostify(resnet20())]
)
def test_ghostify_rejects_network_without_convolution(network: nn.Module) -> None:
    with pytest.raises(ValueError, match="has no convolution left that ghostify can replace"):
        ghostify(network)


def test_ghostify_rejects_excluding_everything() -> None:
    with pytest.raises(ValueError, match="no convolution left"):
        ghostify(resnet20(), exclude="*")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"ratio": 2.5}, "model.ratio=2.5: must be an integer >= 1"),
        ({"dw_size": 4}, "model.dw_size=4: must be an odd integer >= 1"),
        ({"norm_act": "relu"}, "model.norm_act=relu: must be one of none, bn, bn_relu"),
    ],
)
def test_ghostify_rejects_bad_argument_without_changes(kwargs: dict, message: str) -> None:
    network = resnet20()
    with pytest.raises(ValueError, match="model") as error:
        ghostify(network, **kwargs)
    assert str(error.value) == message
    assert not convs_of(network, GhostModule)


def test_ghostify_norm_act_bn_relu() -> None:
    without, inside = ghostify(resnet20()), ghostify(resnet20(), norm_act="bn_relu")
    norms = len(convs_of(inside, nn.BatchNorm2d)) - len(convs_of(without, nn.BatchNorm2d))
    assert norms == 2 * len(convs_of(inside, GhostModule))
    assert inside(torch.randn(2, 3, 8, 8)).shape == (2, 10)


def test_ghostify_keeps_dtype_device_and_mode() -> None:
    network = ghostify(resnet20().double().eval())
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float64}
    assert not any(module.training for module in network.modules())
    with torch.device("meta"):
        network = resnet20()
    ghostify(network)
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("name", "convs", "replaced"), [("resnet50", 53, 53), ("vgg16", 13, 13), ("mobilenet_v2", 52, 35)]
)
def test_ghostify_on_torchvision_networks(name: str, convs: int, replaced: int) -> None:
    with torch.device("meta"):
        network = torchvision.models.get_model(name, weights=None)
        assert len(convs_of(network)) == convs
        ghostify(network, 2, 3)
        assert len(convs_of(network, GhostModule)) == replaced
        assert network.eval()(torch.empty(1, 3, 64, 64)).shape == (1, 1000)


def test_ghost_vgg16_has_no_unused_parameters() -> None:
    network = ghostify(vgg16(), 2, 3)
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
