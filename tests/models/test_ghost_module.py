"""Test the ghost module, squeeze-and-excitation, argument checks and the initial weights."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghostexp.models.base import he_init
from ghostexp.models.ghost_module import GhostBottleneck, GhostModule, SqueezeExcite, make_divisible
from ghostexp.models.ghostnet import ghostnet, ghostnet_small
from ghostexp.models.resnet_cifar import resnet20
from ghostexp.models.vgg_cifar import vgg16

RATIOS = (1, 2, 3, 5, 10)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("dw_size", [1, 3, 5, 7])
def test_ghost_module_output_shape_matches_convolution(ratio: int, dw_size: int) -> None:
    x = torch.randn(2, 6, 9, 10)
    for kernel, stride, dilation, out in itertools.product((1, 3, 5), (1, 2), (1, 2), (1, 4, 7, 16)):
        conv = nn.Conv2d(6, out, kernel, stride, kernel // 2 * dilation, dilation)
        ghost = GhostModule(6, out, kernel, ratio, dw_size, stride, dilation=dilation)
        assert ghost(x).shape == conv(x).shape


def test_ghost_module_asymmetric_kernel_stride_padding() -> None:
    conv = nn.Conv2d(4, 8, (1, 5), (2, 1), (0, 1))
    ghost = GhostModule(4, 8, (1, 5), stride=(2, 1), padding=(0, 1))
    x = torch.randn(1, 4, 8, 8)
    assert ghost(x).shape == conv(x).shape
    assert GhostModule(4, 8, (1, 5))(x).shape == (1, 8, 8, 8)


@pytest.mark.parametrize("ratio", RATIOS)
def test_ghost_module_without_norm_act_matches_formula(ratio: int) -> None:
    ghost = GhostModule(3, 8, 3, ratio, 5, 2, bias=True, norm_act="none")
    x = torch.randn(2, 3, 9, 9, requires_grad=True)
    parameters = dict(ghost.named_parameters())
    intrinsic = F.conv2d(x, parameters["primary_conv.0.weight"], parameters["primary_conv.0.bias"], 2, 1)
    maps = [intrinsic]
    if ratio > 1:
        weight, bias = parameters["cheap_operation.0.weight"], parameters["cheap_operation.0.bias"]
        for index in range(weight.shape[0]):  # ghost `index` comes from intrinsic map index // (ratio - 1)
            source = index // (ratio - 1)
            maps.append(
                F.conv2d(intrinsic[:, source : source + 1], weight[index : index + 1], bias[index : index + 1], 1, 2)
            )
    assert intrinsic.shape[1] == math.ceil(8 / ratio)
    expected = torch.cat(maps, 1)[:, :8]
    torch.testing.assert_close(ghost(x), expected)
    wanted = [x, *ghost.parameters()]
    gradients = torch.autograd.grad(ghost(x).square().sum(), wanted)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected.square().sum(), wanted))


@pytest.mark.parametrize("norm_act", ["none", "bn", "bn_relu"])
def test_ghost_module_norm_act_layers(norm_act: str) -> None:
    ghost = GhostModule(3, 8, norm_act=norm_act, bias=True)  # pyright: ignore[reportArgumentType]
    expected = {
        "none": [nn.Conv2d],
        "bn": [nn.Conv2d, nn.BatchNorm2d],
        "bn_relu": [nn.Conv2d, nn.BatchNorm2d, nn.ReLU],
    }
    assert ghost.cheap_operation is not None
    for branch in (ghost.primary_conv, ghost.cheap_operation):
        assert [type(layer) for layer in branch] == expected[norm_act]
        assert (branch[0].bias is not None) == (norm_act == "none")


@pytest.mark.parametrize("norm_act", ["none", "bn", "bn_relu"])
@pytest.mark.parametrize("ratio", RATIOS)
def test_ghost_module_gradient_reaches_every_parameter(norm_act: str, ratio: int) -> None:
    torch.manual_seed(0)
    ghost = GhostModule(4, 7, 3, ratio, bias=True, norm_act=norm_act)  # pyright: ignore[reportArgumentType]
    ghost(torch.randn(4, 4, 8, 8)).square().sum().backward()
    for name, parameter in ghost.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("stride", "out"), [(1, 8), (1, 12), (2, 8), (2, 12)])
def test_bottleneck_shape_and_shortcut(stride: int, out: int) -> None:
    block = GhostBottleneck(8, 20, out, 5, stride, se_ratio=0.25).eval()
    x = torch.randn(2, 8, 9, 9)
    assert block(x).shape == (2, out, math.ceil(9 / stride), math.ceil(9 / stride))
    for parameter in block.ghost2.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(block(x), block.shortcut(x))
    if stride == 1 and out == 8:
        torch.testing.assert_close(block(x), x)


def test_squeeze_excite_matches_formula() -> None:
    se = SqueezeExcite(8, 0.5)
    x = torch.randn(2, 8, 5, 5)
    z = se.conv_expand(se.conv_reduce(x.mean((2, 3), keepdim=True)).relu())
    torch.testing.assert_close(se(x), x * F.relu6(z + 3) / 6)


def reduced_channels(**kwargs: float) -> list[int]:
    network = ghostnet(**kwargs)  # pyright: ignore[reportArgumentType]
    return [module.conv_reduce.out_channels for module in network.modules() if isinstance(module, SqueezeExcite)]


def test_se_ratio_sets_reduced_channels() -> None:
    assert reduced_channels() == [20, 32, 120, 168, 168, 240, 240]
    assert reduced_channels(se_ratio=0.5)[0] == 36
    assert reduced_channels(se_ratio=0) == []


def test_dw_size_sets_every_cheap_kernel() -> None:
    for network, dw_size in itertools.product((ghostnet, ghostnet_small), (1, 3, 5)):
        cheap = [
            module.cheap_operation[0].kernel_size
            for module in network(dw_size=dw_size).modules()
            if isinstance(module, GhostModule) and module.cheap_operation is not None
        ]
        assert len(cheap) > 10
        assert set(cheap) == {(dw_size, dw_size)}


@pytest.mark.parametrize(
    ("channels", "rounded"), [(1, 4), (5.9, 8), (6, 8), (10, 12), (16.9, 16), (18, 20), (17.9, 20), (22.1, 24)]
)
def test_make_divisible_rounds_to_multiples_of_4(channels: float, rounded: int) -> None:
    assert make_divisible(channels) == rounded


def test_he_init_counts_fan_out_per_group() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(64, 128, 3), nn.Conv2d(512, 1024, 5, groups=512))
    he_init(network)
    for conv, fan_out in zip(network, (128 * 9, 2 * 25), strict=True):
        assert isinstance(conv, nn.Conv2d)
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.03)
        assert conv.bias is not None
        assert not conv.bias.any()


@pytest.mark.parametrize(
    ("build", "kwargs", "message"),
    [
        (ghostnet, {"ratio": 2.5}, "model.ratio=2.5: must be an integer >= 1"),
        (ghostnet, {"ratio": 0}, "model.ratio=0: must be an integer >= 1"),
        (ghostnet, {"ratio": True}, "model.ratio=True: must be an integer >= 1"),
        (ghostnet, {"ratio": "two"}, "model.ratio=two: must be an integer >= 1"),
        (ghostnet, {"ratio": None}, "model.ratio=None: must be an integer >= 1"),
        (ghostnet, {"dw_size": 4}, "model.dw_size=4: must be an odd integer >= 1"),
        (ghostnet, {"dw_size": -3}, "model.dw_size=-3: must be an odd integer >= 1"),
        (ghostnet, {"width": 0}, "model.width=0: must be a number > 0"),
        (ghostnet, {"width": math.nan}, "model.width=nan: must be a number > 0"),
        (ghostnet, {"width": math.inf}, "model.width=inf: must be a number > 0"),
        (ghostnet_small, {"se_ratio": -0.1}, "model.se_ratio=-0.1: must be a number >= 0"),
        (ghostnet_small, {"drop_rate": 1.0}, "model.drop_rate=1.0: must be a number in [0, 1)"),
        (ghostnet_small, {"num_classes": 0}, "model.num_classes=0: must be an integer >= 1"),
        (resnet20, {"in_chans": 0}, "model.in_chans=0: must be an integer >= 1"),
        (resnet20, {"width": 0}, "model.width=0: must be a number > 0"),
        (resnet20, {"shortcut": "C"}, "model.shortcut=C: must be one of A, B"),
        (vgg16, {"head": "conv"}, "model.head=conv: must be one of mlp, linear"),
        (vgg16, {"drop_rate": -1}, "model.drop_rate=-1: must be a number in [0, 1)"),
    ],
)
def test_builder_rejects_bad_argument(build, kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match="model") as error:
        build(**kwargs)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
