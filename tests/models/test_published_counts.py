"""Test parameters and MACs of every network with a published or measured count."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ghostexp.analysis.cost import Cost, count_cost
from ghostexp.models.ghostify import ghostify
from ghostexp.models.ghostnet import ghostnet, ghostnet_small
from ghostexp.models.ghostnetv2 import ghostnetv2
from ghostexp.models.ghostnetv3 import ghostnetv3
from ghostexp.models.resnet_cifar import Shortcut, resnet20, resnet56
from ghostexp.models.torchvision_timm import torchvision_network
from ghostexp.models.vgg_cifar import vgg16


def ghost_resnet56(ratio: int, dw_size: int, shortcut: Shortcut = "B") -> nn.Module:
    return ghostify(resnet56(shortcut=shortcut), ratio, dw_size)


def ghost_vgg16(ratio: int, dw_size: int) -> nn.Module:
    return ghostify(vgg16(bias=False), ratio, dw_size)


def ghost_resnet50(ratio: int) -> nn.Module:
    return ghostify(torchvision_network("resnet50"), ratio, 3, exclude="first")


def deployed(width: float) -> nn.Module:
    network = ghostnetv3(width=width)
    network.reparameterize()
    return network


# name: (network, image side, parameters, MACs; a string is in millions with the known decimals)
EXACT: dict[str, tuple[Callable[[], nn.Module], int, int | str, int | str]] = {
    "ghostnet_0.5x": (lambda: ghostnet(width=0.5), 224, 2587292, 42328152),
    "ghostnet_1.0x": (lambda: ghostnet(width=1.0), 224, 5182508, 141150512),
    "ghostnet_1.1x": (lambda: ghostnet(width=1.1), 224, 5855650, 166986864),
    "ghostnet_1.3x": (lambda: ghostnet(width=1.3), 224, 7358820, 227003256),
    "ghostnet_v2_1.0x": (lambda: ghostnetv2(width=1.0), 224, 6156908, 167048288),
    "ghostnet_v2_1.3x": (lambda: ghostnetv2(width=1.3), 224, 8960404, 269322976),
    "ghostnet_v2_1.6x": (lambda: ghostnetv2(width=1.6), 224, 12392698, 398607224),
    "ghostnet_v3_1.0x, training": (lambda: ghostnetv3(width=1.0), 224, 8129028, 404128320),
    "ghostnet_v3_1.3x, training": (lambda: ghostnetv3(width=1.3), 224, 12217720, 654842824),
    "ghostnet_v3_1.6x, training": (lambda: ghostnetv3(width=1.6), 224, 17275700, 971574612),
    "ghostnet_v3_1.0x, deployed": (lambda: deployed(1.0), 224, 6147588, 167048288),
    "ghostnet_v3_1.3x, deployed": (lambda: deployed(1.3), 224, 8948296, 269322976),
    "ghostnet_v3_1.6x, deployed": (lambda: deployed(1.6), 224, 12377778, 398607224),
    "ghostnet_small_0.5x": (lambda: ghostnet_small(width=0.5), 224, 1502398, 13500696),
    "ghostnet_small_1.0x": (lambda: ghostnet_small(width=1.0), 224, 2301288, 38064240),
    "resnet56_option_a": (lambda: resnet56(shortcut="A"), 32, 853018, 125485696),
    "resnet56_option_b": (lambda: resnet56(shortcut="B"), 32, 855770, 125747840),
    "ghost_resnet56_b_s2_d3": (lambda: ghost_resnet56(2, 3), 32, 439914, 65325696),
    "ghost_resnet56_b_s3_d3": (lambda: ghost_resnet56(3, 3), 32, 312038, "48.11"),
    "ghost_resnet56_b_s4_d3": (lambda: ghost_resnet56(4, 3), 32, 231986, "35.11"),
    "ghost_resnet56_b_s5_d3": (lambda: ghost_resnet56(5, 3), 32, 198646, "32.80"),
    "ghost_resnet56_b_s10_d3": (lambda: ghost_resnet56(10, 3), 32, 121159, "20.49"),
    "ghost_resnet56_b_s2_d1": (lambda: ghost_resnet56(2, 1), 32, 431402, "63.15"),
    "ghost_resnet56_b_s2_d5": (lambda: ghost_resnet56(2, 5), 32, 456938, "69.68"),
    "ghost_resnet56_b_s2_d7": (lambda: ghost_resnet56(2, 7), 32, 482474, "76.22"),
    "ghost_resnet56_a_s2_d1, printed in the paper": (lambda: ghost_resnet56(2, 1, "A"), 32, "0.43", "63"),
    "ghost_resnet56_a_s2_d3": (lambda: ghost_resnet56(2, 3, "A"), 32, "0.438", "65.1"),
    "vgg16": (vgg16, 32, 14990922, 313463808),
    "vgg16, linear head": (lambda: vgg16(head="linear"), 32, "14.73", "313"),
    "ghost_vgg16_s2_d3": (lambda: ghost_vgg16(2, 3), 32, 7650474, 158109696),
    "ghost_vgg16_s3_d3": (lambda: ghost_vgg16(3, 3), 32, 5218440, "107.24"),
    "ghost_vgg16_s4_d3": (lambda: ghost_vgg16(4, 3), 32, 3982362, "80.43"),
    "ghost_vgg16_s5_d3": (lambda: ghost_vgg16(5, 3), 32, 3269625, "65.67"),
    "ghost_vgg16_s10_d3": (lambda: ghost_vgg16(10, 3), 32, 1805397, "34.74"),
    "ghost_vgg16_s2_d1": (lambda: ghost_vgg16(2, 1), 32, 7633578, "157.00"),
    "ghost_vgg16_s2_d5": (lambda: ghost_vgg16(2, 5), 32, 7684266, "160.32"),
    "ghost_vgg16_s2_d7": (lambda: ghost_vgg16(2, 7), 32, 7734954, "163.64"),
    "ghost_resnet50_s2_d3": (lambda: ghost_resnet50(2), 224, 13953512, "2151"),
    "ghost_resnet50_s4_d3": (lambda: ghost_resnet50(4), 224, 8151752, "1182"),
}


def macs_of(function: Callable[[torch.Tensor], object], side: int) -> int:
    with FlopCounterMode(display=False) as counter:
        function(torch.empty(1, 3, side, side, device="meta"))
    return counter.get_total_flops() // 2


def agrees(found: int, known: int | str) -> bool:
    if isinstance(known, int):
        return found == known
    decimals = len(known.partition(".")[2])
    return f"{found / 1e6:.{decimals}f}" == known


@pytest.mark.parametrize("name", EXACT)
def test_parameters_and_macs_are_published_counts(name: str) -> None:
    build, side, params, macs = EXACT[name]
    with torch.device("meta"):
        found = count_cost(build(), (3, side, side))
    assert agrees(found.params, params), found
    assert agrees(found.macs, macs), found


@pytest.mark.parametrize("name", ["ghostnet_0.5x", "ghostnet_v3_1.0x, deployed", "ghost_vgg16_s2_d3"])
def test_count_of_network_with_weights_is_that_of_torch(name: str) -> None:
    build, side, params, macs = EXACT[name]
    network = build()
    assert count_cost(network, (3, side, side)) == Cost(params, macs)  # pyright: ignore[reportArgumentType]
    assert macs_of(network.to("meta").eval(), side) == macs


def test_ghostnet_width_1_1_backbone_macs() -> None:
    with torch.device("meta"):
        network = ghostnet(width=1.1).eval()
    assert macs_of(network.forward_features, 224) == 164355184


@pytest.mark.parametrize(("ratio", "width"), [(2, 0.72), (4, 0.53)])
def test_narrow_resnet20_costs_as_much_as_ghosts(ratio: int, width: float) -> None:
    ghosts, narrow = (
        count_cost(network, (3, 32, 32)) for network in (ghostify(resnet20(), ratio), resnet20(width=width))
    )
    assert narrow.macs == pytest.approx(ghosts.macs, rel=0.05)
    assert narrow.params == pytest.approx(ghosts.params, rel=0.05)
