"""Test the report of a search on run directories without a training."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure

from ghostexp.report import search_plots
from ghostexp.report.search_report import search_command
from ghostexp.report.search_runs import load_search
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.sweep_record import SweepRecord, write_sweep
from ghostexp.runs.trials import FOLDER, HISTORY, SearchRecord, TrialName
from tests.cli import command

SPACE = {"optimizer.lr": "tag(log,interval(0.01,1))", "optimizer.weight_decay": "choice(0.1,0.2)"}
RATES = ("0.02", "0.1", "0.5", "0.9")


def write_search(folder: Path, groups: dict[str, list[str]]) -> None:
    """Write a search of four trials each: two rungs, two further seeds for the best two, three tests of the winner."""
    record = SearchRecord(
        "tpe",
        0,
        SPACE,
        groups,
        "val/acc1",
        "maximize",
        9,
        [3],
        2,
        "final",
        4,
        seeds=[0, 1, 2],
        test_seeds=[7, 8, 9],
        contenders=2,
    )
    jobs: dict[str, list[str]] = {}
    history = ["spent,run,epochs,figure"]
    for worse, (group, overrides) in enumerate(groups.items()):
        runs = [(TrialName(group, number, 0), 9 if number in (0, 1) else 3) for number in range(4)]
        runs += [(TrialName(group, number, seed), 9) for number in (0, 1) for seed in (1, 2)]
        runs += [(TrialName(group, 1, seed, is_test=True), 9) for seed in (7, 8, 9)]
        for name, epochs in runs:
            lr, decay = RATES[name.number], "0.1" if name.number % 2 else "0.2"
            jobs[str(name)] = [*overrides, f"optimizer.lr={lr}", f"optimizer.weight_decay={decay}", f"seed={name.seed}"]
            run = RunDirectory(folder / str(name))
            run.write_config({"task": {"name": "fit"}, "seed": name.seed})
            (run.path / ".hydra").mkdir()
            fixed = ["model=resnet20", f"data_dir={folder}", "name=mine"]
            (run.path / ".hydra" / "overrides.yaml").write_text(json.dumps([*fixed, *jobs[str(name)]]))
            figure = 90 - 10 * abs(name.number - 1) - worse + (0.5 * name.seed) ** 2
            lines = [f"{epoch},{epoch},{figure + epoch - 9}" for epoch in range(1, epochs + 1)]
            run.metrics.write_text("\n".join(["step,epoch,val/acc1", *lines]) + "\n")
            if epochs == 9:
                run.write_result({"metrics": {"test": {"test/acc1": 80.0 - worse + name.seed % 3}}})
            history.append(f"{9 * len(history)},{name},{epochs},{figure}")
    write_sweep(folder, SweepRecord(None, jobs, {}, vars(record) | {"groups": groups}))
    (folder / FOLDER).mkdir()
    (folder / FOLDER / HISTORY).write_text("\n".join(history) + "\n")


def report(tmp_path: Path, groups: dict[str, list[str]]) -> str:
    """Report on a search; returns the page."""
    folder = tmp_path / "outputs" / "mine"
    write_search(folder, groups)
    assert command("task=report", "name=mine") == 0
    return (folder / "report" / "README.md").read_text()


def test_report_has_winner_elimination_and_commands(tmp_path: Path) -> None:
    text = report(tmp_path, {"": []})
    assert "best of 4 trials is optimizer.lr = 0.1, optimizer.weight_decay = 0.1: 90.42 %" in text
    assert "81.00 % [78.52, 83.48], n = 3 on the test set with fresh seeds" in text
    assert (
        "| tpe | 0.1 | 0.1 | 90.42 % [89.12, 91.71], n = 3 | no other is left | 81.00 % [78.52, 83.48], n = 3 |" in text
    )
    assert "| 1 | 0.1 | 0.1 | 9 | 90.42 % [89.12, 91.71], n = 3 | winner |" in text
    assert re.search(r"\| 2 \| 0.5 \| 0.2 \| 3 \| 74.00 %, n = 1 \| stopped after epoch 3 \|", text)
    assert "| 3 | 4 | 2 | 0 |" in text
    assert "24 epochs were trained with the first seed, 67 % of the 36 that 4 trials of 9 epochs would take." in text
    assert "Further seeds took 36 epochs more." in text
    for name in ("progress", "importances", "slices"):
        assert f"({name}.png)" in text
        assert (tmp_path / "outputs" / "mine" / "report" / f"{name}.png").is_file()
    search = "python -m ghostexp -m model=resnet20 data_dir=DIR name=mine 'optimizer.lr=tag(log,interval(0.01,1))'"
    assert f"{search} 'optimizer.weight_decay=choice(0.1,0.2)' seed=0,1,2 search=tpe search.factor=2" in text
    further = text.partition("python -m ghostexp task=report name=mine\n# further seeds for the test\n")[2]
    assert "'search.test_seeds=[100,101,102,103,104]'" in further.partition("```")[0]
    assert "hold out no validation part (datamodule.train_fraction still applies), and test the last epoch." in text
    assert str(tmp_path) not in text
    assert "<td>winner</td>" in (tmp_path / "outputs" / "mine" / "report" / "report.html").read_text()
    table = (tmp_path / "outputs" / "mine" / "report" / "trials.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))
    assert len(rows) == 11
    assert rows[-1]["state"] in ("test", "stopped after epoch 3")


def test_seeds_that_are_not_trained_to_the_end_do_not_count(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "mine"
    write_search(folder, {"": []})
    for seed in (1, 2):
        run = RunDirectory(folder / f"trial-0001_seed-{seed}")
        run.result.unlink()
        run.metrics.write_text("step,epoch,val/acc1\n1,1,20.0\n")
    assert load_search(folder)[0].seeds_of(1) == {0: 90.0}
    assert load_search(folder)[0].seeds_of(0) == {0: 80.0, 1: 80.25, 2: 81.0}
    sweep = yaml.safe_load((folder / "sweep.yaml").read_text())
    sweep["search"]["seeds"] = [0, 1]  # the third is no longer asked for
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    assert load_search(folder)[0].seeds_of(0) == {0: 80.0, 1: 80.25}


def test_command_of_a_study_has_what_was_typed(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "mine"
    write_search(folder, {"ratio-1": ["model.ratio=1"], "ratio-2": ["model.ratio=2"]})
    for path in folder.glob("*/.hydra/overrides.yaml"):
        path.write_text(json.dumps(["study=mine", "scheduler.horizon=[9]", *json.loads(path.read_text())]))
    line = search_command(load_search(folder))
    assert line.startswith("python -m ghostexp -m study=mine 'scheduler.horizon=[9]' model=resnet20 data_dir=DIR ")
    for typed in ("model.ratio=1,2", "seed=0,1,2", "search=tpe", "search.trials=4", "'search.rungs=[3]'"):
        assert f" {typed}" in line


def test_report_compares_searches_by_fresh_seeds(tmp_path: Path) -> None:
    text = report(tmp_path, {"ratio-1": ["model.ratio=1"], "ratio-2": ["model.ratio=2"]})
    assert "s = 1: best of 4 trials" in text
    assert "difference to s = 1, paired" in text
    assert "-1.00 [-1.00, -1.00] |" in text
    assert "## Best trials of s = 2" in text
    assert "model.ratio=1,2 'optimizer.lr=" in text


def test_report_of_two_objectives_has_the_pareto_set(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "mine"
    write_search(folder, {"": []})
    sweep = yaml.safe_load((folder / "sweep.yaml").read_text())
    sweep["search"] |= {"cost": "macs", "rungs": [], "trials": None, "budget": 50}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    for number, path in enumerate(sorted(folder.glob("*/result.json"))):
        cost = {"macs": 10 if "trial-0000" in str(path) else 1000 + number}
        path.write_text(json.dumps(json.loads(path.read_text()) | cost))
    assert command("task=report", "name=mine") == 0
    text = (folder / "report" / "README.md").read_text()
    assert "2 of 4 trials are the Pareto set of val/acc1 and macs." in text
    assert "| optimizer.weight_decay | validation (searched) | macs | test, fresh seeds |" in text
    assert "| tpe | 0.02 | 0.2 | 80.42 % [79.12, 81.71], n = 3 | 10 |" in text
    assert "search.cost=macs search.trials=null search.epochs=50" in text
    assert "![val/acc1 and cost; connected: the Pareto set](pareto.png)" in text


def test_report_of_a_search_without_a_winner(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "mine"
    write_search(folder, {"": []})
    for path in folder.glob("*/result.json"):
        path.unlink()
    assert command("task=report", "name=mine") == 0
    assert "no winner yet; 4 trials have started" in (folder / "report" / "README.md").read_text()


def test_report_formats_search_and_test_by_their_own_metrics(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "mine"
    write_search(folder, {"": []})
    sweep = yaml.safe_load((folder / "sweep.yaml").read_text())
    sweep["search"] |= {"metric": "val/loss", "direction": "minimize", "startup": 3, "tune_on_test": True}
    sweep["search"] |= {"test_overrides": ["datamodule.train_fraction=0.5"]}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    for path in folder.glob("*/metrics.csv"):
        lines = path.read_text().replace("val/acc1", "val/loss").splitlines()
        rows = [line.split(",") for line in lines[1:]]
        losses = [",".join([*row[:2], str((101 - float(row[2])) / 100)]) for row in rows]
        path.write_text("\n".join([lines[0], *losses]) + "\n")
    for seed, accuracy in ((7, 99.9), (8, 98.6), (9, 99.9)):
        test = RunDirectory(folder / f"test-0001_seed-{seed}")
        test.write_result({"metrics": {"test": {"test/acc1": accuracy, "test/loss": 0.1}}})
    assert command("task=report", "name=mine") == 0
    text = (folder / "report" / "README.md").read_text()
    searched, tested = "0.1058 [0.09291, 0.1188], n = 3", "99.47 % [97.60, 100.00], n = 3"
    assert f"{searched} on the validation set; accuracy of {tested} on the test set with fresh seeds." in text
    assert "| test accuracy, fresh seeds |" in text
    assert "search.startup=3 search.tune_on_test=True" in text
    assert "'search.test_overrides=['" in text
    assert command("task=report", "name=mine", "task.baseline={model.ratio:1}") == 1


def test_report_without_trials_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "outputs" / "mine"
    write_search(folder, {"": []})
    for path in folder.glob("*/config.yaml"):
        path.unlink()
    assert command("task=report", "name=mine") == 1
    assert capfd.readouterr().err == f"error: {folder}: no trial of the search has started\n"


@pytest.mark.parametrize("rungs", [[3], []])
def test_slices_have_a_legend_and_fill_what_went_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rungs: list[int]
) -> None:
    folder = tmp_path / "mine"
    write_search(folder, {"ratio-1": ["model.ratio=1"], "ratio-2": ["model.ratio=2"]})
    sweep = yaml.safe_load((folder / "sweep.yaml").read_text())
    sweep["search"]["rungs"] = rungs
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    drawn: list[tuple[Figure, str]] = []
    monkeypatch.setattr(search_plots, "save", lambda figure, title, path: drawn.append((figure, title)))
    search_plots.draw_slices(load_search(folder), "mine", tmp_path / "slices.png")
    ((figure, title),) = drawn
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["s = 1", "s = 2"]
    counts = [(len(np.asarray(some.get_offsets())), some) for some in figure.axes[0].collections]
    filled = [count for count, some in counts if count and len(np.asarray(some.get_facecolor()))]
    assert (filled, sum(count for count, _ in counts)) == ([2, 2], 8 if rungs else 4)
    assert ("filled" in title) == bool(rungs)
