"""Test the samplers: values in the space, none twice, and those of random and qmc by a trial's number alone."""

import math
from dataclasses import replace

import pytest

from ghostexp.sweeps.search.sampler import Observed, Sampler
from tests.sweeps.search.fake_trials import RECORD, SPACE, accuracy, dimensions

FULL = (*SPACE, "n=int(interval(1,9))", "m=range(0.1,1,0.1)")


def sample(kind: str, count: int, *space: str, seed: int = 0) -> list[Observed]:
    """Propose trials, each of which has ended in one of the ways before the next."""
    sampler = Sampler(replace(RECORD, sampler=kind, seed=seed), "", dimensions(*space), startup=4)
    trials: list[Observed] = []
    for number in range(count):
        proposed = sampler.propose(number, trials)
        if proposed is None:
            break
        values, attributes = proposed
        state = ("stopped", "done", "done", "diverged", "running", "failed")[number % 6]
        figures = {} if state in ("diverged", "failed") else {1: float(number)}
        trials.append(Observed(number, values, state, figures, attributes))
    return trials


@pytest.mark.parametrize("kind", ["tpe", "gp", "cmaes", "qmc", "random"])
def test_sampler_proposes_different_values_inside_the_space(kind: str) -> None:
    trials = sample(kind, 7 if kind == "gp" else 14, *FULL)
    assert len({tuple(trial.values.items()) for trial in trials}) == len(trials)
    for trial in trials:
        assert 0.01 <= float(trial.values["lr"]) <= 1
        assert trial.values["wd"] in ("0.1", "0.2")
        assert 1 <= int(trial.values["n"]) <= 9
        assert round(float(trial.values["m"]) * 10, 6) in range(1, 10)
    assert sample(kind, len(trials), *FULL) == trials
    assert sample(kind, 1, *FULL, seed=1)[0].values != trials[0].values


@pytest.mark.parametrize("kind", ["qmc", "random"])
def test_values_depend_on_the_number_alone(kind: str) -> None:
    trials = sample(kind, 6, *SPACE)
    sampler = Sampler(replace(RECORD, sampler=kind), "", dimensions(*SPACE), startup=4)
    for number in (5, 2, 0):
        proposed = sampler.propose(number, [])
        assert proposed is not None
        assert proposed[0] == trials[number].values


def test_groups_have_values_of_their_own() -> None:
    first, second = (
        Sampler(replace(RECORD, sampler="random"), group, dimensions(*SPACE), 1).propose(0, []) for group in "ab"
    )
    assert first != second


@pytest.mark.parametrize("kind", ["gp", "cmaes"])
def test_sampler_leaves_the_region_of_diverged_trials(kind: str) -> None:
    """The figure rises with the rate up to 1, where trials diverge."""
    space = ("lr=tag(log,interval(0.01,10))", "wd=tag(log,interval(0.01,10))")
    sampler = Sampler(replace(RECORD, sampler=kind), "", dimensions(*space), startup=5)
    trials: list[Observed] = []
    for number in range(16):
        proposed = sampler.propose(number, trials)
        assert proposed is not None
        rate = float(proposed[0]["lr"])
        figures = {} if rate > 1 else {9: 90 + 5 * math.log10(rate)}
        trials.append(Observed(number, proposed[0], "done" if figures else "diverged", figures, proposed[1]))
    assert sum(trial.state == "diverged" for trial in trials[8:]) <= 4


def test_grid_has_every_combination_once() -> None:
    trials = sample("grid", 100, "a=choice(x,y)", "b=range(1,4)")
    assert len({tuple(trial.values.items()) for trial in trials}) == len(trials) == 6


@pytest.mark.parametrize("last", ["b=range(1,4)", "b=int(interval(1,3))"])
def test_finite_space_is_sampled_once(last: str) -> None:
    assert len(sample("random", 100, "a=choice(x,y)", last)) == 6
    assert len(sample("tpe", 100, "a=choice(x,y)", last)) == 6


def test_tpe_learns_from_the_trials() -> None:
    sampler = Sampler(replace(RECORD, sampler="tpe"), "", dimensions(*SPACE), startup=4)
    trials: list[Observed] = []
    for number in range(40):
        proposed = sampler.propose(number, trials)
        assert proposed is not None
        trials.append(Observed(number, proposed[0], "stopped", {1: accuracy(proposed[0], 0, 1)}))
    figures = [trial.figures[1] for trial in trials]
    assert sum(figures[20:]) / 20 > sum(figures[:10]) / 10 + 2
