"""Test what GhostNetV2 adds: DFC attention, and the smallest image."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghostexp.models.ghost_module import GhostModule
from ghostexp.models.ghostnet import GhostNet
from ghostexp.models.ghostnetv2 import DFCAttention, GhostModuleV2, ghostnetv2
from ghostexp.models.ghostnetv3 import ghostnetv3

from .timm_reference import BOUND, of_kind, pair, worst_error


def convolved(attention: DFCAttention, x: Tensor) -> Tensor:
    for layer in attention:
        x = layer(x)
    return x


@pytest.mark.parametrize("size", [(2, 2), (3, 2), (7, 9), (8, 8)])
def test_dfc_attention_matches_formula(size: tuple) -> None:
    torch.manual_seed(0)
    attention, x = DFCAttention(3, 8).eval(), torch.randn(2, 3, *size)
    height, width = size
    pooled = x[..., : height // 2 * 2, : width // 2 * 2].unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).mean((3, 5))
    rows = [int(row * (height // 2) / height) for row in range(height)]
    columns = [int(column * (width // 2) / width) for column in range(width)]
    gates = convolved(attention, pooled).sigmoid()
    torch.testing.assert_close(attention(x), gates[:, :, rows][..., columns])


def test_dfc_attention_receptive_field() -> None:
    attention = DFCAttention(1, 1).eval()
    for conv in of_kind(attention, nn.Conv2d):
        nn.init.ones_(conv.weight)
    x = torch.zeros(1, 1, 20, 20)
    x[..., 10, 10] = 1
    seen = (attention(x) > 0.5)[0, 0].nonzero()
    assert seen.min(0).values.tolist() == [6, 6]
    assert seen.max(0).values.tolist() == [15, 15]


@pytest.mark.parametrize("build", [ghostnetv2, ghostnetv3])
def test_attention_in_all_but_first_two_bottlenecks(build: Callable) -> None:
    network = build(width=0.5)
    names = [name for name, module in network.named_modules() if isinstance(module, DFCAttention)]
    blocks = [f"blocks.{i}.{j}" for i, rows in enumerate((1, 1, 1, 1, 1, 1, 5, 1, 4)) for j in range(rows)]
    assert names == [f"{block}.ghost1.short_conv" for block in blocks[2:]]


@pytest.mark.parametrize("ratio", [1, 2, 3, 5])
def test_ghost_module_v2_multiplies_all_maps_by_attention(ratio: int) -> None:
    torch.manual_seed(0)
    module, x = GhostModuleV2(4, 11, ratio).eval(), torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(module(x), GhostModule.forward(module, x) * module.short_conv(x))


def no_attention(attention: DFCAttention, x: Tensor) -> Tensor:
    return attention(x).new_ones(())


def smooth_upsampling(attention: DFCAttention, x: Tensor) -> Tensor:
    gates = convolved(attention, F.avg_pool2d(x, 2)).sigmoid()
    return F.interpolate(gates, size=x.shape[-2:], mode="bilinear")


def attention_at_full_resolution(attention: DFCAttention, x: Tensor) -> Tensor:
    return convolved(attention, x).sigmoid()


def maximum_instead_of_mean(attention: DFCAttention, x: Tensor) -> Tensor:
    return F.interpolate(convolved(attention, F.max_pool2d(x, 2)).sigmoid(), size=x.shape[-2:])


def rounding_up_when_pooling(attention: DFCAttention, x: Tensor) -> Tensor:
    return F.interpolate(convolved(attention, F.avg_pool2d(x, 2, ceil_mode=True)).sigmoid(), size=x.shape[-2:])


def hard_gate(attention: DFCAttention, x: Tensor) -> Tensor:
    return F.interpolate(F.hardsigmoid(convolved(attention, F.avg_pool2d(x, 2))), size=x.shape[-2:])


def relu_between(attention: DFCAttention, x: Tensor) -> Tensor:
    conv, norm, *along = attention
    x, size = norm(conv(F.avg_pool2d(x, 2))).relu(), x.shape[-2:]
    for layer in along:
        x = layer(x)
    return F.interpolate(x.sigmoid(), size=size)


MUTATIONS = [
    no_attention,
    smooth_upsampling,
    attention_at_full_resolution,
    maximum_instead_of_mean,
    rounding_up_when_pooling,
    hard_gate,
    relu_between,
]


@pytest.mark.parametrize("mutant", MUTATIONS, ids=lambda mutant: mutant.__name__)
def test_parity_detects_changed_attention(mutant: Callable[[DFCAttention, Tensor], Tensor]) -> None:
    ours, theirs = pair("ghostnetv2_100")
    for module in of_kind(ours, DFCAttention):
        clone = DFCAttention(module[0].in_channels, module[0].out_channels).eval()  # without the hook
        clone.load_state_dict(module.state_dict())
        module.register_forward_hook(lambda _, args, __, clone=clone: mutant(clone, args[0]))
    assert worst_error(ours, theirs) > 10 * BOUND


def test_parity_detects_attention_of_ghosts_only() -> None:
    ours, theirs = pair("ghostnetv2_100")
    for module in of_kind(ours, GhostModuleV2):
        module.short_conv.register_forward_hook(
            lambda _, __, gates: torch.cat([torch.ones_like(gates[:, ::2]), gates[:, gates.shape[1] // 2 :]], 1)
        )
    assert worst_error(ours, theirs) > 10 * BOUND


def strides_kept(network: GhostNet) -> int:
    return max([network.conv_stem.stride[0], *network.strides])


@pytest.mark.parametrize("build", [ghostnetv2, ghostnetv3])
@pytest.mark.parametrize(
    ("side", "stride"), [(1, 1), (2, 1), (3, 2), (8, 4), (16, 8), (17, 16), (32, 16), (33, 32), (224, 32)]
)
def test_image_size_skips_strides_until_last_map_is_2x2(build: Callable[..., GhostNet], side: int, stride: int) -> None:
    full, network = build(width=0.5), build(width=0.5, image_size=side).eval()
    network.load_state_dict(full.state_dict())  # the weights fit whatever the image
    assert strides_kept(network) == stride
    assert network.min_size == stride + 1
    with torch.no_grad():
        assert network.forward_features(torch.randn(1, 3, stride + 1, stride + 1)).shape[-2:] == (2, 2)
    if side > 1:
        assert side >= network.min_size


@pytest.mark.parametrize("build", [ghostnetv2, ghostnetv3])
def test_too_small_image_raises_with_min_size(build: Callable) -> None:
    network = build(width=0.5)
    with pytest.raises(ValueError, match="smallest") as error:
        network(torch.randn(2, 3, 64, 32))
    assert str(error.value) == (
        "model: DFC attention pools 2 x 2 pixels of the last map, so 33 x 33 is the smallest image that works; "
        "found 64 x 32 (datamodule.image_size)"
    )


def test_ghostnetv2_rejects_bad_image_size() -> None:
    with pytest.raises(ValueError, match=r"^model.image_size=0: must be an integer >= 1 or null$"):
        ghostnetv2(image_size=0)
