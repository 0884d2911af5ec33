"""Test training in several processes: equal to one process, and no process left."""

import csv
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ghostexp.models.resnet_cifar import ResNet, resnet20
from tests.cli import TINY, command, in_directory, processes_in, start, wait_for

# Fifty steps; BatchNorm is frozen because torch synchronises it on GPUs only.
FIFTY = (
    "model=resnet20",
    "model._target_=tests.runner.test_multi_process.frozen_resnet20",
    "threads=1",
    "optimizer.lr=0.005",
)
FIFTY += ("trainer.max_epochs=5", "trainer.limit_train_batches=10", "callbacks.progress=false")
FIFTY += ("trainer.precision=64-true",)  # in float32, sums in another order differ by as much as a fault may


def frozen_resnet20(num_classes: int, in_chans: int, shortcut: str, width: float) -> ResNet:
    """ResNet-20 whose BatchNorm stays in evaluation mode."""
    network = resnet20(num_classes, in_chans, "B" if shortcut == "B" else "A")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(False)
            module.train = lambda mode=True, module=module: module
    return network


def losses(run: Path) -> list[float]:
    """Return the mean training loss of every epoch."""
    with (run / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]


def targets_of_errors(run: Path) -> dict[str, str]:
    """Return the targets of the misclassified images, by index in the test set."""
    with (run / "misclassified.csv").open() as file:
        return {row["image"]: row["target"] for row in csv.DictReader(file)}


def test_two_devices_match_one_device(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert command(*FIFTY, in_directory(one)) == 0
    capfd.readouterr()
    assert command(*FIFTY, "trainer.devices=2", in_directory(two)) == 0
    ours, theirs = torch.tensor(losses(one)), torch.tensor(losses(two))
    assert len(ours) == 5
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-6), (ours, theirs)
    weights = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in (one, two)]
    assert all(torch.allclose(weights[0][name], weights[1][name], rtol=0, atol=1e-12) for name in weights[0])
    targets = [targets_of_errors(run) for run in (one, two)]
    both = targets[0].keys() & targets[1].keys()
    assert len(both) > 0.8 * len(targets[0])  # images near the decision boundary may differ
    assert all(targets[0][image] == targets[1][image] for image in both)
    assert len(list(tmp_path.rglob("result.json"))) == 2
    assert processes_in(two) == []


def test_killed_parent_leaves_no_rank_and_run_resumes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = (*TINY, "trainer.devices=2", "trainer.max_epochs=100", in_directory(run))
    process = start(*arguments)
    wait_for(run / "metrics.csv")
    os.kill(process.pid, signal.SIGKILL)  # the parent alone: not its group
    process.communicate()
    deadline = time.monotonic() + 20
    while processes_in(run) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_in(run) == []

    process = start(f"resume={run}")
    before = len(losses(run))
    deadline = time.monotonic() + 120
    while len(losses(run)) <= before and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert f"to continue: python -m ghostexp resume={run}" in err
    assert processes_in(run) == []


COLLECTIVES = ("all_reduce", "reduce", "broadcast", "barrier", "all_gather", "all_gather_into_tensor")
COLLECTIVES += ("all_gather_object", "broadcast_object_list", "_broadcast_coalesced")


def counting_resnet8(num_classes: int, in_chans: int, shortcut: str, width: float) -> ResNet:
    """ResNet-8 that writes the collectives before each training step to a file, apart from DDP's own in C++."""
    counts: Counter[str] = Counter()
    steps: list[dict[str, int]] = []

    def count(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return call(*arguments, **options)

        return counted

    def look(network: nn.Module, _: object) -> None:
        if network.training and "RANK" in os.environ:
            steps.append(dict(counts))
            counts.clear()
            Path(os.environ["COUNTS"] + os.environ["RANK"]).write_text(json.dumps(steps))

    if "RANK" in os.environ:
        for name in COLLECTIVES:
            setattr(torch.distributed, name, count(name, getattr(torch.distributed, name)))
    network = ResNet(8, num_classes, in_chans)
    network.register_forward_pre_hook(look)
    return network


def test_step_on_two_devices_has_no_collective_beside_the_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COUNTS", str(tmp_path / "counts"))
    target = "model._target_=tests.runner.test_multi_process.counting_resnet8"
    rest = ("datamodule.batch_size=2", "trainer.devices=2", "trainer.max_epochs=1", "callbacks.ema=0.9")
    assert command(*TINY, target, *rest, in_directory(tmp_path / "run")) == 0
    for rank in "01":
        steps = json.loads((tmp_path / f"counts{rank}").read_text())[1:]  # the first has what came before
        print(f"rank {rank}, collectives of {len(steps)} steps: {steps}")
        assert all(step in ({}, {"all_reduce": 1}) for step in steps)  # one that asks for signals and clocks
        assert sum(not step for step in steps) > len(steps) / 2
