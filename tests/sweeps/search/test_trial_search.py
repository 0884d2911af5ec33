"""Test which trial starts or goes on, and that a killed search loses and repeats nothing."""

import math
import random
import shutil
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from ghostexp.report.finalists import pareto_set
from ghostexp.report.racing import contenders, next_run, surviving, winner
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.trials import FOLDER, TrialName, parse_name
from ghostexp.sweeps.search.halving import best_waiting
from tests.sweeps.search.fake_trials import FakeSearch, accuracy

SEARCH = Path(FOLDER) / "search.log"


@pytest.mark.parametrize(
    "name", [TrialName("", 7, 0), TrialName("ratio-2_lr-0.1", 12345, 3), TrialName("a", 1, 2, True)]
)
def test_names_are_read_as_written(name: TrialName) -> None:
    assert parse_name(str(name)) == name


def test_best_third_of_a_rung_goes_on() -> None:
    figures = {0: 1.0, 1: 3.0, 2: 2.0, 3: -math.inf, 4: 2.5, 5: 3.0}
    assert best_waiting(figures, [], 3, is_closed=False) == 1
    assert best_waiting(figures, [1], 3, is_closed=False) == 5
    assert best_waiting(figures, [1, 5], 3, is_closed=False) is None
    assert best_waiting({0: 1.0, 1: 2.0}, [], 3, is_closed=False) is None
    assert best_waiting({0: 1.0, 1: 2.0}, [], 3, is_closed=True) == 1
    assert best_waiting({0: -math.inf}, [], 3, is_closed=True) is None


def test_further_seeds_go_to_those_that_may_still_win() -> None:
    assert contenders({0: 1.0, 1: 3.0, 2: 2.0, 3: -math.inf}, 3) == [1, 2, 0]
    first = {1: {0: 3.0}, 2: {0: 2.0}}
    assert next_run(first, [(1, 0), (2, 0)], [0, 1]) == (1, 1)
    assert next_run(first, [(1, 0), (2, 0), (1, 1)], [0, 1]) == (2, 1)
    clear = {1: {0: 3.0, 1: 3.1, 2: 2.9}, 2: {0: 2.0, 1: 2.2, 2: 1.9}, 3: {0: 2.9, 1: 3.3, 2: 2.6}, 4: {0: -math.inf}}
    assert surviving(clear) == [1, 3]
    assert next_run(clear, [(number, seed) for number in clear for seed in range(3)], [0, 1, 2, 3]) == (1, 3)
    assert winner(clear, [0, 1, 2]) == 1
    assert winner(clear, [0, 1, 2, 3]) is None


def test_halving_trains_few_to_the_end(tmp_path: Path) -> None:
    search = FakeSearch(tmp_path)
    steps = search.run()
    assert Counter(step.rpartition(" ")[2] for step in steps) == {"1": 9, "3": 3, "9": 1}
    assert search.search.finalists == [max(search.trials(), key=lambda number: accuracy(search.trials()[number], 0, 9))]


def test_promotion_does_not_wait_for_the_rung(tmp_path: Path) -> None:
    steps = FakeSearch(tmp_path).run()
    assert steps.index(next(step for step in steps if step.endswith(" 3"))) == 3


def test_minimised_metric_promotes_the_lowest(tmp_path: Path) -> None:
    search = FakeSearch(tmp_path, lambda *case: -accuracy(*case), direction="minimize")
    search.run()
    assert search.search.finalists == [max(search.trials(), key=lambda number: accuracy(search.trials()[number], 0, 9))]


def test_diverged_trial_does_not_go_on_and_is_not_repeated(tmp_path: Path) -> None:
    search = FakeSearch(tmp_path, trials=3)
    step = search.start()
    assert step is not None
    RunDirectory(tmp_path / str(step.name)).write_failure(FloatingPointError(), "the loss is not finite")
    search.end(step)
    assert search.search.failed == set()
    assert Counter(text.split("_")[0] for text in FakeSearch(tmp_path, trials=3).run())["trial-0000"] == 0


def test_next_best_goes_on_in_place_of_one_that_diverges_later(tmp_path: Path) -> None:
    search = FakeSearch(tmp_path, trials=3, rungs=[3])
    for _ in range(3):
        step = search.start()
        assert step is not None
        search.train(step)
        search.end(step)
    promoted = search.start()
    assert promoted is not None
    RunDirectory(tmp_path / str(promoted.name)).write_failure(FloatingPointError(), "the loss is not finite")
    search.end(promoted)
    (last,) = search.run()
    assert last.endswith(" 9")
    assert not last.startswith(str(promoted.name))
    assert search.search.finalists


def test_run_that_ends_early_counts_at_later_rungs(tmp_path: Path) -> None:
    search = FakeSearch(tmp_path, trials=3)
    step = search.start()
    assert step is not None
    search.train(step)
    RunDirectory(tmp_path / str(step.name)).write_result({"metrics": {"test": {"test/acc1": 50.0}}})  # patience
    search.end(step)
    search.run()
    assert step.name.number in {trial.number for trial in search.search.observed() if trial.state == "done"}


def test_failed_trial_is_tried_again_by_the_next_command(tmp_path: Path) -> None:
    search = FakeSearch(tmp_path, trials=3)
    step = search.start()
    assert step is not None
    RunDirectory(tmp_path / str(step.name)).write_failure(OSError(), "disk full")
    search.end(step)
    assert not any(text.startswith("trial-0000") for text in search.run())
    (tmp_path / str(step.name) / "failure.json").unlink()  # as the scheduler does before a start
    assert FakeSearch(tmp_path, trials=3).run()[0] == "trial-0000_seed-0 1"


def test_refused_trial_does_not_end_the_search(tmp_path: Path) -> None:
    search = FakeSearch(tmp_path, trials=3).search
    step = search.next(lambda _: True)
    assert step is not None
    search.started(step)
    search.refused(step.name)
    following = search.next(lambda _: True)
    assert following is not None
    assert (step.name.number, following.name.number) == (0, 1)


def test_missing_metric_is_a_failure(tmp_path: Path) -> None:
    search = FakeSearch(tmp_path, metric="val/f1")
    step = search.start()
    assert step is not None
    search.train(step)
    message = "search.metric=val/f1: must be a column of metrics.csv, val/acc1"
    assert (search.search.ended(step.name).failure, search.search.lacks_metric) == (message, True)


def test_test_without_validation_is_no_failure(tmp_path: Path) -> None:
    search = FakeSearch(tmp_path, rungs=[], trials=1, test_seeds=[5])
    search.run(1)
    step = search.start()
    assert step is not None
    assert step.name.is_test
    search.train(step)
    RunDirectory(tmp_path / str(step.name)).metrics.write_text("step,epoch,train/loss\n9,9,0.1\n")
    assert (search.search.ended(step.name).failure, search.search.lacks_metric) == (None, False)


def test_run_that_is_killed_within_an_epoch_does_not_lack_the_metric(tmp_path: Path) -> None:
    search = FakeSearch(tmp_path)
    step = search.start()
    assert step is not None
    metrics = RunDirectory(tmp_path / str(step.name)).metrics
    metrics.write_text("step,epoch,train/loss_step,lr\n50,1,2.3,0.1\n")
    ended = search.search.ended(step.name)
    assert (ended.failure, ended.epochs, search.search.lacks_metric) == ("stopped before its end", 0, False)


def test_metric_that_is_not_finite_is_a_failure_of_its_trial_alone(tmp_path: Path) -> None:
    search = FakeSearch(tmp_path, lambda *_: math.nan)
    step = search.start()
    assert step is not None
    search.train(step)
    assert "has no finite value at epoch 1" in str(search.search.ended(step.name).failure)
    assert not search.search.lacks_metric


def test_seeds_and_tests_follow_the_trials(tmp_path: Path) -> None:
    steps = FakeSearch(tmp_path, seeds=[0, 1, 2], test_seeds=[10, 11], contenders=2, rungs=[]).run()
    assert [step for step in steps if "seed-0" not in step][-2:] == [
        *(f"test-{best_number(steps)}_seed-10 9", f"test-{best_number(steps)}_seed-11 9")
    ]
    assert Counter(step.split("_")[1] for step in steps) == {
        **{"seed-0 9": 9, "seed-1 9": 2, "seed-2 9": 2},
        **{"seed-10 9": 1, "seed-11 9": 1},
    }


def best_number(steps: list[str]) -> str:
    """Return the number of the tested trial."""
    return steps[-1].split("_")[0].removeprefix("test-")


def test_pareto_set_has_those_that_no_other_beats_in_both() -> None:
    figures = {0: 90.0, 1: 95.0, 2: 94.0, 3: 95.0, 4: -math.inf, 5: 80.0}
    costs = {0: 10.0, 1: 30.0, 2: 40.0, 3: 20.0, 4: 5.0}
    assert pareto_set(figures, costs) == [0, 3]


@pytest.mark.parametrize("kind", ["tpe", "random"])
def test_cost_as_second_objective_ends_with_the_pareto_set(kind: str, tmp_path: Path) -> None:
    search = FakeSearch(tmp_path, rungs=[], cost="macs", sampler=kind, seeds=[0, 1], test_seeds=[5])
    steps = search.run()
    # Up to lr = 0.1, where the figure is best, more of it costs more.
    below = {number for number, values in search.trials().items() if float(values["lr"]) <= 0.1}
    assert below
    assert below <= {*search.search.finalists}
    tested = [step for step in steps if step.startswith("test-")]
    assert len(tested) == len(search.search.finalists)
    assert Counter(step.split("_")[1] for step in steps)["seed-1 9"] == len(search.search.finalists)
    search.journal.update(search.search.observed(), is_over=True)
    assert Counter(state for state, *_ in states(tmp_path / SEARCH)) == {"COMPLETE": 9}


@pytest.mark.parametrize("budget", [27, 45, 90])
def test_budget_of_epochs_leaves_enough_for_the_seeds_of_the_pareto_set(budget: int, tmp_path: Path) -> None:
    search = FakeSearch(tmp_path, trials=None, rungs=[], seeds=[0, 1], cost="macs")
    assert search.spend(budget) <= budget
    assert search.search.finalists


def test_test_of_an_earlier_winner_is_no_run_of_its_trial(tmp_path: Path) -> None:
    FakeSearch(tmp_path, rungs=[], test_seeds=[1, 2]).run()
    again = FakeSearch(tmp_path, rungs=[], seeds=[0, 1, 2], test_seeds=[7], contenders=2)
    again.run()
    (best,) = again.search.finalists
    assert again.search.runs.keys() >= {TrialName("", best, 1), TrialName("", best, 2), TrialName("", best, 7, True)}


def test_cost_of_a_trial_is_not_that_of_its_test(tmp_path: Path) -> None:
    search = FakeSearch(tmp_path, rungs=[], cost="macs", test_seeds=[5])
    search.run()
    before = search.search.finalists
    for run in tmp_path.glob("test-*"):
        RunDirectory(run).write_result({"metrics": {"test": {"test/acc1": 50.0}}, "macs": 10**9})
    assert FakeSearch(tmp_path, rungs=[], cost="macs", test_seeds=[5]).search.finalists == before


def test_budget_of_epochs_leaves_enough_for_one_trial_to_the_end(tmp_path: Path) -> None:
    search, spent = FakeSearch(tmp_path, trials=None, factor=100), 0
    while step := search.start(budget=12 - spent):
        spent += step.epochs
        search.train(step)
        search.end(step)
    assert spent == 12
    assert search.search.finalists


@pytest.mark.parametrize(
    ("rungs", "epochs", "budget"), [([5, 15], 45, 100), ([1, 3], 9, 15), ([1, 3], 9, 20), ([5, 15], 45, 250)]
)
def test_promotions_leave_enough_for_one_trial_to_the_end(
    rungs: list[int], epochs: int, budget: int, tmp_path: Path
) -> None:
    search = FakeSearch(tmp_path, trials=None, rungs=rungs, epochs=epochs)
    assert search.spend(budget) <= budget
    assert search.search.finalists


@pytest.mark.parametrize("budget", [63, 90, 180])
def test_budget_of_epochs_leaves_enough_for_further_seeds(budget: int, tmp_path: Path) -> None:
    changes = {"trials": None, "rungs": [], "seeds": [0, 1, 2], "test_seeds": [9], "contenders": 3}
    search, spent = FakeSearch(tmp_path, **changes), 0
    while step := search.start(budget=budget - spent):
        spent += 0 if step.name.is_test else step.epochs
        search.train(step)
        search.end(step)
    assert spent <= budget
    assert len(search.search.finalists) == 1
    assert sum(name.is_test for name in search.search.runs) == 1


def test_budget_keeps_no_more_than_the_further_seeds_that_there_can_be(tmp_path: Path) -> None:
    search, spent = FakeSearch(tmp_path, trials=2, rungs=[], seeds=[0, 1, 2], contenders=3), 0
    for budget in (54, 54):  # repeated, it trains nothing more
        while step := search.start(budget=budget - spent):
            spent += step.epochs
            search.train(step)
            search.end(step)
        assert (spent, len(search.search.runs)) == (54, 6)
    more = FakeSearch(tmp_path, trials=None, rungs=[], seeds=[0, 1, 2], contenders=2)
    assert more.start(budget=9) is not None  # a higher budget buys a trial: the further seeds have been trained


def test_further_seeds_run_side_by_side_and_the_next_ones_after_them(tmp_path: Path) -> None:
    search = FakeSearch(tmp_path, rungs=[], seeds=[0, 1, 2], test_seeds=[9], contenders=3)
    search.run(9)
    started = [search.start() for _ in range(4)]
    assert [step and step.name.seed for step in started] == [1, 1, 1, None]
    for step in started[:2]:
        assert step is not None
        search.train(step)
        search.end(step)
    assert search.start() is None  # the third may change who goes on
    assert started[2] is not None
    search.train(started[2])
    search.end(started[2])
    following = search.start()
    assert following is not None
    assert following.name.seed == 2


def test_failed_seed_of_the_best_leaves_the_search_open(tmp_path: Path) -> None:
    search = FakeSearch(tmp_path, rungs=[], seeds=[0, 1], contenders=2, test_seeds=[7])
    search.run(9)
    best = search.start()
    assert best is not None
    RunDirectory(tmp_path / str(best.name)).write_failure(OSError("no space"), "no space")
    search.end(best)
    while step := search.start():
        assert not step.name.is_test
        search.train(step)
        search.end(step)
    assert search.search.finalists == []
    RunDirectory(tmp_path / str(best.name)).failure.unlink()
    again = FakeSearch(tmp_path, rungs=[], seeds=[0, 1], contenders=2, test_seeds=[7])
    assert again.run() == [f"{best.name} 9", f"test-{best.name.number:04}_seed-7 9"]


@pytest.mark.parametrize("kind", ["random", "qmc", "tpe", "cmaes"])
def test_killed_search_loses_and_repeats_nothing(kind: str, tmp_path: Path) -> None:
    changes = {"sampler": kind, "seeds": [0, 1], "contenders": 2, "test_seeds": [9]}
    undisturbed = FakeSearch(tmp_path / "undisturbed", **changes)
    expected, chance, done = undisturbed.run(), random.Random(1), []
    while True:
        search = FakeSearch(tmp_path / "killed", **changes)
        done += search.run(chance.randrange(3))
        step = search.start()
        if step is None:
            break
        is_within = chance.random() < 0.5  # the training, or before the search has read the result
        search.train(step, is_killed=is_within)
        if not is_within:
            done.append(f"{step.name} {step.until or 9}")
    assert len({*done}) == len(done)
    assert search.trials().keys() == undisturbed.trials().keys()
    if kind in ("random", "qmc"):
        assert {*done} == {*expected}
        assert search.trials() == undisturbed.trials()


@pytest.mark.parametrize("damage", ["lost", "cut", "foreign", "another trial", "other values"])
def test_journal_is_rebuilt_from_the_run_directories(damage: str, tmp_path: Path) -> None:
    FakeSearch(tmp_path).run(5)
    path = tmp_path / SEARCH
    whole = states(path)
    if damage == "lost":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "other values":
        FakeSearch(tmp_path / "other", seed=5).run(5)
        shutil.copy(tmp_path / "other" / SEARCH, path)
        assert states(path) != whole
    elif damage == "foreign":
        path.write_text("no journal\n" * 3)
    else:
        optuna.load_study(study_name="search", storage=storage(path)).ask()
    FakeSearch(tmp_path)
    assert states(path) == whole


def test_journal_has_the_states_of_the_trials_in_the_end(tmp_path: Path) -> None:
    search = FakeSearch(tmp_path)
    search.run()
    search.journal.update(search.search.observed(), is_over=True)
    assert Counter(state for state, *_ in states(tmp_path / SEARCH)) == {"PRUNED": 8, "COMPLETE": 1}
    more = FakeSearch(tmp_path, trials=12)  # some go on again
    more.run()
    more.journal.update(more.search.observed(), is_over=True)
    assert sum(Counter(state for state, *_ in states(tmp_path / SEARCH)).values()) == 12


def test_removed_trial_is_run_again_with_its_values(tmp_path: Path) -> None:
    first = FakeSearch(tmp_path)
    first.run()
    shutil.rmtree(tmp_path / "trial-0001_seed-0")
    search = FakeSearch(tmp_path)
    assert states(tmp_path / SEARCH)[1] == ("FAIL", {}, {})
    assert "trial-0001_seed-0 1" in search.run()
    assert search.trials() == first.trials()


def storage(path: Path) -> optuna.storages.JournalStorage:
    """Open a journal as Optuna's own tools do."""
    return optuna.storages.JournalStorage(JournalFileBackend(str(path)))


def states(path: Path) -> list[tuple[str, dict, dict]]:
    """Return state, values and figures of each trial in a journal."""
    study = optuna.load_study(study_name="search", storage=storage(path))
    return [(trial.state.name, trial.params, trial.intermediate_values) for trial in study.trials]
