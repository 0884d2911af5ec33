"""Test plans: which convolutions become ghost modules."""

from typing import Any

import pytest
import torch
from torch import nn

from ghostexp.models.ghost_module import GhostModule
from ghostexp.models.ghostify import ghostify
from ghostexp.models.plan import apply_plan
from ghostexp.models.resnet_cifar import resnet20


def ghosts(network: nn.Module) -> dict[str, tuple[int, int]]:
    found = {name: module for name, module in network.named_modules() if isinstance(module, GhostModule)}
    return {name: (module.ratio, module.dw_size) for name, module in found.items()}


def test_plan_gives_each_layer_its_ratio_and_the_last_pattern_decides() -> None:
    layers = {"layer2.*": {"ratio": 2}, "layer2.0.*": {"ratio": 1}, "layer3.1.conv?": {"ratio": 4, "dw_size": 5}}
    network = resnet20()
    assert apply_plan(network, {"name": "mine", "layers": layers}) is network
    expected = {f"layer2.{block}.conv{number}": (2, 3) for block in (1, 2) for number in (1, 2)}
    assert ghosts(network) == expected | {"layer3.1.conv1": (4, 5), "layer3.1.conv2": (4, 5)}
    assert [row.name for row in network.ghostified] == list(ghosts(network))  # pyright: ignore
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 10)


def test_plan_of_every_layer_is_ghostify() -> None:
    torch.manual_seed(0)
    planned = apply_plan(resnet20(), {"layers": {"*": {"ratio": 3, "dw_size": 5}}})
    torch.manual_seed(0)
    expected = ghostify(resnet20(), 3, 5)
    assert str(planned) == str(expected)
    assert all(torch.equal(a, b) for a, b in zip(planned.parameters(), expected.parameters(), strict=True))


def test_plan_without_ghosts_leaves_network() -> None:
    assert ghosts(apply_plan(resnet20(), {"layers": {}})) == ghosts(
        apply_plan(resnet20(), {"layers": {"*": {"ratio": 1}}})
    )


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"layers": {"layer9.*": {"ratio": 2}}}, "model.plan: layer9.* matches no convolution of the network; its 19 "),
        ({"layers": {"conv1": {"ratio": 17}}}, "model.plan: conv1: ratio=17: must be <= 16, its output channels"),
        ({"layers": {"conv1": {"ratio": 0}}}, "model.plan: conv1: ratio=0: must be an integer >= 1"),
        (
            {"layers": {"conv1": {"ratio": 2, "dw_size": 4}}},
            "model.plan: conv1: dw_size=4: must be an odd integer >= 1",
        ),
        ({"layers": {"conv1": {"ratio": 2, "d": 3}}}, "model.plan: conv1: d: unknown; there is ratio, dw_size"),
        ({"layers": {"conv1": 2}}, "model.plan: conv1: 2: must be a mapping with a ratio"),
        ({"layers": None}, "model.plan.layers=None: must be a mapping"),
        ({"layer": {}}, "model.plan.layer: unknown; a plan has name and layers"),
    ],
)
def test_bad_plan_is_one_line(plan: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^model\.plan") as error:
        apply_plan(resnet20(), plan)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_plan_for_ghost_network_names_the_ordinary_one() -> None:
    with pytest.raises(ValueError, match="which has none outside ghost modules; a plan is for the ordinary network"):
        apply_plan(ghostify(resnet20()), {"layers": {"conv1": {"ratio": 2}}})
