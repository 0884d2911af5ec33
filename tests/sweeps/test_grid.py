"""Test which jobs a grid and the overrides of a command make."""

from ghostexp.sweeps.grid import combinations


def names(typed: dict[str, list[str]], swept: set[str]) -> list[str]:
    """Return job names of a study of d = 1, 3 over two seeds, with ratio 1 as its baseline."""
    params = {"model.dw_size": ["1", "3"], "seed": ["0", "1"]}
    baseline = {"model.ratio": ["1"], "seed": ["0", "1"]}
    return [name for name, _, _ in combinations(params, baseline, typed, swept)]


def test_combinations_are_grid_and_baseline() -> None:
    assert names({}, set()) == [
        *("dw_size-1_seed-0", "dw_size-1_seed-1", "dw_size-3_seed-0", "dw_size-3_seed-1"),
        *("ratio-1_seed-0", "ratio-1_seed-1"),
    ]


def test_typed_values_narrow_grid_and_baseline() -> None:
    assert names({"seed": ["1"]}, set()) == ["dw_size-1_seed-1", "dw_size-3_seed-1", "ratio-1_seed-1"]
    narrowed = names({"model.dw_size": ["3"], "seed": ["0"]}, set())
    assert narrowed == ["dw_size-3_seed-0", "ratio-1_seed-0"]
    assert names({"trainer.max_epochs": ["2"], "seed": ["0"]}, set())[-1] == "ratio-1_seed-0"
    assert names({"optimizer.lr": ["1", "2"], "seed": ["0"]}, {"optimizer.lr"})[-1] == "ratio-1_seed-0_lr-2"


def test_baseline_keeps_its_own_values() -> None:
    params, baseline = {"model.dw_size": ["1"], "seed": ["0"]}, {"model.ratio": ["1"], "seed": ["0"]}
    jobs = list(combinations(params, baseline, {"model.ratio": ["4"], "model.dw_size": ["1"]}, set()))
    assert jobs[0][1] == ["model.dw_size=1", "seed=0", "model.ratio=4"]
    assert jobs[1][1] == ["model.ratio=1", "seed=0"]


def test_typed_values_narrow_baseline_to_its_own() -> None:
    """As in a study of ratios with thinner ordinary networks, whose ratio is 1."""
    params = {"model.ratio": ["1", "2", "3"], "scheduler": ["constant", "cosine"], "seed": ["0"]}
    baseline = {"model.ratio": ["1"], "model.width": ["0.7"], "scheduler": ["constant", "cosine"], "seed": ["0"]}
    typed = {"model.ratio": ["1", "2"], "scheduler": ["cosine"], "seed": ["5"]}
    assert [name for name, _, _ in combinations(params, baseline, typed, set())] == [
        *("ratio-1_scheduler-cosine_seed-5", "ratio-2_scheduler-cosine_seed-5"),
        "ratio-1_width-0.7_scheduler-cosine_seed-5",
    ]
    typed = {"model.ratio": ["2"], "scheduler": ["constant"]}
    assert [name for name, _, _ in combinations(params, baseline, typed, set())] == [
        *("ratio-2_scheduler-constant_seed-0", "ratio-1_width-0.7_scheduler-constant_seed-0"),
    ]


def test_typed_value_that_the_baseline_alone_has_leaves_the_baseline() -> None:
    params = {"scheduler": ["constant", "cosine"], "seed": ["0"]}
    baseline = {"scheduler": ["onecycle"], "optimizer.lr": ["0.4"], "seed": ["0"]}
    for typed, wanted in (
        (["onecycle"], ["scheduler-onecycle_lr-0.4_seed-0"]),
        (["onecycle", "cosine"], ["scheduler-cosine_seed-0", "scheduler-onecycle_lr-0.4_seed-0"]),
        (["cosine"], ["scheduler-cosine_seed-0", "scheduler-onecycle_lr-0.4_seed-0"]),
    ):
        assert [name for name, _, _ in combinations(params, baseline, {"scheduler": typed}, set())] == wanted
