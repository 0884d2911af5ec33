"""Wrong searches end with one line."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli import command
from tests.sweeps.search.small_search import DATA, SEARCH, SPACE, runs


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["-m", SPACE[0]], f"{SPACE[0]}: must be single values, such as 1,2,3 or range(0,5), without a search; to sea"),
        (["search=tpe", "optimizer.lr=0.1"], "search=tpe: is a sweep; add -m and what to search, KEY=interval(A,B)"),
        (["-m", "search=tpe", "seed=0,1"], "search=tpe: there is nothing to search; add ranges, such as KEY=interval"),
        (["-m", "search=tpe,random", SPACE[0]], "search=tpe,random: only one search at a time"),
        (["-m", "search=tpe", SPACE[0]], "datamodule.validate_on=test: a search would tune on the test set; use"),
        (["-m", *DATA, SPACE[0], "search=grid"], f"{SPACE[0]}: search=grid needs choice(...) or range(...)"),
        (["-m", *DATA, "seed=interval(0,3)", SPACE[0], "search=tpe"], "seed=interval(0,3): cannot be searched"),
        (["-m", *DATA, SPACE[0], "search=tpe", "search.rungs=[2,1]"], "search.rungs=[2, 1]: must be rising epochs up"),
        (
            ["-m", *DATA, SPACE[0], "search=tpe", "search.trials=null"],
            "search.trials=null: set search.trials, search.e",
        ),
        (["-m", *DATA, SPACE[0], "search=tpe", "search.trial=3"], "search.trial=3: search has no trial; there is"),
        (["-m", *DATA, SPACE[0], "search=tpe", "search.trials=0"], "search.trials=0: must be an integer >= 1"),
        (["-m", *DATA, SPACE[0], "search=tpe", "search.test_seeds=[0]"], "search.test_seeds=[0]: must be other seeds"),
        (["-m", *DATA, SPACE[0], "search=tpe", "search.cost=macs", "search.rungs=[1]"], "search.cost=macs: needs s"),
        (["-m", *DATA, SPACE[0], "search=cmaes", "search.cost=macs"], "search.cost=macs: cannot be used with sear"),
        (
            ["-m", *DATA, "optimizer.lr=shuffle(choice(0.1,0.2))", "search=grid"],
            "optimizer.lr=shuffle(choice(0.1,0.2)): must not be shuffled",
        ),
        (["-m", *DATA, SPACE[0], "++seed=0,1", "search=tpe"], "++seed=0,1: must be typed as seed=..."),
        (["-m", *DATA, SPACE[0], "search=tpe", "task=profile"], "search=tpe: needs task=fit, got task=profile"),
        (
            ["-m", *DATA, SPACE[0], "search=tpe", "search.rungs=[1]", "trainer.check_val_every_n_epoch=2"],
            "search.rungs=[1]: there is no validation after epoch 1; trainer.check_val_every_n_epoch=2",
        ),
        (["-m", *DATA, "model.ratio=choice(1,2)", "search=tpe"], "model=resnet20: has no ratio, which model.ratio=1"),
        (["-m", *DATA, "optimizer.momentum=choice(0.9,2)", "search=tpe"], "optimizer.momentum=2: must be a number in"),
        (["-m", *DATA, "scheduler.warmup_epochs=choice(0,9)", "search=tpe"], "scheduler.warmup_epochs=9 seed=0: sched"),
        (["-m", *DATA, SPACE[0], "search.trials=3"], "search.trials=3: needs a search; add search=tpe"),
        ([*DATA, SPACE[0]], f"{SPACE[0]}: needs -m (a sweep); to search an interval, add search=tpe too"),
        (["-m", *DATA, SPACE[0], "search=tpe", "~search.trials"], "~search.trials: is required"),
        (["-m", *DATA, SPACE[0], "search=tpe", "search.trials=2,3"], "search.trials=2,3: must have one value"),
        (["-m", *DATA, SPACE[0], "search=tpe", "n_jobs=1,2"], "n_jobs=1,2: must have one value in a search"),
        (["-m", *DATA, "logger=choice(csv,none)", "search=tpe"], "logger=choice(csv,none): cannot be searched"),
        (["-m", *DATA, "datamodule.root=choice(a,b)", "search=tpe"], "datamodule.root=choice(a,b): cannot be searched"),
        (
            ["-m", *DATA, "datamodule.split_seed=range(0,3)", "search=tpe"],
            "datamodule.split_seed=range(0,3): cannot be",
        ),
        (
            ["-m", *DATA, "optimizer.lr=interval(a,b)", "search=tpe"],
            "optimizer.lr=interval(a,b): must be an interval of",
        ),
        (["-m", *DATA, "optimizer.lr=choice()", "search=tpe"], "optimizer.lr=choice(): must be a choice of values, ch"),
        (["-m", *DATA, SPACE[0], "search=tpe", "search.epochs=1"], "search.epochs=1: must be at least 2, one trial of"),
        (["-m", *DATA, SPACE[0], "search=tpe", "search.horizon=rung"], "search.horizon=rung: needs search.rungs"),
        (
            ["-m", *DATA, SPACE[0], "search=tpe", "search.contenders=2"],
            "search.contenders=2: needs further seeds, such",
        ),
        (
            ["-m", *DATA, SPACE[0], "search=tpe", "search.direction=minimize"],
            "search.direction=minimize: needs search.m",
        ),
        (["-m", *DATA, SPACE[0], "search=tpe", "search.metric=val/loss"], "search.metric=val/loss: needs search.direc"),
        (
            ["-m", *DATA, SPACE[0], "search=tpe", "search.metric=train/loss"],
            "search.metric=train/loss: must be a metric",
        ),
        (
            ["-m", *DATA, SPACE[0], "search=tpe", "search.test_seeds=[a]"],
            "search.test_seeds=['a']: must be different in",
        ),
        (
            ["-m", *DATA, SPACE[0], "search=tpe", "search.rungs=[1]", "search.horizon=rung", "scheduler.horizon=[1,2]"],
            "scheduler.horizon=[1,2]: cannot be set with search.horizon=rung, which sets it",
        ),
        (
            ["study=tuned_ratio_ablation", "~search"],
            "study=tuned_ratio_ablation: needs a search; add search=tpe, or lea",
        ),
        (
            ["study=tuned_ratio_ablation", "search=null"],
            "search=null: must be one of cmaes, gp, grid, qmc, random, tpe",
        ),
    ],
)
def test_wrong_search_is_one_line(arguments: Sequence[str], wanted: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(*arguments) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line]
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"error: {wanted}"), lines[0]


def test_unknown_metric_ends_the_search_with_its_first_trial(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("-m", *DATA, SPACE[0], "search=random", "search.metric=val/nothing", "n_jobs=1", "name=tuned") == 1
    message = "search.metric=val/nothing: must be a column of metrics.csv, val/loss, val/acc1, val/acc5"
    assert f"error: trial-0000_seed-0: {message}; see" in capfd.readouterr().err
    assert [*runs(tmp_path / "outputs" / "tuned")] == ["trial-0000_seed-0"]


def test_search_without_optuna_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    assert command(*SEARCH) == 1
    assert capfd.readouterr().err == 'error: search=random: needs Optuna: pip install "ghostexp[search]"\n'
