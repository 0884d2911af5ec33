"""Test that depthwise convolutions with several filters for each map are those of torch, however they are computed."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghostexp.models.cheap_conv import MIN_FLOAT32_MAPS as MAPS
from ghostexp.models.cheap_conv import CheapConv2d
from ghostexp.models.ghost_module import GhostModule

LAST, FIRST = torch.channels_last, torch.contiguous_format
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}


def maps(dtype: torch.dtype = torch.float32, layout: torch.memory_format = LAST, channels: int = MAPS) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, 9, 7, generator=generator, dtype=dtype)
    return x.contiguous(memory_format=layout).requires_grad_()


def is_repeated(y: Tensor) -> bool:
    """Whether something lies between the convolution and its input, a leaf."""
    assert y.grad_fn is not None
    before, _ = y.grad_fn.next_functions[0]
    assert before is not None
    return before.name() != "torch::autograd::AccumulateGrad"


@pytest.mark.parametrize(("channels", "multiplier"), [(MAPS, 2), (MAPS, 3), (13, 9), (24, 2), (64, 3)])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_repeated_maps_give_the_same_convolution_and_gradients(
    channels: int, multiplier: int, dtype: torch.dtype
) -> None:
    x, conv = maps(dtype, channels=channels), CheapConv2d(channels, channels * multiplier, 5, 2, 2, groups=channels)
    y = conv.to(dtype)(x)
    weight, bias = (parameter.double() for parameter in conv.parameters())
    expected = F.conv2d(x.double(), weight, bias, 2, 2, groups=channels)
    assert is_repeated(y)
    close = partial(torch.testing.assert_close, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    close(y, expected.to(dtype))
    factors = torch.linspace(-1, 1, y.numel(), dtype=dtype).view(y.shape)
    found = torch.autograd.grad((y * factors).sum(), [x, *conv.parameters()])
    wanted = torch.autograd.grad((expected * factors.double()).sum(), [x, *conv.parameters()])
    close(found, wanted)


def test_gradients_are_added_in_float32() -> None:
    """In bfloat16, 1 + 2^-9 is rounded to 1, so that the eight small gradients would be lost."""
    x = torch.zeros(1, 1, 1, 1, dtype=torch.bfloat16).requires_grad_()
    conv = CheapConv2d(1, 9, 1, groups=1, bias=False).to(torch.bfloat16)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([1.0, *[2**-9] * 8]).view(9, 1, 1, 1))
    (gradient,) = torch.autograd.grad(conv(x).sum(), x)
    assert gradient.item() == 1 + 2**-6


def test_second_derivatives() -> None:
    conv = CheapConv2d(MAPS, 2 * MAPS, 3, padding=1, groups=MAPS).double()
    x = maps(torch.float64)[:1, :, :3, :3].contiguous(memory_format=LAST)
    assert is_repeated(conv(x))
    assert torch.autograd.gradgradcheck(conv, x)


def test_few_maps_are_repeated_in_bfloat16_only() -> None:
    conv = CheapConv2d(3, 6, 3, padding=1, groups=3)
    assert not is_repeated(conv(maps(channels=3)))
    assert is_repeated(conv.bfloat16()(maps(torch.bfloat16, channels=3)))


def test_other_layouts_and_paddings_are_plain_convolutions() -> None:
    conv = CheapConv2d(MAPS, 2 * MAPS, 3, padding=1, groups=MAPS)
    assert not is_repeated(conv(maps(layout=FIRST)))
    torch.testing.assert_close(conv(maps(layout=FIRST)), conv(maps()))
    reflecting = CheapConv2d(MAPS, 2 * MAPS, 3, padding=1, groups=MAPS, padding_mode="reflect")
    plain = nn.Conv2d(MAPS, 2 * MAPS, 3, padding=1, groups=MAPS, padding_mode="reflect")
    plain.load_state_dict(reflecting.state_dict())
    torch.testing.assert_close(reflecting(maps()), plain(maps()))


def test_exported_program_has_the_plain_convolution() -> None:
    ghost = GhostModule(4, 3 * MAPS, ratio=3).to(memory_format=LAST).eval()
    x = torch.randn(2, 4, 8, 8).contiguous(memory_format=LAST)
    program = torch.export.export(ghost, (x,))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert names.count("aten.conv2d.default") == 2
    assert not any("linear" in name for name in names)
    torch.testing.assert_close(program.module()(x), ghost(x))


def test_symbolic_trace_and_compilation_agree() -> None:
    ghost = GhostModule(4, 3 * MAPS, ratio=3, norm_act="none").to(memory_format=LAST)
    x = torch.randn(2, 4, 8, 8).contiguous(memory_format=LAST)
    torch.testing.assert_close(torch.fx.symbolic_trace(ghost)(x), ghost(x))
    compiled = torch.compile(ghost, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), ghost(x))
    for found, wanted in zip(
        torch.autograd.grad(compiled(x).square().sum(), list(ghost.parameters())),
        torch.autograd.grad(ghost(x).square().sum(), list(ghost.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)


def test_gradients_of_single_images() -> None:
    """By torch.func, as for per-sample gradients."""
    conv = CheapConv2d(MAPS, 2 * MAPS, 3, padding=1, groups=MAPS)
    x = maps().detach()
    parameters: dict[str, Tensor] = dict(conv.named_parameters())

    def loss(values: dict[str, Tensor], image: Tensor) -> Tensor:
        one = image[None].contiguous(memory_format=LAST)
        return torch.func.functional_call(conv, values, (one,)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for index, image in enumerate(x):
        wanted = torch.autograd.grad(loss(parameters, image), list(parameters.values()))
        torch.testing.assert_close([values[index] for values in found.values()], list(wanted))


@pytest.mark.parametrize(("channels", "wanted"), [(171, True), (196, False), (200, True)])
def test_many_maps_are_repeated_only_in_blocks(channels: int, wanted: bool) -> None:
    """The work of a single block grows with the square of its maps."""
    conv = CheapConv2d(channels, 2 * channels, 3, padding=1, groups=channels)
    assert is_repeated(conv(maps(channels=channels))) == wanted
