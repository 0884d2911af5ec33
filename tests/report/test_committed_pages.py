"""The tables of the studies under experiments/ are what their results.csv gives."""

import csv
import statistics
from pathlib import Path

import pytest

from ghostexp.report.statistics import Estimate, estimate, paired
from ghostexp.report.tables import difference_text, interval
from ghostexp.report.text import training_time
from ghostexp.runs.metrics import Metric

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
PAGES = sorted(path.parent for path in EXPERIMENTS.glob("*/table.csv"))
PERCENT, POINTS = (0.0, 100.0), (-100.0, 100.0)
ACCURACY = Metric("test/acc1")
Rows = list[dict[str, str]]


def read_csv(path: Path) -> Rows:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def runs_of(page: Path) -> dict[str, Rows]:
    """Return the finished runs of a page by variant."""
    found: dict[str, Rows] = {}
    for row in read_csv(page / "results.csv"):
        if row["state"] == "finished":
            found.setdefault(row["variant"], []).append(row)
    return found


def by_seed(rows: Rows) -> dict[int, float]:
    return {int(row["seed"]): float(row["accuracy"]) for row in rows}


def markdown_rows(page: Path, first_column: str = "variant") -> dict[str, list[str]]:
    """Return the cells of the page's table with this first column, by its values."""
    return {cells[0]: cells[1:] for cells in markdown_table(page, first_column)}


def markdown_table(page: Path, first_column: str) -> list[list[str]]:
    lines = (page / "README.md").read_text().partition(f"| {first_column} |")[2].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def equals(row: dict[str, str], name: str, found: Estimate) -> None:
    """Assert that a row of table.csv has these numbers."""
    assert row[f"{name}_mean"] == str(round(found.mean, 4))
    assert row[f"{name}_sd"] == ("" if found.sd is None else str(round(found.sd, 4)))
    ends = found.interval or ("", "")
    assert [row[f"{name}_low"], row[f"{name}_high"]] == [str(end and round(end, 4)) for end in ends]


def test_there_are_pages() -> None:
    assert len(PAGES) >= 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_what_results_give(page: Path) -> None:
    runs, table, printed = runs_of(page), read_csv(page / "table.csv"), markdown_rows(page)
    assert [row["variant"] for row in table] == list(printed)
    assert set(printed) == set(runs)
    for row in table:
        of_variant, cells = runs[row["variant"]], printed[row["variant"]]
        accuracy = estimate(list(by_seed(of_variant).values()), PERCENT)
        equals(row, "accuracy", accuracy)
        assert row["n"] == cells[0] == str(len(of_variant))
        assert cells[1] == f"{accuracy.mean:.2f}"
        assert cells[3] == interval(accuracy, ACCURACY)
        if row["baseline"]:
            difference = paired(by_seed(of_variant), by_seed(runs[row["baseline"]]), POINTS)
            assert difference is not None
            equals(row, "difference", difference.estimate)
            assert cells[4].startswith(difference_text(difference.estimate, ACCURACY))
        else:
            assert cells[4] == "baseline"
        for number, key in enumerate(("params", "macs"), 5):
            assert cells[number] == f"{statistics.median(float(run[key]) for run in of_variant):,.0f}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_training_time_is_what_results_give(page: Path) -> None:
    seconds = [float(run["train_seconds"]) for runs in runs_of(page).values() for run in runs]
    assert training_time(seconds) in (page / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_list_of_results_has_date_and_revision(page: Path) -> None:
    runs = [run for runs in runs_of(page).values() for run in runs]
    (row,) = [line for line in (EXPERIMENTS / "README.md").read_text().splitlines() if f"]({page.name}/" in line]
    *_, date, revision = (cell.strip() for cell in row.strip("|").split("|"))
    assert date == " to ".join(dict.fromkeys((min(days(runs)), max(days(runs)))))
    assert set(revision.split(", ")) == {run["git"] for run in runs}


def days(runs: Rows) -> list[str]:
    return [run["started"][:10] for run in runs]


def test_table_of_the_readme_is_that_of_the_study() -> None:
    study = {
        macs: [params, f"{accuracy} {interval}", difference.removeprefix("baseline")]
        for _, accuracy, _, interval, difference, params, macs, *_ in markdown_rows(
            EXPERIMENTS / "ratio_ablation_resnet20"
        ).values()
    }
    printed = markdown_table(EXPERIMENTS.parent, "network")
    assert {macs: cells for _, macs, *cells in printed} == study


def test_recipe_has_every_run() -> None:
    page = EXPERIMENTS / "cifar10_recipe"
    runs = read_csv(page / "results.csv")
    recipe = [[float(value) for value in cells] for _, *cells in markdown_table(page, "network")]
    names = ("epochs", "lr", "weight_decay", "batch_size", "pct_start", "crop_padding", "label_smoothing")
    one_cycle = [run for run in runs if run["schedule"] == "onecycle"]
    for run, (*settings, accuracy) in zip(one_cycle, recipe, strict=True):
        settings[4] /= 100  # a rise in %
        assert [*settings, accuracy] == [float(run[name]) for name in (*names, "validation_accuracy")]

    schedules = markdown_rows(page, "schedule")
    printed = [
        (name.replace("one cycle", "onecycle"), rate, accuracy)
        for name, cells in schedules.items()
        for rate, accuracy in zip(("0.05", "0.1", "0.2", "0.4"), cells, strict=True)
        if accuracy
    ]
    assert sorted(printed) == sorted(
        (run["schedule"], run["lr"], f"{float(run['validation_accuracy']):.2f}")
        for run in runs
        if [run[name] for name in ("ratio", "epochs", "crop_padding", "label_smoothing")] == ["1", "5", "2", "0.1"]
    )
