"""Test layer costs, peak memory and latency."""

import time
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ghostexp.analysis import timing
from ghostexp.analysis.cost import count_cost, layer_costs, peak_memory
from ghostexp.analysis.latency import InferenceMode, benchmark_modes, build_mode, time_fractions
from ghostexp.models.ghost_module import GhostModule
from ghostexp.models.ghostify import ghostify
from ghostexp.models.ghostnet import ghostnet
from ghostexp.models.ghostnetv3 import ghostnetv3
from ghostexp.models.resnet_cifar import resnet20, resnet56
from ghostexp.models.torchvision_timm import torchvision_network
from ghostexp.models.vgg_cifar import vgg16

CPU = torch.device("cpu")
EAGER = {"dtype": torch.float32, "layout": torch.contiguous_format}


@pytest.mark.parametrize(
    ("build", "side"),
    [
        (lambda: ghostnet(width=0.5), 64),
        (lambda: ghostnetv3(width=0.5), 64),
        (lambda: torchvision_network("mobilenet_v3_small"), 64),
        (lambda: torchvision_network("swin_t"), 64),  # attention has products outside layers
    ],
)
def test_layer_costs_add_up_to_count_cost(build: Callable[[], nn.Module], side: int) -> None:
    network, shape = build(), (3, side, side)
    rows, total = layer_costs(network, shape), count_cost(network, shape)
    assert (sum(row.params for row in rows), sum(row.macs for row in rows)) == (total.params, total.macs)


@pytest.mark.parametrize(
    ("build", "published"),
    [
        (lambda: resnet56(shortcut="B"), 127926912),
        (lambda: ghostify(resnet56(shortcut="B"), 2, 3), 67504768),
        (vgg16, 314569728),
        (lambda: ghostify(vgg16(bias=False), 2, 3), 159215616),
    ],
)
def test_layer_costs_thop_matches_thop(build: Callable[[], nn.Module], published: int) -> None:
    assert sum(row.thop for row in layer_costs(build(), (3, 32, 32))) == published


@pytest.mark.parametrize("network", [ghostnet(width=0.5), ghostnetv3(width=0.5), ghostify(resnet20(), norm_act="bn")])
def test_layer_costs_part_of_ghost_module(network: nn.Module) -> None:
    parts = {row.name: row.part for row in layer_costs(network, (3, 64, 64))}
    ghosts = [name for name, module in network.named_modules() if isinstance(module, GhostModule)]
    inside = {name: part for name, part in parts.items() if any(name.startswith(f"{ghost}.") for ghost in ghosts)}
    for name, part in inside.items():
        attention = ".short_conv." in name
        assert part == ("" if attention else "cheap" if ".cheap_" in name else "primary"), name
    assert {parts[name] for name in parts if name not in inside} == {""}
    assert "cheap" in parts.values()


def test_layer_costs_of_a_layer_under_two_names() -> None:
    shared = nn.Conv2d(3, 3, 3, padding=1, bias=False)
    network = nn.Sequential(OrderedDict(a=nn.Sequential(shared, nn.ReLU()), b=nn.Sequential(shared)))
    (row,) = layer_costs(network, (3, 8, 8))
    assert (row.name, row.params, row.macs) == ("a.0", 81, 2 * 81 * 64)


def test_layer_costs_of_shared_layer_count_twice() -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1, groups=2)
    (row,) = layer_costs(nn.Sequential(conv, conv), (4, 8, 6))
    assert (row.kind, row.output, row.params) == ("conv 3x3, 2 groups", "4 x 8 x 6", 4 * 2 * 9 + 4)
    assert (row.macs, row.activations) == (2 * 4 * 48 * 2 * 9, 2 * 4 * 48)


@pytest.mark.parametrize("count", [count_cost, layer_costs])
def test_cost_of_network_with_mismatched_batchnorm_is_an_error(count: Callable[..., object]) -> None:
    with pytest.raises(RuntimeError, match="running_mean"):
        count(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(5)), (3, 8, 8))


class Residual(nn.Module):
    """A network that keeps its input until the end."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Conv2d(4, 16, 1, bias=False)
        self.down = nn.Conv2d(16, 4, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(x).relu_())


def test_peak_memory_of_live_maps() -> None:
    pixels, weights = 64, 4 * (3 * 4 + 4 * 8)
    chain = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU(inplace=True), nn.Conv2d(4, 8, 1, bias=False))
    assert peak_memory(chain, (3, 8, 8)) == weights + 4 * pixels * (3 + 4 + 8)
    assert peak_memory(chain, (3, 8, 8), batch=5) == weights + 5 * 4 * pixels * (3 + 4 + 8)
    chain[1] = nn.ReLU()  # the image, which the caller holds, and two maps of 4 need less than the 4 + 8 that follow
    assert peak_memory(chain, (3, 8, 8)) == weights + 4 * pixels * (3 + 4 + 8)
    assert peak_memory(Residual(), (4, 8, 8)) == 4 * 2 * 4 * 16 + 4 * pixels * (4 + 16 + 4)


def test_build_mode_applies_flags() -> None:
    network, x = resnet20().eval(), torch.randn(2, 3, 8, 8)
    mode = build_mode(network, "fused+bf16+channels_last", CPU)
    assert isinstance(mode.network, nn.Module)
    assert not [module for module in mode.network.modules() if isinstance(module, nn.BatchNorm2d)]
    weight = mode.network.get_parameter("layer1.0.conv1.weight")
    assert weight.dtype == torch.bfloat16
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert mode.images(x).dtype == torch.bfloat16
    assert mode.images(x).is_contiguous(memory_format=torch.channels_last)
    build_mode(network, "bf16+channels_last", CPU)
    assert network.conv1.weight.dtype == torch.float32  # the network itself is unchanged
    assert not network.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert hasattr(build_mode(network, "compiled", CPU).network, "_orig_mod")
    with pytest.raises(ValueError, match=r"^task.modes=fast: must be flags of eager, fused, "):
        build_mode(network, "fast", CPU)


def test_benchmark_modes_alternates_and_compares_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 1e-9)  # one run a sample
    calls: list[str] = []

    def network(name: str, seconds: float, error: float) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            calls.append(name)
            time.sleep(seconds)
            return torch.tensor([[0.0, 2.0], [4.0, 6.0 + error]])

        return run

    modes = {
        "a": InferenceMode(network("a", 0.002, 0.0), **EAGER),
        "b": InferenceMode(network("b", 0.010, 3.0), **EAGER),
    }
    a, b = benchmark_modes(modes, torch.zeros(4, 3), rounds=3)
    assert calls[-6:] == ["a", "b"] * 3
    assert (a.mode, a.batch, a.difference) == ("a", 4, 0.0)
    assert b.difference == pytest.approx(3.0 / torch.tensor([0.0, 2.0, 4.0, 6.0]).std().item())
    assert a.low_ms <= a.median_ms <= a.high_ms
    assert b.median_ms > a.median_ms >= 2
    assert a.images_per_second == pytest.approx(4000 / a.median_ms)


def test_speedup_is_median_of_per_round_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = {name: InferenceMode(lambda x: torch.eye(2), **EAGER) for name in "ab"}
    times = iter([1.0, 1.0, 1.0, 1.0, 10.0, 5.0, 80.0, 40.0, 30.0, 10.0])  # two warm-ups each, then three rounds
    monkeypatch.setattr(timing, "milliseconds", lambda *arguments: next(times))
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 1e-9)
    a, b = benchmark_modes(modes, torch.zeros(1), rounds=3)
    assert (a.median_ms, b.median_ms) == (30.0, 10.0)
    assert (a.speedup, b.speedup) == (1.0, 2.0)


def test_benchmark_modes_repeats_fast_network() -> None:
    calls: list[float] = []

    def run(x: Tensor) -> Tensor:
        time.sleep(0.001)
        calls.append(1)
        return torch.eye(2)

    (found,) = benchmark_modes({"a": InferenceMode(run, **EAGER)}, torch.zeros(1), rounds=2)
    assert len(calls) > 10
    assert 1 <= found.median_ms < 5


def test_time_fractions_of_cheap_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = ghostify(resnet20()), torch.randn(1, 3, 8, 8)
    cheap = GhostModule.cheap

    def slow(self: GhostModule, intrinsic: Tensor) -> Tensor:
        time.sleep(0.003)
        return cheap(self, intrinsic)

    before = time_fractions(network, x, rounds=2)
    assert before["primary"] > 0
    assert before["cheap"] > 0
    assert sum(before.values()) < 1
    monkeypatch.setattr(GhostModule, "cheap", slow)
    after = time_fractions(network, x, rounds=2)
    assert after["cheap"] > 0.6 > after["primary"]
    assert time_fractions(resnet20(), x, rounds=2) == {}
