"""Test the measurement of layers and the choice of a plan; times are pretended."""

import itertools
from collections.abc import Mapping
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from ghostexp.analysis import placement
from ghostexp.analysis.conv_layers import find_conv_layers
from ghostexp.analysis.cost import count_cost
from ghostexp.analysis.placement import LayerForm, Setting, measure_layers
from ghostexp.analysis.plan_search import Goal, choose_forms, predict_ms
from ghostexp.models.ghost_module import GhostModule
from ghostexp.models.plan import apply_plan
from ghostexp.models.resnet_cifar import resnet20
from ghostexp.models.torchvision_timm import timm_network

SHAPE = (3, 16, 16)


def setting(training: bool) -> Setting:
    return Setting(2, training, torch.device("cpu"), torch.float32, True, lambda module: module, nullcontext)


def test_layers_have_their_surroundings() -> None:
    layers = {layer.name: layer for layer in find_conv_layers(resnet20(shortcut="B"), SHAPE)}
    assert len(layers) == 21
    titles = {name: layers[name].title for name in ("conv1", "layer2.0.conv1", "layer2.0.conv2", "layer2.0.shortcut.0")}
    assert titles == {
        "conv1": "3x3, 3 -> 16, 16 x 16, BN, ReLU",
        "layer2.0.conv1": "3x3, 16 -> 32, 16 x 16, BN, ReLU",
        "layer2.0.conv2": "3x3, 32 -> 32, 8 x 8, BN",  # the addition comes before its ReLU
        "layer2.0.shortcut.0": "1x1, 16 -> 32, 16 x 16, BN",
    }
    assert [layer.name for layer in layers.values() if layer.is_first] == ["conv1"]


def test_layers_of_timm_have_their_normalisation_with_activation() -> None:
    layers = find_conv_layers(timm_network("mobilenetv3_small_050", num_classes=5), (3, 32, 32))
    assert layers[0].title == "3x3, 3 -> 16, 32 x 32, BNAct"
    assert layers[0].build(1, 1, folded=True)[1](torch.tensor([-9.0, 3.0])).tolist() == [0.0, 3.0]  # hard swish


@pytest.mark.parametrize("ratio", [1, 3])
def test_costs_of_layers_sum_to_those_of_the_network(ratio: int) -> None:
    network = resnet20()
    layers = find_conv_layers(network, SHAPE)
    expected = count_cost(apply_plan(network, {"layers": {"*": {"ratio": ratio, "dw_size": 5}}}), SHAPE)
    rest = sum(
        parameter.numel()
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d | nn.Linear)
        for parameter in module.parameters()
    )
    params, macs = map(sum, zip(*(layer.cost(ratio, 5) for layer in layers), strict=True))
    assert (params + rest, macs + 640) == (expected.params, expected.macs)


def test_folded_layer_computes_the_same() -> None:
    (layer, *_) = find_conv_layers(resnet20(), SHAPE)
    nn.init.uniform_(layer.after[0].weight, 0.5, 1.5)  # pyright: ignore
    plain, folded = (layer.build(1, 1, folded=folded).eval() for folded in (False, True))
    images = torch.randn(2, *SHAPE)
    assert (plain(images) - folded(images)).abs().max() < 1e-5
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert isinstance(layer.build(2, 3, folded=True)[0], GhostModule)


@pytest.mark.parametrize("training", [True, False])
def test_layers_of_equal_shape_are_measured_once(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def pretend(steps: Mapping, *arguments: object) -> dict[str, list[float]]:
        counted.append(len(steps))
        next(iter(steps.values()))()  # runs
        return {name: [4.0, 8.0, 12.0] if name.endswith("(1, 1)") else [2.0, 5.0, 10.0] for name in steps}

    monkeypatch.setattr(placement, "alternate", pretend)
    layers = find_conv_layers(resnet20(), SHAPE)
    forms = measure_layers(layers, [(2, 3), (32, 3)], setting(training), rounds=3)
    assert counted == [9 * 2 + 6]  # nine shapes, six of them with 32 channels and more, twice
    assert list(forms) == [layer.name for layer in layers]
    ordinary, ghost, *others = forms["layer1.2.conv1"]
    assert (ordinary.ratio, ghost.ratio, others) == (1, 2, [])
    assert (ghost.speedup, ghost.speedup_low, ghost.ms) == (1.6, 1.4, 5.0)  # medians of the rounds' ratios
    assert ghost.macs < ordinary.macs


def test_layers_of_equal_shape_have_their_own_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "alternate", lambda steps, *_: {name: [3.0] for name in steps})
    stem, twice, once = (nn.Conv2d(channels, 4, 3, padding=1) for channels in (1, 4, 4))
    layers = find_conv_layers(nn.Sequential(stem, twice, twice, once), (1, 8, 8))
    forms = measure_layers(layers, [], setting(training=False), rounds=1)
    (_, (both,), (single,)) = forms.values()
    assert (both.ms, single.ms) == (6.0, 3.0)
    assert both.macs == 2 * single.macs == 2 * 4 * 4 * 9 * 64


def form(layer: str, ratio: int, ms: float, macs: int, low: float = 2.0) -> LayerForm:
    return LayerForm(layer, "", ratio, 3, 0, macs, ms, 2.0, low, 3.0)


FORMS = {
    "a": [form("a", 1, 10.0, 100), form("a", 2, 8.0, 50), form("a", 4, 9.0, 25)],
    "b": [form("b", 1, 5.0, 60), form("b", 2, 7.0, 30), form("b", 4, 4.9, 15, low=0.9)],
    "c": [form("c", 1, 2.0, 80), form("c", 2, 3.0, 40), form("c", 4, 3.5, 10)],
}


def test_fastest_plan_keeps_what_does_not_pay() -> None:
    chosen = choose_forms(FORMS, "fastest")
    assert {name: one.ratio for name, one in chosen.items()} == {"a": 2, "b": 1, "c": 1}  # b's gain is within noise
    assert predict_ms(chosen, FORMS, 100.0) == pytest.approx(98.0)


@pytest.mark.parametrize("goal", ["fewest_macs", "most_macs"])
@pytest.mark.parametrize("saved", [0.0, 0.5, 2.0, 2.1])
def test_budget_is_met_exactly(goal: Goal, saved: float) -> None:
    chosen = choose_forms(FORMS, goal, saved)
    fitting = [one for one in itertools.product(*FORMS.values()) if sum(each.ms for each in one) <= 17.0 - saved + 1e-9]
    best = (min if goal == "fewest_macs" else max)(sum(each.macs for each in one) for one in fitting)
    assert sum(one.macs for one in chosen.values()) == best
    assert sum(one.ms for one in chosen.values()) <= 17.0 - saved + 1e-6


def test_budget_that_no_plan_meets_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"saves at most 2.1 ms of 3 ms"):
        choose_forms(FORMS, "fewest_macs", 3.0)
