"""Ghost versions of existing networks."""

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


def test_every_convolution_becomes_a_ghost_module_in_place() -> None:
    network = resnet20(shortcut="B")
    names = list(convs_of(network))
    assert ghostify(network, 3, 5) is network
    ghosts = convs_of(network, GhostModule)
    assert list(ghosts) == names
    assert len(names) == 21
    assert network(torch.randn(2, 3, 16, 16)).shape == (2, 10)


def test_the_report_says_what_was_replaced_and_what_it_cost() -> None:
    network = resnet20()
    before = params(network)
    report = ghostified(ghostify(network, 2, 3))
    assert report[0] == GhostifiedConv("conv1", 3 * 16 * 9, 3 * 8 * 9 + 8 * 9)
    assert report[-1].name == "layer3.2.conv2"
    assert before - params(network) == sum(row.params_before - row.params_after for row in report)


def test_the_new_weights_are_drawn_by_he_s_rule() -> None:
    torch.manual_seed(0)
    network = ghostify(nn.Sequential(nn.Conv2d(64, 512, 3)), 2, 5)
    primary = network.get_parameter("0.primary_conv.0.weight")
    cheap = network.get_parameter("0.cheap_operation.0.weight")
    assert primary.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.03)
    assert cheap.std().item() == pytest.approx((2 / 25) ** 0.5, rel=0.03)


def test_two_passes_report_what_both_replaced() -> None:
    network = ghostify(ghostify(resnet20(shortcut="B"), 4, exclude=["first", "1x1"]), 2)
    assert [row.name for row in ghostified(network)[-3:]] == ["conv1", "layer2.0.shortcut.0", "layer3.0.shortcut.0"]
    assert len(ghostified(network)) == 21


def test_ratio_1_keeps_the_network_s_size_and_arithmetic() -> None:
    network = resnet20().eval()
    plain, x = resnet20().eval(), torch.randn(2, 3, 16, 16)
    ghostify(network, 1)
    plain.load_state_dict({key.replace(".primary_conv.0", ""): value for key, value in network.state_dict().items()})
    assert torch.equal(network(x), plain(x))


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
def test_geometry_padding_mode_and_bias_are_kept(padding_mode: str) -> None:
    conv = nn.Conv2d(4, 8, (3, 5), (2, 1), (1, 4), (1, 2), bias=True, padding_mode=padding_mode)  # pyright: ignore[reportArgumentType]
    network = ghostify(nn.Sequential(conv))
    ghost = network[0]
    assert isinstance(ghost, GhostModule)
    primary = ghost.primary_conv[0]
    for key in ("kernel_size", "stride", "padding", "dilation", "padding_mode"):
        assert getattr(primary, key) == getattr(conv, key), key
    x = torch.randn(2, 4, 12, 12)
    assert network(x).shape == conv(x).shape


def test_a_network_that_pads_in_circles_still_commutes_with_shifts() -> None:
    torch.manual_seed(0)
    network = ghostify(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular")), 2, 5)
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(network(x.roll((3, 2), (2, 3))), network(x).roll((3, 2), (2, 3)))


def test_padding_given_by_a_word_is_kept() -> None:
    network = ghostify(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding="same", dilation=2), nn.Conv2d(8, 8, 3, padding="valid"))
    )
    assert network(torch.randn(1, 3, 9, 9)).shape == (1, 8, 7, 7)


@pytest.mark.parametrize("bias", [True, False])
def test_every_output_channel_keeps_its_bias_and_gets_none_where_there_was_none(bias: bool) -> None:
    network = ghostify(nn.Sequential(nn.Conv2d(3, 8, 3, bias=bias)), 4)
    biases = [parameter for name, parameter in network.named_parameters() if name.endswith("bias")]
    assert sum(parameter.numel() for parameter in biases) == (8 if bias else 0)


def test_grouped_and_depthwise_convolutions_and_subclasses_stay() -> None:
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


def test_ghost_modules_that_are_there_already_stay() -> None:
    network = ghostnet_small()
    ghosts = convs_of(network, GhostModule)
    ghostify(network, exclude=["*.conv_reduce", "*.conv_expand"])
    after = convs_of(network, GhostModule)
    assert ghosts.items() <= after.items()
    assert set(after) - set(ghosts) == {row.name for row in ghostified(network)}
    assert {"conv_stem", "conv_head", "blocks.0.0.shortcut.2"} <= set(after)


def test_a_convolution_used_twice_becomes_one_ghost_module_used_twice() -> None:
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
def test_keep_names_what_stays(exclude: str | list[str], kept: set[str]) -> None:
    network = resnet20(shortcut="B")
    names = set(convs_of(network))
    ghostify(network, exclude=exclude)
    assert names - set(convs_of(network, GhostModule)) == kept


@pytest.mark.parametrize("exclude", ["layer9.*", "1x1", ["first", "conv2"]])
def test_a_keep_that_matches_nothing_is_an_error_and_changes_nothing(exclude: str | list[str]) -> None:
    network = resnet20(shortcut="A")
    pattern = exclude if isinstance(exclude, str) else exclude[-1]
    with pytest.raises(ValueError, match="model") as error:
        ghostify(network, exclude=exclude)
    assert str(error.value).startswith(f"model.exclude={pattern}: none of the 19 convolutions (conv1, ")
    assert not convs_of(network, GhostModule)


@pytest.mark.parametrize(
    "network", [nn.Sequential(nn.Linear(2, 2)), nn.Conv2d(3, 8, 1), GhostModule(3, 8), ghostify(resnet20())]
)
def test_a_network_with_nothing_to_replace_is_an_error(network: nn.Module) -> None:
    with pytest.raises(ValueError, match="has no convolution left that ghostify can replace"):
        ghostify(network)


def test_keeping_everything_is_an_error() -> None:
    with pytest.raises(ValueError, match="no convolution left"):
        ghostify(resnet20(), exclude="*")


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"ratio": 2.5}, "model.ratio=2.5: a whole number >= 1 is needed"),
        ({"dw_size": 4}, "model.dw_size=4: an odd whole number >= 1 is needed"),
        ({"norm_act": "relu"}, "model.norm_act=relu: one of bn_relu, bn, plain is needed"),
    ],
)
def test_a_bad_knob_is_an_error_and_changes_nothing(knobs: dict, message: str) -> None:
    network = resnet20()
    with pytest.raises(ValueError, match="model") as error:
        ghostify(network, **knobs)
    assert str(error.value) == message
    assert not convs_of(network, GhostModule)


def test_form_bn_relu_puts_both_inside_every_ghost_module() -> None:
    plain, inside = ghostify(resnet20()), ghostify(resnet20(), norm_act="bn_relu")
    norms = len(convs_of(inside, nn.BatchNorm2d)) - len(convs_of(plain, nn.BatchNorm2d))
    assert norms == 2 * len(convs_of(inside, GhostModule))
    assert inside(torch.randn(2, 3, 8, 8)).shape == (2, 10)


def test_dtype_device_and_mode_stay() -> None:
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
def test_it_works_on_torchvision_s_own_networks(name: str, convs: int, replaced: int) -> None:
    with torch.device("meta"):
        network = torchvision.models.get_model(name, weights=None)
        assert len(convs_of(network)) == convs
        ghostify(network, 2, 3)
        assert len(convs_of(network, GhostModule)) == replaced
        assert network.eval()(torch.empty(1, 3, 64, 64)).shape == (1, 1000)


def test_ghost_vgg16_trains_without_unused_parameters() -> None:
    network = ghostify(vgg16(), 2, 3)
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
