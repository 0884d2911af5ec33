"""`task=plan`, and trainings by its plan, through the command line."""

import csv
import json
import shlex
from pathlib import Path

import pytest
import torch._dynamo.config as dynamo
import yaml

from ghostexp.report.build_study import build_study
from ghostexp.report.load_runs import find_runs
from ghostexp.report.plan_report import draw_plan
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.fingerprint import fingerprint
from ghostexp.tasks.common.measure_setting import build_setting
from tests.cli import TINY, command, in_directory

NETWORK = ("model=resnet20", "datamodule=fake", "datamodule.image_size=8", "threads=1")
PLAN = (*NETWORK, "task=plan", "task.repeats=1", "task.batch_size=2")


@pytest.fixture(scope="module")
def plan_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("plan") / "run"
    assert command(*PLAN, "task.ratios=[2,4]", "task.goal=fewest_macs", "task.time_budget=9", in_directory(run)) == 0
    return run


def test_plan_measures_layers_and_networks(plan_run: Path) -> None:
    result = json.loads((plan_run / "result.json").read_text())
    rows = list(csv.DictReader((plan_run / "layers.csv").open()))
    assert len(rows) == 19 * 3
    plan = yaml.safe_load((plan_run / "plan.yaml").read_text())
    assert plan["name"] == "resnet20 fewest_macs"
    assert len(plan["layers"]) == 19  # any time is allowed: ghosts everywhere, of the ratio with fewest MACs
    assert {layer["ratio"] for layer in plan["layers"].values()} == {4}
    ordinary, everywhere, planned = result["networks"]
    assert planned["macs"] == 640 + sum(int(row["macs"]) for row in rows if row["planned"] == "True")
    assert planned["macs"] < everywhere["macs"] < ordinary["macs"]
    error = 100 * (planned["predicted_speedup"] / planned["speedup"] - 1)
    assert planned["error_percent"] == pytest.approx(error)
    page = (plan_run / "README.md").read_text()
    for text in (
        "19 of 19 convolutions",
        "| planned |",
        "`layer1.0.conv1` and 2 more",
        "training, 32-true, channels_last, 2 ",
    ):
        assert text in page
    assert f"python -m ghostexp {' '.join(NETWORK)} model.plan={plan_run}/plan.yaml" in page
    assert (plan_run / "plan.png").stat().st_size > 1000


def test_given_plan_is_measured(plan_run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("layers: {layer3.*: {ratio: 2}}")
    arguments = (f"model.plan={tmp_path / 'mine.yaml'}", "task.mode=inference", "trainer.precision=bf16-mixed")
    assert command(*PLAN, *arguments, in_directory(tmp_path / "run")) == 0
    assert "6 of 19 convolutions" in (tmp_path / "run" / "README.md").read_text()
    assert yaml.safe_load((tmp_path / "run" / "plan.yaml").read_text())["name"] == "mine"


def test_training_by_a_plan_records_it(plan_run: Path, tmp_path: Path) -> None:
    plans = {"first": "layer1.*: {ratio: 2}", "second": "layer1.*: {ratio: 4}"}
    for name, layers in plans.items():
        (tmp_path / f"{name}.yaml").write_text(f"layers: {{{layers}}}")
        short = (*TINY, "trainer.max_epochs=1", "trainer.limit_train_batches=1", in_directory(tmp_path / name))
        assert command(*short, f"model.plan={tmp_path / f'{name}.yaml'}") == 0
        (tmp_path / f"{name}.yaml").unlink()
    assert command("task=test", f"run={tmp_path / 'first'}") == 0  # without the file
    configs = [RunDirectory(tmp_path / name).read_config() for name in plans]
    assert configs[0]["model"]["plan"] == {"name": "first", "layers": {"layer1.*": {"ratio": 2}}}
    assert fingerprint(configs[0]) != fingerprint(configs[1])
    renamed = {**configs[0], "model": {**configs[0]["model"], "plan": {**configs[0]["model"]["plan"], "name": "x"}}}
    assert fingerprint(renamed) == fingerprint(configs[0])
    study = build_study("plans", find_runs([str(tmp_path / name) for name in plans]))
    assert [variant.label for variant in study.variants] == ["plan = first", "plan = second"]


def test_plan_of_a_run_trains_by_its_command(tmp_path: Path) -> None:
    short = (*TINY, "model=resnet20", "trainer.max_epochs=1", "trainer.limit_train_batches=1")
    run = tmp_path / "run"
    assert command(*short, in_directory(run)) == 0
    assert command("task=plan", f"run={run}", "task.repeats=1", "task.batch_size=2") == 0
    (page,) = run.rglob("README.md")
    (line,) = [line for line in page.read_text().splitlines() if line.startswith("python -m ghostexp")]
    assert line == shlex.join(["python", "-m", "ghostexp", *short, f"model.plan={page.parent / 'plan.yaml'}"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model.plan=nowhere.yaml",), "model.plan=nowhere.yaml: cannot be read (No such file or directory)"),
        (("model.plan={layers:{x:{ratio:2}}}",), "model.plan: x matches no convolution of the network; its 19 "),
        (("model=ghost_resnet20",), "model: ResNet has no convolution outside ghost modules"),
        (("task.ratios=[1]",), "task.ratios=[1]: must be an integer >= 2, or a list of such"),
        (("task.dw_sizes=[2]",), "task.dw_sizes=[2]: must be an odd integer >= 1, or a list of such"),
        (("task.goal=fewest_macs", "task.time_budget=0.01"), "task.time_budget=0.01: no plan is that fast"),
        (("trainer.precision=transformer-engine",), "trainer.precision=transformer-engine: task=plan must have one of"),
    ],
)
def test_bad_plan_command_is_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*PLAN, *arguments, in_directory(tmp_path / "run")) != 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert line.startswith(f"error: {message}")


def test_every_layer_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """All layers share the code of `nn.Module`: beyond the limit, torch would run them eagerly."""
    for name in ("recompile_limit", "accumulated_recompile_limit"):
        monkeypatch.setattr(dynamo, name, 8)
    trainer = {"precision": "32-true", "accelerator": "cpu", "devices": 1}
    task = {"batch_size": 2, "mode": "training"}
    build_setting({"trainer": trainer, "task": task, "compile": True, "channels_last": True})
    assert min(dynamo.recompile_limit, dynamo.accumulated_recompile_limit) > 1000


def test_plan_of_many_forms_is_drawn(tmp_path: Path) -> None:
    forms = [(1, 1), *((ratio, side) for ratio in (2, 3, 4, 5) for side in (1, 3, 5))]
    measured = {"ms": 1.0, "speedup": 1.1, "speedup_low": 1.0, "speedup_high": 1.2, "planned": False}
    rows = [
        {"layer": "conv1", "shape": "3 x 8 x 8", "ratio": ratio, "dw_size": side, **measured} for ratio, side in forms
    ]
    assert draw_plan(rows, "twelve forms", tmp_path / "plan.png").is_file()
