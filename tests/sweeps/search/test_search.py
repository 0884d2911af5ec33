"""Test searches from the command line: trials are ordinary runs, and one that goes on equals one never interrupted."""

import contextlib
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.sweep_record import read_sweep
from ghostexp.runs.trials import parse_name
from ghostexp.sweeps import submitit_launcher
from ghostexp.sweeps.search import run
from ghostexp.sweeps.search.specification import read_spec
from tests.cli import TINY, TINY_DETECTOR, command, in_directory, processes_in, start
from tests.sweeps.search.small_search import DATA, SEARCH, SPACE, runs

TESTED = (*SEARCH, "search.test_seeds=[7]")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a search, which no test may change."""
    folder = tmp_path_factory.mktemp("searched")
    assert command(*TESTED, f"output_dir={folder}") == 0
    return folder / "tuned"


def epochs(run: RunDirectory) -> int:
    """Return the epochs in metrics.csv."""
    return len(run.metrics.read_text().splitlines()) - 1


def trained_epochs(folder: Path) -> int:
    """Return the epochs of all runs of a search."""
    return sum(epochs(run) for run in runs(folder).values() if run.metrics.is_file())


def test_search_is_a_sweep_of_ordinary_runs(searched: Path) -> None:
    found = runs(searched)
    tests = [name for name in found if name.startswith("test-")]
    assert len(found) == 5
    assert sorted(epochs(run) for run in found.values()) == [1, 1, 2, 2, 2]
    assert tests == [name for name, run in found.items() if run.read_config()["datamodule"]["validate_on"] == "test"]
    assert read_sweep(searched).jobs.keys() == found.keys()
    assert "pause_after" not in (searched / "trial-0000_seed-0" / "config.yaml").read_text()
    assert len({run.read_config()["optimizer"]["lr"] for run in found.values()}) == 4
    assert (searched / "search" / "search.log").is_file()
    assert processes_in(searched) == []


def test_promoted_trial_equals_an_uninterrupted_run(searched: Path, tmp_path: Path) -> None:
    promoted = next(run for name, run in runs(searched).items() if name.startswith("trial") and run.result.exists())
    overrides = yaml.safe_load((promoted.path / ".hydra" / "overrides.yaml").read_text())
    assert "Restored all states" in promoted.log.read_text()
    assert command(*overrides, in_directory(tmp_path / "whole")) == 0
    whole = RunDirectory(tmp_path / "whole")
    assert whole.metrics.read_bytes() == promoted.metrics.read_bytes()
    ours, theirs = (torch.load(run.last)["state_dict"] for run in (promoted, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_repeated_search_trains_nothing_and_a_stopped_trial_goes_on_by_hand(
    searched: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(searched, tmp_path / "tuned"))
    before = {name: run.metrics.stat().st_mtime_ns for name, run in runs(copy).items()}
    assert command(*TESTED, f"output_dir={tmp_path}") == 0
    out = capfd.readouterr().out
    assert "4 trials, 2 trained to the end, 2 stopped at a rung; best: optimizer.lr=" in out
    assert "0 runs in" in out
    assert {name: run.metrics.stat().st_mtime_ns for name, run in runs(copy).items()} == before
    stopped = next(run for run in runs(copy).values() if not run.result.exists())
    assert command(f"resume={stopped.path}") == 0
    assert (stopped.result.exists(), epochs(stopped)) == (True, 2)
    assert command(*TESTED, f"output_dir={tmp_path}") == 0
    assert "4 trials, 3 trained to the end, 1 stopped at a rung" in capfd.readouterr().out


def test_other_settings_in_the_same_directory_are_refused(searched: Path, capfd: pytest.CaptureFixture[str]) -> None:
    where = f"output_dir={searched.parent}"
    for change, wanted in (
        ("search.factor=3", "contains another search (factor: 2 -> 3); name=... starts a new one"),
        ("search=tpe", "contains another search (sampler: random -> tpe)"),
        ("seed=3", "contains another search (first seed: 0 -> 3)"),
        ("model.width=1,0.5", "contains another search (grid: none -> width-1, width-0.5)"),
        ("trainer.max_epochs=3", "contains another search (epochs: 2 -> 3)"),
        ("model.shortcut=B", "contains a sweep with other fixed values (model.shortcut: A -> B)"),
        ('search.test_overrides=["datamodule.train_fraction=0.5"]', "datamodule.train_fraction: 1.0 -> 0.5"),
    ):
        assert command(*TESTED, where, change) == 1
        (line,) = capfd.readouterr().err.splitlines()
        assert wanted in line
    assert command("-m", *TINY, "optimizer.lr=0.1,0.2", "name=tuned", where) == 1
    assert f"{searched}: contains a search; repeat its command" in capfd.readouterr().err


def test_data_of_finished_trials_are_checked(
    searched: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "changed_data", lambda jobs: [(job.name, "other data") for job in jobs])
    names = (parse_name(name) for name, one in runs(searched).items() if one.result.exists())
    first, *_ = sorted(name for name in names if name)
    assert command(*TESTED, f"output_dir={searched.parent}", "dry_run=true") == 1
    assert capfd.readouterr().err == f"error: {first} and 2 others: other data\n"


def test_dry_run_shows_space_budget_and_trials(searched: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(*TESTED, f"output_dir={searched.parent}", "search.epochs=100", "dry_run=true") == 0
    out = capfd.readouterr().out
    assert "optimizer.lr=tag(log,interval(0.001,0.1))" in out
    assert out.count("finished ") == 3
    assert "search=random: 4 trials in" in out
    assert "trained 2 epochs and compared by val/acc1; after 1 epochs only the best 1/2 go on\n" in out
    assert "seed 0; the winner is trained anew and tested with seed 7\n" in out
    assert "94 of 100 epochs left" in out


def test_narrowed_study_keeps_its_names(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for typed, names in (
        (("model.ratio=2",), ["ratio-2"]),
        (("model.ratio=10,1", "+model.note=1"), ["ratio-10", "ratio-1"]),
    ):
        overrides = OverridesParser.create().parse_overrides(["model.ratio=1,2,10", SPACE[0], "seed=0,1"])
        spec = read_spec(overrides, OverridesParser.create().parse_overrides([*typed, "search=tpe"]), 0, "tpe")
        assert list(spec.groups) == names
        assert spec.seeds == [0, 1]
        assert spec.fixed == list(typed[1:])
    assert command("study=tuned_ratio_ablation", "model.ratio=7", "dry_run=true") == 1
    assert "model.ratio=7: the study has 1,2,3,4,5,10" in capfd.readouterr().err


def test_grid_values_have_searches_of_their_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    search = ("-m", *DATA, SPACE[0], "model.shortcut=A,B", "search=qmc", "search.trials=2", "dry_run=true")
    assert command(*search) == 0
    out = capfd.readouterr().out
    assert "2 trials for each of 2 values of the grid" in out
    assert "\nmodel.shortcut=A,B\n" in out


def test_search_runs_through_a_queue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    queue = FakeQueue()
    monkeypatch.setattr(submitit_launcher.submitit, "AutoExecutor", queue)
    monkeypatch.setattr(submitit_launcher, "queue_states", dict)
    search = (*TESTED, "hydra/launcher=submitit_slurm", "hydra.launcher.gpus=false", "n_jobs=3")
    assert command(*search) == 0
    found = runs(tmp_path / "outputs" / "tuned")
    assert sorted(epochs(run) for run in found.values()) == [1, 1, 2, 2, 2]
    assert [job.config["pause_after"] for job in queue.jobs].count(1) == 4
    assert len(queue.jobs) == 7
    assert command(*search) == 0
    assert len(queue.jobs) == 7


class FakeQueue:
    """Fake of submitit's executor, which writes what each training would leave."""

    def __init__(self) -> None:
        self.jobs: list[submitit_launcher.SubmittedJob] = []

    def __call__(self, folder: Path, cluster: str) -> "FakeQueue":
        return self

    def update_parameters(self, **parameters: object) -> None:
        """Take any."""

    def submit_array(self, jobs: list[submitit_launcher.SubmittedJob]) -> list[SimpleNamespace]:
        """Run the jobs at once."""
        self.jobs += jobs
        for job in jobs:
            run, until = RunDirectory(Path(job.path)), job.config["pause_after"]
            figure = 100 * job.config["optimizer"]["lr"]
            rows = [f"{epoch},{epoch},{figure}\n" for epoch in range(1, (until or 2) + 1)]
            run.metrics.write_text("step,epoch,val/acc1\n" + "".join(rows))
            if until is None:
                run.write_result({"metrics": {"test": {"test/acc1": 50.0}}})
        return [SimpleNamespace(job_id=f"7_{len(self.jobs)}") for _ in jobs]


def test_metric_is_that_of_the_lightning_module(capfd: pytest.CaptureFixture[str], searched: Path) -> None:
    search = ("-m", SPACE[0], "search=random", "search.trials=2", "datamodule.validate_on=holdout", "dry_run=true")
    assert command(*TINY_DETECTOR, *search) == 0
    assert "compared by val/map" in capfd.readouterr().out
    assert read_sweep(searched).search["metric"] == "val/acc1"


def test_metric_that_should_fall_is_minimized(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    search = ("-m", *DATA, SPACE[0], "search=random", "search.trials=2", "name=falls", f"output_dir={tmp_path}")
    assert command(*search, "monitor=loss") == 0
    assert read_sweep(tmp_path / "falls").search["direction"] == "minimize"
    trials = runs(tmp_path / "falls").values()
    best = min(trials, key=lambda run: (run.read_result() or {})["metrics"]["last"]["val/loss"])
    assert f"best: optimizer.lr={best.read_config()['optimizer']['lr']} (" in capfd.readouterr().out
    calibration = "+metrics.error={_target_:torchmetrics.classification.MulticlassCalibrationError}"
    named = ("monitor=error", calibration, "search.metric=val/error", "name=error")
    assert command(*search, *named) == 1
    assert "search.metric=val/error: needs search.direction=minimize" in capfd.readouterr().err
    assert command(*search, *named, "search.direction=minimize", "dry_run=true") == 0
    assert command(*search, *named[1:]) == 1  # it falls without being the monitor too
    assert "search.metric=val/error: needs search.direction=minimize" in capfd.readouterr().err


def test_search_of_an_earlier_version_without_metric_continues(searched: Path, tmp_path: Path) -> None:
    shutil.copytree(searched, tmp_path / "tuned")
    sweep = yaml.safe_load((tmp_path / "tuned" / "sweep.yaml").read_text())
    sweep["search"]["metric"] = None
    (tmp_path / "tuned" / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    assert command(*TESTED, f"output_dir={tmp_path}", "dry_run=true") == 0
    assert command("task=report", "name=tuned", f"output_dir={tmp_path}") == 0


def test_horizon_of_a_rung_is_part_of_each_trial(tmp_path: Path) -> None:
    assert command(*SEARCH, "search.horizon=rung", "search.trials=2") == 0
    for trial in runs(tmp_path / "outputs" / "tuned").values():
        assert trial.read_config()["scheduler"]["horizon"] == [1, 2]


@pytest.mark.parametrize(
    ("overrides", "epoch"),
    [
        (("scheduler=onecycle", "scheduler.pct_start=0.5"), "1"),
        (("scheduler=cosine", "scheduler.warmup_epochs=1.5"), "1.5"),
        (("scheduler=onecycle", "scheduler.pct_start=0.4"), None),
        (("scheduler=onecycle", "scheduler.pct_start=0.5", "search.horizon=rung"), None),
    ],
)
def test_rung_before_the_peak_of_learning_rates_warns(
    capfd: pytest.CaptureFixture[str], overrides: Sequence[str], epoch: str | None
) -> None:
    assert command(*SEARCH, *overrides, "dry_run=true") == 0
    warning = f"warning: search.rungs=[1]: learning rates rise until epoch {epoch}, and metrics at epoch 1 hardly tell"
    assert (warning in capfd.readouterr().err) == (epoch is not None)


def test_diverging_trial_is_a_result_of_the_search(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    space = "optimizer.lr=choice(0.01,1e30)"
    search = ("-m", *DATA, space, "search=grid", "name=tuned")
    assert command(*search) == 0
    assert "2 trials, 1 trained to the end, 1 diverged; best: optimizer.lr=0.01" in capfd.readouterr().out
    assert command(*search) == 0
    assert "0 runs in" in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["random", "qmc", "tpe"])
def test_killed_search_ends_as_an_undisturbed_one(kind: str, tmp_path: Path) -> None:
    """Kill a search three times at random moments: pytest -m slow tests/sweeps/search/test_search.py"""
    search = (*TESTED, f"search={kind}", "search.trials=6", "trainer.max_epochs=4", "search.rungs=[1,2]", "n_jobs=2")
    assert command(*search, "name=whole") == 0
    folder, ended = tmp_path / "outputs" / "killed", []
    for _ in range(3):
        before, process = trained_epochs(folder), start(*search, "name=killed")
        while process.poll() is None and trained_epochs(folder) == before:
            time.sleep(0.05)
        time.sleep(random.uniform(0, 1))
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
        ended.append((process.returncode, errors))
    assert [code for code, _ in ended[:2]] == [-signal.SIGKILL] * 2, ended
    assert command(*search, "name=killed") == 0
    whole, killed = (runs(tmp_path / "outputs" / name) for name in ("whole", "killed"))
    trials = [{name for name in found if re.match("trial", name)} for found in (whole, killed)]
    assert trials[0] == trials[1]
    for name in trials[0] if kind != "tpe" else ():
        ours, theirs = (found[name].metrics.read_text().splitlines() for found in (killed, whole))
        assert ours[: len(theirs)] == theirs[: len(ours)]
        assert [found[name].read_config()["optimizer"] for found in (killed, whole)].count(
            whole[name].read_config()["optimizer"]
        ) == 2
