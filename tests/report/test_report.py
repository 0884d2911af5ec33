"""`task=report` by command line, on fake runs."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ghostexp.runs.naming import run_dir
from tests.cli import command
from tests.report.fake_runs import finish, start, study

RATIOS = {1: [95.0, 94.0, 96.0], 2: [94.0, 94.5, 95.0], 10: [90.0, 91.0, 92.5]}
FILES = {"README.md", "report.html", "results.csv", "table.csv", "table.tex"}
PLOTS = {"accuracy.png", "curves.png", "differences.png", "pareto.png"}


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_report_has_page_tables_and_plots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = study(tmp_path / "outputs" / "ratio_ablation", RATIOS)
    (folder / "ratio-2_seed-2" / "result.json").unlink()
    assert command("task=report", "study=ratio_ablation") == 0
    report = folder / "report"
    assert {path.name for path in report.iterdir()} >= FILES | PLOTS
    text = (report / "README.md").read_text()
    assert text in capsys.readouterr().out
    page = (report / "report.html").read_text()
    assert "<title>ratio ablation: ghost_resnet20 on digits</title>" in page
    assert page.count("<tr>") == 4
    assert page.count('<img src="data:image/png;base64,') == len(PLOTS)
    assert page.count("<img ") == len(PLOTS)
    assert text.startswith("# ratio ablation: ghost_resnet20 on digits\n\n**Test accuracy against s = 1")
    assert "| s = 10 | 3 | 91.17 | 1.26 | [88.04, 94.29] | -3.83 [-6.42, -1.25] | 138,826 |" in text
    assert "- unfinished: `ratio-2_seed-2` (3 of 3 epochs" in text
    assert "![The validation set, which is the test set, by epoch](curves.png)" in text
    assert text.endswith(". Runs of 2026-01-02, revision abc, torch 2.14.1.\n")
    assert "python -m ghostexp task=report study=ratio_ablation\n" in text
    assert [row["n"] for row in read_csv(report / "table.csv")] == ["3", "2", "3"]
    runs = {row["run"]: row for row in read_csv(report / "results.csv")}
    assert len(runs) == 9
    wanted = {"accuracy": "91.0", "variant": "s = 10", "seed": "1", "model.ratio": "10", "macs": "251660"}
    assert runs["ratio-10_seed-1"].items() >= wanted.items()
    assert (runs["ratio-2_seed-2"]["state"], runs["ratio-2_seed-2"]["variant"]) == ("unfinished", "")
    assert json.loads((report / "result.json").read_text())["not_counted"] == 1
    for name in PLOTS:
        with Image.open(report / name) as image:
            assert image.convert("L").getextrema() == (0, 255), name


def test_report_names_baseline(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "scheduler_comparison"
    for scheduler, accuracy in (("onecycle", 95.0), ("cosine", 94.0), ("constant", 90.0)):
        for seed in (0, 1):
            run = start(folder / f"scheduler-{scheduler}_seed-{seed}", seed, {}, {"scheduler": scheduler})
            finish(run, accuracy + seed)
    (folder / "sweep.yaml").write_text("{study: scheduler_comparison, jobs: {}}")
    assert command("task=report", "study=scheduler_comparison") == 0
    assert "Test accuracy against onecycle" in (folder / "report" / "README.md").read_text()
    assert command("task=report", "study=scheduler_comparison", "task.baseline={scheduler:cosine}") == 0
    assert "Test accuracy against cosine" in (folder / "report" / "README.md").read_text()
    for path in folder.glob("scheduler-onecycle_*/result.json"):  # the study's own baseline is not finished yet
        path.unlink()
    assert command("task=report", "study=scheduler_comparison") == 0
    assert "Test accuracy against constant" in (folder / "report" / "README.md").read_text()


def test_report_writes_only_into_output_dir(tmp_path: Path) -> None:
    study(tmp_path / "outputs" / "ratios", {1: [95.0], 2: [94.0]})
    target = tmp_path / "experiments" / "mine"
    assert command("task=report", "name=ratios", f"task.output_dir={target}", "task.title='Ratios (JPEG)'") == 0
    assert {path.name for path in target.iterdir()} == FILES | PLOTS
    assert (target / "README.md").read_text().startswith("# Ratios (JPEG)\n")


def test_report_without_finished_runs(tmp_path: Path) -> None:
    folder = study(tmp_path / "outputs" / "ratio_ablation", {1: [95.0]})
    (folder / "ratio-1_seed-0" / "result.json").unlink()
    (folder / "report").mkdir()
    for name in ("curves.png", "table.csv", "table.tex"):
        (folder / "report" / name).write_bytes(b"of an earlier report")
    assert command("task=report", "study=ratio_ablation") == 0
    assert "No run is finished yet." in (folder / "report" / "README.md").read_text()
    assert "`results.csv` has every run." in (folder / "report" / "README.md").read_text()
    for name in ("curves.png", "table.csv", "table.tex"):
        assert not (folder / "report" / name).exists()


def test_report_does_not_import_torch(tmp_path: Path) -> None:
    folder = study(tmp_path / "outputs" / "ratio_ablation", {1: [95.0], 2: [94.0]})
    heavy = ("torch", "lightning", "scipy.stats", "matplotlib.pyplot")
    script = (
        "import sys; from ghostexp.__main__ import main\n"
        f"print(main(['task=report', 'task.runs={folder}/*']))\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["0", "[]"]
    assert (folder / "report" / "README.md").is_file()


@pytest.mark.parametrize(
    ("runs", "wanted"),
    [
        (None, "outputs/mine/report"),
        ("{tmp}/a/*", "{tmp}/a/report"),
        ("{tmp}/a", "{tmp}/a/report"),
        (["{tmp}/a/*", "{tmp}/b/run-[01]"], "{tmp}/report"),
        ("{tmp}/none/*", "outputs/mine/report"),
    ],
)
def test_report_directory_is_beside_runs(runs: str | list[str] | None, wanted: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    texts = [text.format(tmp=tmp_path) for text in runs] if isinstance(runs, list) else runs
    texts = texts.format(tmp=tmp_path) if isinstance(texts, str) else texts
    assert run_dir("outputs", "mine", "report", None, None, texts) == wanted.format(tmp=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["study=width"], "task=report: there is no "),
        (
            ["study=ratio_ablation", "seed=0"],
            "seed=0: cannot be set with task=report of a study; allowed: study, debug, name, task",
        ),
        (["study=width", "name=ratio_ablation"], "study=width: "),
        (["-m", "name=ratio_ablation", "seed=0,1"], "seed=0,1: cannot be set with task=report of a study"),
        (["study=ratio_ablation", "task.runs=x"], "task.runs: selects the runs; leave out study= and -m"),
        (
            ["study=ratio_ablation", "task.baseline={model.ratio:7}"],
            "task.baseline={'model.ratio': 7}: must be values of a variant",
        ),
        (
            ["study=ratio_ablation", "task.baseline=s"],
            "task.baseline=s: must be a mapping such as {model.ratio:1}",
        ),
        (
            ["study=ratio_ablation", "task.output_dir=outputs/ratio_ablation/sweep.yaml/x"],
            "task.output_dir=outputs/ratio_ablation/sweep",
        ),
        (["task.runs=no/such/*"], "task.runs=no/such/*: must match directories of training runs"),
        (["task.runs=[]"], "task.runs=[]: must be a directory, a glob, or a list of them"),
    ],
)
def test_report_errors_are_one_line(
    arguments: list[str],
    wanted: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    study(tmp_path / "outputs" / "ratio_ablation", {1: [95.0], 2: [94.0]})
    assert command(*arguments, "task=report") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {wanted}")
    assert not (tmp_path / "outputs" / "width").exists()
