"""Test run directories: names, fingerprints, CSV tables and records."""

import json
import os
from pathlib import Path

import pytest

from ghostexp.runs.csv_table import CSVTable, read_rows
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.fingerprint import differences, fingerprint
from ghostexp.runs.metrics import format_metric
from ghostexp.runs.naming import job_dirname, run_dir
from ghostexp.runs.provenance import cpu, git_revision, versions
from tests.cli import command

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
        {"trainer": CONFIG["trainer"] | {"devices": [2]}},
        {"datamodule": CONFIG["datamodule"] | {"root": "there", "num_workers": 8}},
    ],
)
def test_fingerprint_ignores_paths_loggers_and_names(change: dict) -> None:
    assert fingerprint(CONFIG | change) == fingerprint(CONFIG)


@pytest.mark.parametrize("devices", [4, [0, 1, 2, 3]])
def test_fingerprint_has_images_per_batchnorm_statistic(devices: object) -> None:
    several = CONFIG | {"trainer": CONFIG["trainer"] | {"devices": devices}}
    assert fingerprint(several) != fingerprint(CONFIG)
    assert differences(CONFIG, several) == ["images per BatchNorm statistic: None -> 16"]
    synced = several | {"trainer": several["trainer"] | {"sync_batchnorm": True}}
    assert not any("BatchNorm statistic" in text for text in differences(CONFIG, synced))


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
def test_fingerprint_changes_with_result_keys(change: dict, difference: str) -> None:
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
def test_job_dirname_is_built_from_swept_values(pairs: list[tuple[str, str]], name: str) -> None:
    assert job_dirname(pairs) == name


def test_run_dir_is_new_or_that_of_run_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (run_dir("out", "name", "fit", None, None) for _ in range(2))
    assert first.startswith("out/name/2")
    assert run_dir("out", "name", "fit", None, "out/old") == "out/old"
    assert run_dir("out", "name", "test", "out/old", None) == "out/old/test"
    assert second.startswith("out/name/2")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_dir("out", "name", "report", None, None, ["~/a/*", "~/b"]) == f"{tmp_path}/report"


def test_csv_table_merges_rows_of_a_step_and_adds_columns(tmp_path: Path) -> None:
    table = CSVTable(tmp_path / "metrics.csv")
    table.add({"step": 1, "loss": 0.5})
    table.add({"step": 2, "loss": 0.25})
    table.add({"step": 2, "acc": 90})
    table.add({"step": 3, "acc": 95})
    assert (tmp_path / "metrics.csv").read_text() == "step,loss,acc\n1,0.5,\n2,0.25,90\n3,,95\n"


def test_resumed_csv_table_equals_that_of_uninterrupted_run(tmp_path: Path) -> None:
    complete, truncated = tmp_path / "complete.csv", tmp_path / "truncated.csv"
    rows = [{"step": step, "loss": 1 / step} | ({"acc": step} if step % 3 == 0 else {}) for step in range(1, 10)]
    uninterrupted = CSVTable(complete)
    for row in rows:
        uninterrupted.add(row)
    stopped = CSVTable(truncated)
    for row in rows[:8]:
        stopped.add(row)
    truncated.write_text(truncated.read_text()[:-4])  # half a row, as a killed process leaves it
    assert int(read_rows(truncated)[-1]["step"]) == 7
    resumed = CSVTable(truncated, resumed_step=4)
    for row in rows[4:]:
        resumed.add(row)
    assert truncated.read_text() == complete.read_text()
    assert [int(row["step"]) for row in read_rows(truncated)] == list(range(1, 10))


def test_result_replaces_failure(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.write_failure(ValueError("model.ratio=0"), "model.ratio=0")
    record = json.loads(run.failure.read_text())
    assert record["type"] == "ValueError"
    assert record["versions"] == versions()
    assert record["git"] == git_revision() is not None
    assert record["cpu"] == cpu()
    assert run.read_result() is None
    run.write_result({"seed": 0})
    assert run.read_result() == {"seed": 0}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json"]


def test_failure_of_an_earlier_process_is_gone_while_a_run_goes_on(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(tiny_run)
    run.result.unlink()
    run.write_failure(ValueError("no space"), "no space")

    def look(config: dict, directory: RunDirectory) -> dict[str, bool]:
        return {"has_failed": directory.failure.exists()}

    monkeypatch.setattr("ghostexp.runner.execute._find_task", lambda _: look)
    assert command(f"resume={tiny_run}") == 0
    assert (run.read_result() or {})["has_failed"] is False


def test_metric_that_json_cannot_have_is_nan() -> None:
    assert (format_metric("test/error", None), format_metric("test/acc1", 98.611)) == ("nan", "98.61 %")


def test_failure_does_not_remove_result(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.write_result({"seed": 0})
    run.write_failure(RuntimeError("rank 1"), "rank 1")
    assert run.read_result() == {"seed": 0}


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ("fpu avx2 bmi2", ", AVX2"),
        ("avx2 avx512f avx512_bf16 amx_bf16", ", AMX"),
        ("avx2 avx512f avx512_bf16", ", AVX-512 with bfloat16"),
        ("avx2 avx512f", ", AVX-512"),
        ("fpu sse2", ""),
    ],
)
def test_cpu_names_the_vector_instructions(flags: str, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: {flags}\n"
    monkeypatch.setattr(Path, "is_file", lambda self: True)
    monkeypatch.setattr(Path, "read_text", lambda self, **kwargs: 2 * text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    assert cpu() == f"AMD EPYC{wanted} (2 cores)"
