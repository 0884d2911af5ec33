"""A run's directory: names, fingerprint, tables, records."""

import json
from pathlib import Path

import pytest

from ghostexp.runs.csv_table import CSVTable, read_rows
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.fingerprint import differences, fingerprint
from ghostexp.runs.naming import job_dirname, run_dir

CONFIG = {
    "seed": 0,
    "name": "a",
    "model": {"ratio": 2, "network": {"shortcut": "A"}},
    "datamodule": {"batch_size": 64, "root": "here", "num_workers": 2},
    "trainer": {"precision": "32-true", "devices": 1, "max_epochs": 15},
    "logger": {"csv": {}},
    "threads": None,
}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "b"},
        {"logger": {"wandb": {}}},
        {"threads": 4},
        {"trainer": CONFIG["trainer"] | {"devices": 4}},
        {"datamodule": CONFIG["datamodule"] | {"root": "there", "num_workers": 8}},
    ],
)
def test_the_fingerprint_does_not_change_with_places_devices_loggers_and_names(change: dict) -> None:
    assert fingerprint(CONFIG | change) == fingerprint(CONFIG)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"model": CONFIG["model"] | {"ratio": 3}}, "model.ratio: 2 -> 3"),
        ({"model": {"ratio": 2, "network": {"shortcut": "B"}}}, "model.network.shortcut: A -> B"),
        ({"datamodule": CONFIG["datamodule"] | {"batch_size": 32}}, "datamodule.batch_size: 64 -> 32"),
        ({"trainer": CONFIG["trainer"] | {"precision": "bf16-mixed"}}, "trainer.precision: 32-true -> bf16-mixed"),
        ({"trainer": CONFIG["trainer"] | {"max_epochs": 30}}, "trainer.max_epochs: 15 -> 30"),
        ({"trainer": CONFIG["trainer"] | {"overfit_batches": 2}}, "trainer.overfit_batches: None -> 2"),
    ],
)
def test_the_fingerprint_changes_with_what_decides_the_result(change: dict, difference: str) -> None:
    assert fingerprint(CONFIG | change) != fingerprint(CONFIG)
    assert differences(CONFIG, CONFIG | change) == [difference]


@pytest.mark.parametrize(
    ("pairs", "name"),
    [
        ([("model.ratio", "2"), ("seed", "1")], "ratio-2_seed-1"),
        ([("optimizer.lr", "0.1"), ("scheduler.lr", "1")], "optimizer.lr-0.1_scheduler.lr-1"),
        ([("trainer.devices", "[0,2]"), ("+a.b", "'x=y z'")], "devices-0-2_b-x-y-z"),
        ([("optimizer.lr", "1e+30"), ("seed", "-1")], "lr-1e30_seed--1"),
        ([], "job"),
    ],
)
def test_a_sweeps_directories_are_named_by_what_is_swept(pairs: list[tuple[str, str]], name: str) -> None:
    assert job_dirname(pairs) == name


def test_a_run_lives_in_a_new_directory_or_in_the_one_that_it_belongs_to() -> None:
    first, second = (run_dir("out", "name", "fit", None, None) for _ in range(2))
    assert first.startswith("out/name/2")
    assert run_dir("out", "name", "fit", None, "out/old") == "out/old"
    assert run_dir("out", "name", "test", "out/old", None) == "out/old/test"
    assert second.startswith("out/name/2")


def test_rows_of_one_step_join_and_new_columns_are_added(tmp_path: Path) -> None:
    table = CSVTable(tmp_path / "metrics.csv")
    table.add({"step": 1, "loss": 0.5})
    table.add({"step": 2, "loss": 0.25})
    table.add({"step": 2, "acc": 90})
    table.add({"step": 3, "acc": 95})
    assert (tmp_path / "metrics.csv").read_text() == "step,loss,acc\n1,0.5,\n2,0.25,90\n3,,95\n"


def test_a_resumed_table_is_the_table_of_an_unbroken_run(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.csv", tmp_path / "broken.csv"
    rows = [{"step": step, "loss": 1 / step} | ({"acc": step} if step % 3 == 0 else {}) for step in range(1, 10)]
    unbroken = CSVTable(whole)
    for row in rows:
        unbroken.add(row)
    stopped = CSVTable(broken)
    for row in rows[:8]:
        stopped.add(row)
    broken.write_text(broken.read_text()[:-4])  # half a row, as a killed process leaves it
    assert int(read_rows(broken)[-1]["step"]) == 7
    resumed = CSVTable(broken, resumed_step=4)
    for row in rows[4:]:
        resumed.add(row)
    assert broken.read_text() == whole.read_text()
    assert [int(row["step"]) for row in read_rows(broken)] == list(range(1, 10))


def test_a_result_takes_the_place_of_a_failure(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.write_failure(ValueError("model.ratio=0"), "model.ratio=0")
    assert json.loads(run.failure.read_text())["type"] == "ValueError"
    assert run.read_result() is None
    run.write_result({"seed": 0})
    assert run.read_result() == {"seed": 0}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json"]


def test_a_failure_after_the_end_takes_no_result_away(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.write_result({"seed": 0})
    run.write_failure(RuntimeError("rank 1"), "rank 1")
    assert run.read_result() == {"seed": 0}
