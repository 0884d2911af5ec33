"""Moving average of the weights: values, and operations per step."""

import copy
from collections import Counter
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ghostexp.training.callbacks.ema import EMAModel, EMAWeightAveraging

CPU = torch.device("cpu")


def build_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1))


@torch.no_grad()
def update_network(network: nn.Module, step: int) -> None:
    """Change weights and statistics as a training step would."""
    for number, tensor in enumerate(network.state_dict().values()):
        tensor.copy_(torch.tensor(step) if tensor.dtype == torch.long else tensor + 0.1 * (number + step))


def test_ema_averages_weights_with_rising_decay_and_copies_counts() -> None:
    network = build_network()
    ema = EMAModel(network, CPU, decay=0.5)
    expected: dict[str, torch.Tensor] = {}
    for step in range(12):
        update_network(network, step)
        ema.update_parameters(network)
        decay = min(0.5, (1 + step) / (10 + step)) if step else 0.0
        for name, now in network.state_dict().items():
            before = expected[name] if step else now
            expected[name] = torch.lerp(before, now, 1 - decay) if now.is_floating_point() else now.clone()
    for name, mean in ema.module.state_dict().items():
        torch.testing.assert_close(mean, expected[name])
    assert int(ema.n_averaged) == 12


def test_ema_continues_from_its_state_dict_bit_exactly() -> None:
    network, continued = build_network(), build_network()
    ema, resumed = EMAModel(network, CPU, 0.9), EMAModel(continued, CPU, 0.9)
    for step in range(6):
        update_network(network, step)
        ema.update_parameters(network)
        if step == 2:
            resumed.load_state_dict(ema.state_dict())
        elif step > 2:
            resumed.update_parameters(network)
    for name, tensor in ema.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_ema_averages_shared_weights_once_and_sees_new_buffers() -> None:
    first, second, norm = nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3)
    second.weight = first.weight
    network = nn.Sequential(first, second, norm)
    ema = EMAModel(network, CPU, decay=0.5)
    for step in range(6):
        with torch.no_grad():
            first.weight.fill_(step)
        norm.running_mean = torch.full((3,), float(step))  # a new tensor, as some networks assign
        before = ema.module[0].weight.clone()  # pyright: ignore[reportIndexIssue]
        ema.update_parameters(network)
        decay = min(0.5, (1 + step) / (10 + step)) if step else 0.0
        expected = torch.lerp(before, torch.full((3, 3), float(step)), 1 - decay)
        torch.testing.assert_close(ema.module[0].weight, expected)  # pyright: ignore[reportIndexIssue]
        torch.testing.assert_close(ema.module[2].running_mean, expected[0].detach())  # pyright: ignore[reportIndexIssue]


def test_ema_of_half_precision_weights_is_float32() -> None:
    network = build_network()
    ema = EMAModel(network, CPU, 0.9)
    network.to(torch.bfloat16)
    ema.update_parameters(network)
    assert {tensor.dtype for tensor in ema.module.parameters()} == {torch.float32}


def test_validation_of_half_precision_weights_leaves_their_average_as_it_is() -> None:
    network = build_network()
    callback = EMAWeightAveraging(0.9)
    callback._average_model = ema = EMAModel(network, CPU, 0.9)
    network.to(torch.bfloat16)
    for step in range(3):
        update_network(network, step)
        ema.update_parameters(network)
    average, weights = copy.deepcopy(ema.state_dict()), copy.deepcopy(network.state_dict())
    module = cast("pl.LightningModule", network)
    callback._swap_models(module)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, average[f"module.{name}"].to(tensor.dtype)), name
    callback._swap_models(module)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())
    assert all(torch.equal(tensor, average[name]) for name, tensor in ema.state_dict().items())


class OperationCounter(TorchDispatchMode):
    """Counts the operations that torch dispatches."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: object, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def test_ema_step_is_two_foreach_calls_and_reads_nothing_back() -> None:
    network = build_network()
    ema = EMAModel(network, CPU, 0.9)
    ema.update_parameters(network)
    with OperationCounter() as counter:
        ema.update_parameters(network)
    assert counter.counts.keys() <= {"_foreach_lerp_", "_foreach_copy_", "fill_", "detach"}
    assert counter.counts["_foreach_lerp_"] == counter.counts["_foreach_copy_"] == 1
