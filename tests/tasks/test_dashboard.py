"""Run an offline W&B sweep and an offline W&B search, and build the dashboards of their runs."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from wandb_workspaces.reports.v2.interface import Report
from wandb_workspaces.workspaces import Workspace

from ghostexp.report.build_study import build_study
from ghostexp.report.load_runs import find_study
from ghostexp.report.variants import Study
from ghostexp.report.wandb_dashboard import build_page_blocks, study_dashboard
from ghostexp.report.wandb_panels import build_panels
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.fingerprint import flatten
from ghostexp.runs.naming import run_identity
from ghostexp.runs.wandb_names import shorten_name
from tests.cli import TINY, command
from tests.offline_wandb import config_of, records, rows, summary_of
from tests.report import fake_runs

# Keys of each panel type that hold metrics: lists, single ones.
NAMED = {
    "Scatter Plot": ((), ("xAxis", "yAxis", "zAxis")),
    "Bar Chart": (("metrics",), ("groupBy",)),
    "Run History Line Plot": (("metrics",), ("xAxis", "groupBy")),
    "Media Browser": (("mediaKeys",), ()),
    "Markdown Panel": ((), ()),
    "Parameter Importance": ((), ("targetKey",)),
}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run three jobs, recorded offline."""
    outputs = tmp_path_factory.mktemp("outputs")
    jobs = ("-m", *TINY, "model=ghost_resnet20", "model.ratio=1,2,3", "trainer.max_epochs=1")
    wandb = ("logger=wandb", "logger.wandb.offline=true", "logger.wandb.project=ghosts")
    assert command(*jobs, *wandb, "name=ratios", f"output_dir={outputs}") == 0
    return outputs / "ratios"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a search recorded offline: of two trials that pause after an epoch, one goes on, and is tested."""
    outputs = tmp_path_factory.mktemp("outputs")
    data = (
        "datamodule.validate_on=holdout",
        "datamodule.holdout_fraction=0.5",
        "callbacks.min_seconds_between_saves=0",
    )
    space = ("optimizer.lr=tag(log,interval(0.001,0.1))", "optimizer=choice(sgd_nesterov,adamw)")
    search = ("search=random", "search.trials=2", "search.rungs=[1]", "search.factor=2", "search.test_seeds=[7]")
    wandb = ("logger=wandb", "logger.wandb.offline=true", "logger.wandb.project=ghosts", "logger.wandb.tags=[mine]")
    assert command("-m", *TINY, *data, *space, *search, *wandb, "name=tuned", f"output_dir={outputs}") == 0
    return outputs / "tuned"


def dashboard(sweep: Path) -> int:
    """Run `task=dashboard` for a sweep; returns the exit code."""
    return command("task=dashboard", f"name={sweep.name}", f"output_dir={sweep.parent}")


def panels(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every panel of a specification."""
    if isinstance(node, dict):
        if "viewType" in node:
            yield node
        node = list(node.values())
    for child in node if isinstance(node, list) else ():
        yield from panels(child)


def named(panel: dict[str, Any]) -> set[str]:
    """Return the metrics and configuration keys of a panel, without W&B's prefixes."""
    config = panel["config"]
    if panel["viewType"] == "Parallel Coordinates Plot":
        found = [column["accessor"] for column in config["columns"]]
    else:
        several, single = NAMED[panel["viewType"]]
        found = [name for key in several for name in config[key]] + [config[key] for key in single if key in config]
    return {name.removeprefix("summary:").removeprefix("config:").replace(".value", "") for name in found}


def load_study(folder: Path) -> Study:
    """Load the study in a folder."""
    return build_study(folder.name, find_study(folder))


def test_sweep_is_three_runs_in_one_group(sweep: Path) -> None:
    began = {run.name: record.run for run in sweep.glob("ratio-*") for record in records(run) if record.HasField("run")}
    assert sorted(began) == ["ratio-1", "ratio-2", "ratio-3"]
    assert {run.run_group for run in began.values()} == {"ratios"}
    assert {run.job_type for run in began.values()} == {"fit"}
    assert {run.project for run in began.values()} == {"ghosts"}
    assert len({run.run_id for run in began.values()}) == 3
    assert [config_of(sweep / name)["model"]["ratio"] for name in sorted(began)] == [1, 2, 3]
    assert [record.exit.exit_code for run in began for record in records(sweep / run) if record.HasField("exit")] == [
        0,
        0,
        0,
    ]


def test_specification_names_only_logged_metrics(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dashboard(sweep) == 0
    out = capsys.readouterr().out
    assert f"3 runs are not on W&B yet: wandb sync {sweep}/*/wandb/offline-run-*" in out
    assert "W&B: there is no W&B key (wandb login); when that is solved, repeat this command" in out
    specification = json.loads((sweep / "dashboard" / "dashboard.json").read_text())
    wanted = {
        "model.ratio",
        "macs",
        "images_per_second",
        "test/acc1",
        "epoch",
        "lr",
        "val/acc1",
        "val/loss",
        "train/loss",
    }
    wanted |= {"test/confusion", "test/misclassified"}
    for view in ("workspace", "report"):
        found = list(panels(specification[view]["spec"]))
        assert len(found) == 10
        assert set[str]().union(*map(named, found)) == wanted
        assert specification[view]["project"] == "ghosts"
        text = json.dumps(specification[view])
        assert all(f'"op": "=", "value": "{value}"' in text for value in ("ratios", "fit"))
    for run in sweep.glob("ratio-*"):
        logged = {key for row in rows(run) for key in row} | summary_of(run).keys() | flatten(config_of(run)).keys()
        assert wanted <= logged, wanted - logged


def test_trials_have_rung_and_state_as_tags(searched: Path) -> None:
    tags: dict[str, list[str]] = {}
    for path in sorted(searched.glob("t*_seed-*")):
        *_, last = (record.run for record in records(path) if record.HasField("run"))
        assert (last.run_group, last.job_type) == ("tuned", "fit")
        tags[path.name] = [tag for tag in last.tags if tag not in ("resnet20", "fake", "search", "mine")]
        assert len(last.tags) == len(tags[path.name]) + 4
    paused, gone_on = sorted(("trial-0000_seed-0", "trial-0001_seed-0"), key=lambda name: len(tags[name]), reverse=True)
    assert tags[paused] == [paused.partition("_")[0], "rung-1", "paused"]
    assert tags[gone_on] == [gone_on.partition("_")[0], "end"]
    assert tags[f"{gone_on.replace('trial', 'test').partition('_')[0]}_seed-7"] == [
        gone_on.partition("_")[0],
        "fresh-seed",
    ]


def test_dashboard_of_a_search_compares_its_trials(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dashboard(searched) == 0
    assert "3 runs are not on W&B yet" in capsys.readouterr().out
    specification = json.loads((searched / "dashboard" / "dashboard.json").read_text())
    wanted = {"optimizer.lr", "choices.optimizer", "val/acc1", "val/loss", "train/loss", "lr", "epoch"}
    for view in ("workspace", "report"):
        found = {panel["viewType"]: panel for panel in panels(specification[view]["spec"])}
        assert set[str]().union(*map(named, panels(specification[view]["spec"]))) == wanted
        columns = found["Parallel Coordinates Plot"]["config"]["columns"]
        assert [(one["accessor"], one.get("log")) for one in columns] == [
            ("config:optimizer.value.lr", True),
            ("config:choices.value.optimizer", None),
            ("summary:val/acc1", None),
        ]
        assert found["Parameter Importance"]["config"]["targetKey"] == "val/acc1"
        assert found["Scatter Plot"]["config"]["xAxisLogScale"] is True
        text = json.dumps(specification[view])
        assert '"op": "NIN", "value": ["fresh-seed"]' in text
        assert '"op": "=", "value": "tuned"' in text
    assert specification["report"]["title"] == "tuned: a search"
    assert "best of 2 trials is optimizer.lr = " in json.dumps(specification["report"])
    for run in searched.glob("trial-*"):
        logged = {key for row in rows(run) for key in row} | flatten(config_of(run)).keys()
        assert wanted <= logged, wanted - logged


def test_dashboard_with_key_saves_workspace_and_report(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Any] = []
    for view in (Workspace, Report):
        monkeypatch.setattr(view, "save", lambda self: saved.append(self) or self)
        monkeypatch.setattr(view, "url", property(lambda self: f"https://wandb.example.org/{type(self).__name__}"))
    monkeypatch.setattr("wandb.Api", lambda: type("Api", (), {"default_entity": "somebody"}))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr("ghostexp.tasks.dashboard.find_problem", lambda: None)
    assert dashboard(sweep) == 0
    assert [(type(view), view.entity, view.project) for view in saved] == [
        (Workspace, "somebody", "ghosts"),
        (Report, "somebody", "ghosts"),
    ]
    assert "https://wandb.example.org/Report" in capsys.readouterr().out
    assert json.loads((sweep / "dashboard" / "result.json").read_text())["workspace"].endswith("/Workspace")


def test_dashboard_wandb_error_is_one_line(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Workspace) -> None:
        raise ValueError("Project not found")

    monkeypatch.setattr(Workspace, "save", refuse)
    monkeypatch.setattr("wandb.Api", lambda: type("Api", (), {"default_entity": "somebody"}))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr("ghostexp.tasks.dashboard.find_problem", lambda: None)
    assert dashboard(sweep) == 1
    err = capsys.readouterr().err
    assert err == "error: task=dashboard: W&B failed (ValueError: Project not found)\n"


def test_dashboard_without_a_connection_writes_the_specification(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nothing listens there
    assert dashboard(sweep) == 0
    assert "W&B: http://127.0.0.1:9 cannot be reached" in capsys.readouterr().out
    assert json.loads((sweep / "dashboard" / "result.json").read_text())["workspace"] is None


def test_dashboard_without_extra_is_one_line(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "ghostexp.report.wandb_dashboard")
    monkeypatch.delattr("ghostexp.report.wandb_dashboard", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "wandb_workspaces"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert dashboard(sweep) == 1
    err = capsys.readouterr().err
    assert err == 'error: task=dashboard: needs wandb-workspaces; pip install "ghostexp[dashboard]"\n'


def logged_study(folder: Path, loggers: Sequence[Mapping[str, Any]], name: str | None = None) -> None:
    """Write a fake study with a variant for each W&B logger configuration; an empty one is not logged."""
    fake_runs.study(folder, {ratio + 1: [90.0 - ratio] for ratio in range(len(loggers))}, name)
    for run, logger in zip(sorted(folder.glob("ratio-*")), loggers, strict=True):
        directory = RunDirectory(run)
        entry = {"wandb": {**logger, "group": None}} if logger else {"csv": {}}
        directory.write_config(directory.read_config() | {"logger": entry})


@pytest.mark.parametrize(
    ("loggers", "wanted"),
    [
        ([{}, {}], "none of the runs was logged to W&B; train with logger=wandb"),
        ([{"project": "a", "entity": None}, {"project": "b", "entity": "us"}], "several W&B projects (a, us/b)"),
    ],
)
def test_dashboard_needs_runs_in_one_project(
    loggers: list[dict[str, Any]], wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logged_study(tmp_path / "outputs" / "ratios", loggers)
    assert command("task=dashboard", "name=ratios") == 1
    assert wanted in capsys.readouterr().err


def test_dashboard_of_study(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "ratio_ablation"
    logged_study(folder, [{"project": "a", "entity": "us"}] * 2, "ratio_ablation")
    assert command("task=dashboard", "study=ratio_ablation", "task.title=Ratios") == 0
    specification = json.loads((folder / "dashboard" / "dashboard.json").read_text())
    assert specification["report"]["title"] == "Ratios"
    assert "s = 2" in json.dumps(specification["report"])
    assert not (folder / "report").exists()


def test_panels_show_published_values(tmp_path: Path) -> None:
    choices = {"model": "ghost_resnet56", "datamodule": "cifar10"}
    for ratio in (1, 2):
        run = fake_runs.start(tmp_path / f"ratio-{ratio}", 0, {"model.ratio": ratio, "model.dw_size": 1}, choices)
        fake_runs.finish(run, 92.0 + ratio)
    results = build_panels(load_study(tmp_path))["Results"]
    (text,) = [panel.markdown for panel in results if hasattr(panel, "markdown")]
    assert "| s = 2 | paper | 92.70 |" in text


def test_panels_group_by_non_numeric_keys(tmp_path: Path) -> None:
    for name in ("cosine", "onecycle"):
        fake_runs.finish(fake_runs.start(tmp_path / name, 0, {}, {"scheduler": name}), 90.0)
    found = build_panels(load_study(tmp_path))
    axes = [panel.x for panel in found["Results"] if type(panel).__name__ == "ScatterPlot"]
    assert [axis.name for axis in axes] == ["macs", "images_per_second"]
    assert {panel.groupby.name for panel in found["Learning curves"]} == {"choices.scheduler"}


def test_filters_without_group_name_each_run(tmp_path: Path) -> None:
    runs = [fake_runs.start(tmp_path / name, 0, {}, {"scheduler": name}) for name in ("cosine", "onecycle")]
    ids = []
    for run in runs:
        fake_runs.finish(run, 90.0)
        config = run.read_config() | {"logger": {"wandb": {"project": "a", "entity": None, "group": None}}}
        run.write_config(config)
        ids.append(run_identity(run.path, config))
    (found,) = study_dashboard(load_study(tmp_path)).filters
    assert (found.key.name, found.op, sorted(found.value)) == ("ID", "IN", sorted(ids))


def test_filters_name_the_group_as_the_logger_does(tmp_path: Path) -> None:
    group = "a" * 200  # the logger shortens it to the server's limit
    run = fake_runs.start(tmp_path / "run", 0, {})
    fake_runs.finish(run, 90.0)
    run.write_config(run.read_config() | {"logger": {"wandb": {"project": "a", "entity": None, "group": group}}})
    found = study_dashboard(load_study(tmp_path)).filters
    assert [(one.key.name, one.op, one.value) for one in found] == [
        ("Group", "=", shorten_name(group)),
        ("JobType", "=", "fit"),
    ]


def test_page_of_study_without_finished_run(tmp_path: Path) -> None:
    fake_runs.start(tmp_path / "ratio-1", 0, {})
    assert build_page_blocks(load_study(tmp_path)) == ["No run is finished yet."]
