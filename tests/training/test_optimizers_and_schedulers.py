"""Schedules and optimizers equal those of torch and timm."""

import functools
import itertools
import re
from pathlib import Path
from typing import Literal

import pytest
import torch
from timm.optim.rmsprop_tf import RMSpropTF
from torch import nn
from torch.optim import SGD, lr_scheduler

from ghostexp.runner.execute import execute
from ghostexp.runs.csv_table import read_rows
from ghostexp.runs.directory import RunDirectory
from ghostexp.training import optimizers, schedulers
from tests.cli import TINY, command, in_directory
from tests.training.test_ema import OperationCounter

STEPS = 7  # per epoch


def rates(schedule: schedulers.Schedule, steps: int) -> list[float]:
    """Compute the rate of every step, relative to the peak."""
    return [schedule(step) for step in range(steps)]


def torch_rates(make: functools.partial, steps: int, every: int = 1) -> list[float]:
    """Compute the rates of a torch scheduler, stepped every `every` steps."""
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    found = []
    for step in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0:
            scheduler.step()
    return found


def test_cosine_equals_torch_by_step_and_by_epoch() -> None:
    by_step = functools.partial(lr_scheduler.CosineAnnealingLR, T_max=10 * STEPS, eta_min=0.01)
    assert rates(schedulers.Cosine(10, STEPS, end_factor=0.01), 70) == pytest.approx(torch_rates(by_step, 70))
    by_epoch = functools.partial(lr_scheduler.CosineAnnealingLR, T_max=10)
    ours = rates(schedulers.Cosine(10, STEPS, interval="epoch"), 70)
    assert ours == pytest.approx(torch_rates(by_epoch, 70, every=STEPS))


def test_linear_equals_torch() -> None:
    to_end = functools.partial(lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.01, total_iters=10 * STEPS)
    assert rates(schedulers.Linear(10, STEPS, end_factor=0.01), 70) == pytest.approx(torch_rates(to_end, 70))
    warmed = schedulers.Linear(10, 5, warmup_epochs=2)
    assert [warmed(step) for step in (9, 10, 30, 50, 60)] == pytest.approx([1.0, 1.0, 0.5, 0.0, 0.0])


def test_multistep_and_step_equal_torch() -> None:
    multistep = functools.partial(lr_scheduler.MultiStepLR, milestones=[4, 8], gamma=0.2)
    ours = rates(schedulers.MultiStep(10, STEPS, milestones=[4, 8, 500], gamma=0.2), 70)
    assert ours == pytest.approx(torch_rates(multistep, 70, every=STEPS))
    fractions = schedulers.MultiStep(10, STEPS, milestones=[0.4, 8], gamma=0.2)
    assert rates(fractions, 70) == ours
    step = functools.partial(lr_scheduler.StepLR, step_size=3, gamma=0.5)
    assert rates(schedulers.Step(10, STEPS, step_size=3, gamma=0.5), 70) == pytest.approx(
        torch_rates(step, 70, every=STEPS)
    )


def test_onecycle_equals_torch() -> None:
    make = functools.partial(lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=1001, div_factor=25, final_div_factor=1e4)
    ours = rates(schedulers.OneCycle(100, 10), 1000)
    assert ours == pytest.approx(torch_rates(make, 1000), abs=0.01)


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_onecycle_without_a_rise_begins_at_the_peak(interval: Literal["step", "epoch"]) -> None:
    found = rates(schedulers.OneCycle(10, STEPS, pct_start=0.0, interval=interval), 10 * STEPS)
    assert found[0] == 1.0
    assert found == sorted(found, reverse=True)


def lr_of_epochs(run: Path) -> list[float]:
    """Return the learning rates of the epochs, relative to the first."""
    found = [float(row["lr"]) for row in read_rows(run / "metrics.csv") if row.get("train/loss")]
    return [rate / found[0] for rate in found]


def test_torch_schedule_by_epoch_is_independent_of_validations(tmp_path: Path) -> None:
    step = ("scheduler._target_=torch.optim.lr_scheduler.StepLR", "scheduler.step_size=1", "scheduler.gamma=0.5")
    run = tmp_path / "run"
    epochs = ("trainer.max_epochs=4", "trainer.check_val_every_n_epoch=2")
    assert command(*TINY, *step, *epochs, in_directory(run)) == 0
    assert lr_of_epochs(run) == [1.0, 0.5, 0.25, 0.125]


@pytest.mark.parametrize("every", [1, 2])
def test_resume_does_not_skip_a_step_of_a_plateau_scheduler(every: int, tmp_path: Path) -> None:
    plateau = ("scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau", "scheduler.factor=0.5")
    plateau += ("scheduler.patience=0", "scheduler.threshold=1000", f"trainer.check_val_every_n_epoch={every}")
    whole, resumed = tmp_path / "whole", RunDirectory(tmp_path / "resumed")
    assert command(*TINY, *plateau, "trainer.max_epochs=6", in_directory(whole)) == 0
    config = RunDirectory(whole).read_config()
    resumed.write_config(config)
    assert execute(config | {"pause_after": 2, "resume": str(resumed.path)}, resumed) == 0
    assert command(f"resume={resumed.path}") == 0
    wanted = [1.0, 1.0, 0.5, 0.25, 0.125, 0.0625] if every == 1 else [1.0, 1.0, 1.0, 1.0, 0.5, 0.5]
    assert lr_of_epochs(whole) == lr_of_epochs(resumed.path) == wanted


def test_warmup_is_linear_up_to_schedule() -> None:
    schedule = schedulers.Cosine(10, 5, warmup_epochs=2, warmup_start_factor=0.1)
    rising = rates(schedule, 10)
    assert rising[0] == pytest.approx(0.1 + 0.9 / 10)
    assert rising[-1] == pytest.approx(1.0)
    assert [later - sooner for sooner, later in itertools.pairwise(rising)] == pytest.approx([0.09] * 9)
    assert schedule(10) == pytest.approx(1.0)
    assert schedule(49) < 0.01


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_horizon_has_the_rates_of_a_training_that_ends_there(interval: Literal["step", "epoch"]) -> None:
    make = functools.partial(schedulers.OneCycle, steps_per_epoch=STEPS, interval=interval, warmup_epochs=1)
    ours = rates(make(10, horizon=[3, 10]), 70)
    assert ours[: 3 * STEPS] == rates(make(3), 3 * STEPS)
    assert ours[3 * STEPS :] == rates(make(10), 70)[3 * STEPS :]
    assert rates(make(10, horizon=[10]), 70) == rates(make(10), 70)


@pytest.mark.parametrize("horizon", [[3, 9], [3, 3, 10], [0, 10], [10, 3]])
def test_wrong_horizon_is_an_error(horizon: list[int]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"scheduler.horizon={horizon}: must be rising epochs that end")):
        schedulers.Constant(10, STEPS, horizon=horizon)


def test_horizon_within_the_warmup_is_an_error() -> None:
    message = "scheduler.horizon=[5, 15]: must begin after scheduler.warmup_epochs=5"
    with pytest.raises(ValueError, match=re.escape(message)):
        schedulers.Constant(15, STEPS, warmup_epochs=5, horizon=[5, 15])


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_rmsprop_tf_equals_timm(decay: float) -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    first = optimizers.rmsprop_tf(
        ours, 0.05, alpha=0.9, momentum=0.9, eps=1e-3, weight_decay=decay, exclude_norm_bias=False
    )
    second = RMSpropTF(theirs.parameters(), lr=0.05, alpha=0.9, momentum=0.9, eps=1e-3, weight_decay=decay)
    for step in range(20):
        x = torch.randn(8, 5)
        for group in (*first.param_groups, *second.param_groups):
            group["lr"] = 0.05 * 0.9**step
        for network, optimizer in ((ours, first), (theirs, second)):
            optimizer.zero_grad()
            network(x).square().mean().backward()
            optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight, rtol=1e-5)
    assert torch.allclose(ours.bias, theirs.bias, rtol=1e-5)


def test_rmsprop_tf_calls_do_not_grow_with_the_number_of_tensors() -> None:
    counts = []
    for layers in (1, 20):
        network = nn.Sequential(*(nn.Linear(3, 3) for _ in range(layers)))
        optimizer = optimizers.rmsprop_tf(network, 0.05, 0.9, 0.9, 1e-3, 1e-5, exclude_norm_bias=False)
        for _ in range(2):  # the first step creates the state
            network(torch.ones(1, 3)).sum().backward()
            with OperationCounter() as counter:
                optimizer.step()
        counts.append(sum(counter.counts.values()))
    assert counts[0] == counts[1]


def test_exclude_norm_bias_sets_no_weight_decay() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    decayed, rest = optimizers.sgd(network, 0.1, 0.9, 5e-4, exclude_norm_bias=True).param_groups
    assert decayed["weight_decay"] == 5e-4
    assert rest["weight_decay"] == 0
    assert {parameter.ndim for parameter in decayed["params"]} == {4, 2}
    assert len(rest["params"]) == 4
    assert len(optimizers.sgd(network, 0.1, 0.9, 5e-4).param_groups) == 1
