"""Status of runs in a report, variants, and their baselines."""

import itertools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from ghostexp.report.build_study import build_study
from ghostexp.report.curves import curve_panels
from ghostexp.report.load_runs import RunStatus, find_runs, find_study
from ghostexp.report.plot_style import axis_key, group_series, tick_labels
from ghostexp.report.readme import sweep_command
from ghostexp.report.tables import baseline_label, run_rows
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.metrics import Metric
from tests.report.fake_runs import finish, start, study

RATIOS = {1: [95.0, 94.0, 96.0], 2: [94.0, 94.5, 95.0], 10: [90.0, 91.0, 92.5]}


def test_variants_are_sorted_and_paired_with_ratio_1(tmp_path: Path) -> None:
    found = build_study("mine", find_study(study(tmp_path, {10: RATIOS[10], 2: RATIOS[2], 1: RATIOS[1]})))
    assert [variant.label for variant in found.variants] == ["s = 1", "s = 2", "s = 10"]
    assert [variant.accuracy.mean for variant in found.variants] == pytest.approx([95.0, 94.5, 91.16667], abs=1e-4)
    ratio_one, _, ten = found.variants
    assert ratio_one.baseline is None
    assert ten.baseline is ratio_one
    assert ten.difference is not None
    assert ten.difference.differences == {0: -5.0, 1: -3.0, 2: -3.5}


def test_runs_in_no_variant_have_status_and_note(tmp_path: Path) -> None:
    folder = study(tmp_path / "study", RATIOS)
    (folder / "ratio-2_seed-2" / "result.json").unlink()
    unfinished = folder / "ratio-2_seed-2"
    failed = start(folder / "ratio-10_seed-2", 2, {"model.ratio": 10})
    failed.result.unlink()
    failed.write_failure(RuntimeError("x"), "the loss of step 6 is not a finite number")
    finish(start(folder / "ratio-3_seed-0", 0, {"model.ratio": 3, "trainer.max_epochs": 9}), 99.0)
    finish(start(folder / "ratio-1_again", 0, {"model.ratio": 1}), 10.0)
    (folder / "ratio-1_seed-2" / "result.json").write_text("{")
    old = start(folder / "ratio-1_seed-7", 7, {})
    old.write_config({key: value for key, value in old.read_config().items() if key != "choices"})
    (folder / "notes").mkdir()
    record = folder / "sweep.yaml"
    jobs = yaml.safe_load(record.read_text())["jobs"] | {"ratio-4_seed-0": ["model.ratio=4", "seed=0"]}
    record.write_text(yaml.safe_dump({"study": "x", "jobs": jobs}, sort_keys=False))
    found = build_study("study", find_study(folder))
    states = {run.name: (run.state, run.note) for run in found.others}
    assert states.pop("ratio-1_seed-2")[0] is RunStatus.UNREADABLE
    assert states == {
        unfinished.name: (RunStatus.UNFINISHED, "3 of 3 epochs; still running, or to be continued by resume="),
        "ratio-10_seed-2": (RunStatus.FAILED, "the loss of step 6 is not a finite number"),
        "ratio-3_seed-0": (RunStatus.INCOMPATIBLE, "trainer.max_epochs is 9, not 3"),
        "ratio-1_again": (RunStatus.DUPLICATE, "same variant and seed as ratio-1_seed-0, which is used"),
        "ratio-4_seed-0": (RunStatus.MISSING, "not started"),
        "ratio-1_seed-7": (RunStatus.UNREADABLE, "ValueError: config.yaml has no choices"),
    }
    assert [(variant.label, variant.accuracy.n) for variant in found.variants] == [
        ("s = 1", 2),
        ("s = 2", 2),
        ("s = 10", 2),
    ]
    assert found.variants[0].accuracy.mean == 94.5


def test_values_of_swept_group_keep_runs_compatible(tmp_path: Path) -> None:
    jobs = {}
    for name, rise in (("cosine", 0.0), ("onecycle", 0.3)):
        for seed in (0, 1):
            jobs[f"{name}_{seed}"] = [f"scheduler={name}", f"seed={seed}"]
            finish(
                start(tmp_path / f"{name}_{seed}", seed, {"scheduler.pct_start": rise}, {"scheduler": name}),
                90.0 + seed,
            )
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"study": None, "jobs": jobs}))
    found = build_study("mine", find_study(tmp_path))
    assert found.others == []
    assert [variant.label for variant in found.variants] == ["cosine", "onecycle"]
    assert found.variants[1].baseline is found.variants[0]  # without s = 1, the first


def test_baseline_matches_other_keys(tmp_path: Path) -> None:
    jobs = {}
    for ratio in (2, 1):
        for width in (1, 3):
            jobs[f"{ratio}_{width}"] = [f"model.ratio={ratio}", f"model.dw_size={width}", "seed=0"]
            run = start(tmp_path / f"{ratio}_{width}", 0, {"model.ratio": ratio, "model.dw_size": width})
            finish(run, 90.0 + 3 * ratio + width)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"study": None, "jobs": jobs}))
    variants = {variant.label: variant for variant in build_study("mine", find_study(tmp_path)).variants}
    for width in (1, 3):
        assert variants[f"s = 2, d = {width}"].baseline is variants[f"s = 1, d = {width}"]
    requested = {
        variant.label: variant for variant in build_study("mine", find_study(tmp_path), {"model.dw_size": 1}).variants
    }
    assert requested["s = 2, d = 3"].baseline is requested["s = 2, d = 1"]
    with pytest.raises(ValueError, match=r"7\}: must be values of a variant; there are s = 1, d = 1; s = 1, d = 3; "):
        build_study("mine", find_study(tmp_path), {"model.dw_size": 7})


def test_find_runs_varied_keys_are_all_that_differ(tmp_path: Path) -> None:
    for seed in (0, 1):
        finish(start(tmp_path / "a" / str(seed), seed, {"optimizer.lr": 0.1}), 90.0 + seed)
        finish(start(tmp_path / "b" / str(seed), seed, {"optimizer.lr": 0.2}), 92.0 + seed)
        ratio_one = {"model": {"shortcut": "A"}, "optimizer.lr": 0.2}
        finish(start(tmp_path / "c" / str(seed), seed, ratio_one, {"model": "resnet20"}), 93.0 + seed)
    found = build_study(
        "mine", find_runs([f"{tmp_path}/a/*", str(tmp_path / "b"), f"{tmp_path}/c/0", f"{tmp_path}/c/1"])
    )
    assert found.keys == ("model", "optimizer.lr")
    assert [run.name for run in found.variants[0].runs] == ["a/0", "a/1"]
    labels = ["ghost_resnet20, lr = 0.1", "ghost_resnet20, lr = 0.2", "resnet20, lr = 0.2"]
    assert [(variant.label, variant.accuracy.n) for variant in found.variants] == [(label, 2) for label in labels]


def test_find_runs_in_a_directory_with_brackets(tmp_path: Path) -> None:
    finish(start(tmp_path / "a[1]" / "run", 0, {}), 90.0)
    assert [run.name for run in find_runs([f"{tmp_path}/a[1]/run"]).runs] == ["a[1]/run"]
    assert len(find_runs([f"{tmp_path}/a*/run"]).runs) == 1


def test_find_runs_sweep_directory_has_missing_jobs(tmp_path: Path) -> None:
    shutil.rmtree(study(tmp_path / "mine", RATIOS) / "ratio-2_seed-0")
    found = build_study("mine", find_runs([str(tmp_path / "mine")]))
    assert [(run.name, run.state) for run in found.others] == [("ratio-2_seed-0", RunStatus.MISSING)]
    assert len(build_study("mine", find_runs([f"{tmp_path}/mine/*"])).others) == 0


@pytest.mark.parametrize(
    ("name", "overrides", "wanted"),
    [
        ("ratio_ablation", ["study=ratio_ablation"], "python -m ghostexp study=ratio_ablation seed=0,1"),
        (None, ["name=mine"], "python -m ghostexp -m model.ratio=1,2 seed=0,1 name=mine"),
        (
            "ratio_ablation",
            ["study=ratio_ablation", "output_dir=/of/mine", "datamodule.root=/of/mine", "trainer.max_epochs=3"],
            "python -m ghostexp study=ratio_ablation datamodule.root=DIR trainer.max_epochs=3 seed=0,1",
        ),
    ],
)
def test_sweep_command_leaves_out_machine_paths(
    name: str | None, overrides: list[str], wanted: str, tmp_path: Path
) -> None:
    folder = study(tmp_path, {1: [95.0, 94.0], 2: [94.0, 93.0]}, name)
    (folder / "ratio-1_seed-0" / ".hydra").mkdir()
    record = [overrides[0], "model.ratio=1", "seed=0", *overrides[1:]]
    (folder / "ratio-1_seed-0" / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(record))
    assert sweep_command(find_study(folder)) == wanted


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("mine", "python -m ghostexp study=mine seed=3"),
        (None, "python -m ghostexp -m model.ratio=1,2 study=mine seed=3"),
    ],
)
def test_sweep_command_keeps_seed_that_no_job_names(name: str | None, wanted: str, tmp_path: Path) -> None:
    jobs = {f"ratio-{ratio}": [f"model.ratio={ratio}"] for ratio in (1, 2)}
    for ratio in (1, 2):
        run = start(tmp_path / f"ratio-{ratio}", 3, {"model.ratio": ratio})
        (run.path / ".hydra").mkdir()
        record = ["study=mine", f"model.ratio={ratio}", "seed=3"]
        (run.path / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(record))
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"study": name, "jobs": jobs}))
    assert sweep_command(find_study(tmp_path)) == wanted


@pytest.mark.parametrize(
    ("added", "typed", "wanted"),
    [
        ({"model.dw_size": (1, 3)}, ["trainer.max_epochs=9"], "trainer.max_epochs=9 model.dw_size=1,3 seed=0"),
        ({}, ["optimizer.lr=0.2"], "optimizer.lr=0.2 seed=0"),
    ],
)
def test_sweep_command_has_what_was_typed_beside_the_grids_of_a_study(
    added: dict[str, tuple[int, ...]], typed: list[str], wanted: str, tmp_path: Path
) -> None:
    """A grid of s = 2, 4 and a second one of s = 1 at another rate."""
    jobs = {}
    for number, (grid, side) in enumerate(
        itertools.product((["2"], ["4"], ["1", "0.4"]), added.get("model.dw_size", (3,)))
    ):
        changed = dict(zip(["model.ratio", "optimizer.lr"], grid, strict=False)) | {"model.dw_size": side}
        varied = {key: value for key, value in changed.items() if key != "model.dw_size" or added}
        jobs[f"run-{number}"] = [*(f"{key}={value}" for key, value in varied.items()), "seed=0"]
        record = start(tmp_path / f"run-{number}", 0, changed).path / ".hydra"
        record.mkdir()
        (record / "overrides.yaml").write_text(yaml.safe_dump([*jobs[f"run-{number}"], "study=mine", *typed]))
        grids = {"params": {"model.ratio": "2,4"}, "baseline_grid": {"model.ratio": 1, "optimizer.lr": 0.4}}
        (record / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"sweeper": grids}}))
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"study": "mine", "jobs": jobs}))
    assert sweep_command(find_study(tmp_path)) == f"python -m ghostexp study=mine {wanted}"


def test_sweep_command_is_not_that_of_a_copied_run(tmp_path: Path) -> None:
    folder = study(tmp_path, {1: [95.0], 2: [94.0]}, "mine")
    for number, name in ((1, "other"), (2, "mine")):
        assert sweep_command(find_study(folder)) == (None if number == 1 else "python -m ghostexp study=mine seed=0")
        record = folder / f"ratio-{number}_seed-0" / ".hydra"
        record.mkdir()
        overrides = [f"model.ratio={number}", "seed=0", f"study={name}", "trainer.max_epochs=3"]
        (record / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    assert sweep_command(find_study(folder)) == "python -m ghostexp study=mine trainer.max_epochs=3 seed=0"


@pytest.mark.parametrize(("folder", "shown"), [("/home/mine/conf", "conf"), ("/elsewhere/conf", "DIR")])
def test_sweep_command_has_config_dir(folder: str, shown: str, tmp_path: Path) -> None:
    record = study(tmp_path, {1: [95.0]}, None) / "ratio-1_seed-0" / ".hydra"
    record.mkdir()
    (record / "overrides.yaml").write_text(yaml.safe_dump(["name=mine"]))
    sources = [{"path": "/package/conf", "provider": "main"}, {"path": folder, "provider": "command-line"}]
    hydra = {"hydra": {"runtime": {"cwd": "/home/mine", "config_sources": sources}}}
    (record / "hydra.yaml").write_text(yaml.safe_dump(hydra))
    command = sweep_command(find_study(tmp_path))
    assert command == f"python -m ghostexp --config-dir {shown} -m model.ratio=1 seed=0 name=mine"


def test_find_runs_without_training_runs_raises(tmp_path: Path) -> None:
    start(tmp_path / "test", 0, {"task.name": "test"})
    with pytest.raises(ValueError, match=r"task\.runs=.*none.*: must match directories of training runs"):
        find_runs([f"{tmp_path}/none*"])
    with pytest.raises(ValueError, match="no training runs found; set study=NAME"):
        find_study(tmp_path)


def test_labels_omit_common_ratio(tmp_path: Path) -> None:
    jobs = {}
    for ratio, side in ((2, 1), (2, 5), (1, 3)):
        jobs[f"{ratio}_{side}"] = [f"model.dw_size={side}", f"model.ratio={ratio}", "seed=0"]
        finish(start(tmp_path / f"{ratio}_{side}", 0, {"model.ratio": ratio, "model.dw_size": side}), 90.0)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"study": None, "jobs": jobs}))
    variants = build_study("mine", find_study(tmp_path)).variants
    assert [variant.label for variant in variants] == ["d = 1", "s = 1", "d = 5"]
    assert [variant.baseline and variant.baseline.label for variant in variants] == ["s = 1", None, "s = 1"]


def sweep_of(folder: Path, key: str, runs: Sequence[tuple[str, int, Mapping[str, object]]]) -> None:
    """Write finished runs with values of a swept key, seeds, and changes of the configuration."""
    jobs = {}
    for number, (value, seed, changes) in enumerate(runs):
        jobs[f"run-{number}"] = [f"{key}={value}", f"seed={seed}"]
        finish(start(folder / f"run-{number}", seed, changes), 90.0 + number)
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"study": None, "jobs": jobs}))


@pytest.mark.parametrize("key", ["model@model.network", "pretrained", "experiment"])
def test_options_that_are_no_values_of_a_run_are_variants(tmp_path: Path, key: str) -> None:
    options = [(name, seed, {"model.network.shortcut": name}) for name in ("A", "B") for seed in (0, 1)]
    sweep_of(tmp_path, key, options)
    found = build_study("mine", find_study(tmp_path))
    assert [(variant.label, variant.accuracy.n) for variant in found.variants] == [("A", 2), ("B", 2)]
    assert [row[key] for row in run_rows(found)] == ["A", "A", "B", "B"]


@pytest.mark.parametrize(
    ("key", "values", "fixed"),
    [
        ("datamodule.batch_size", (64, 128), {"trainer.devices": 2}),
        ("trainer.devices", (1, 2), {}),
        ("trainer.devices", (2, 4), {}),
    ],
)
def test_runs_on_several_devices_are_comparable(
    tmp_path: Path, key: str, values: tuple[int, int], fixed: dict[str, object]
) -> None:
    sweep_of(tmp_path, key, [(str(value), 0, {key: value, **fixed}) for value in values])
    for found in (find_study(tmp_path), find_runs([f"{tmp_path}/run-*"])):
        assert len(build_study("mine", found).variants) == 2


def test_planned_network_is_not_ordinary(tmp_path: Path) -> None:
    finish(start(tmp_path / "ghost", 0, {}), 90.0)
    finish(start(tmp_path / "thinner", 0, {"model.ratio": 4}), 90.0)
    for name, plan in (("plain", None), ("planned", {"name": "fast", "layers": {"conv1": {"ratio": 2}}})):
        run = start(tmp_path / name, 0, {"model.plan": plan}, {"model": "resnet20"})
        config = run.read_config()
        del config["model"]["ratio"]
        run.write_config(config)
        finish(run, 91.0)
    found = build_study("mine", find_runs([str(tmp_path)]))
    ordinary = {variant.runs[0].directory.path.name: variant.is_ordinary for variant in found.variants}
    assert ordinary == {"ghost": False, "thinner": False, "plain": True, "planned": False}


SCHEDULES = {"constant": 0.1, "cosine": 0.1, "onecycle": 0.4}


def study_of_schedules(folder: Path, seeds: int = 2) -> Path:
    """Write a finished study of schedules and ratios, in which one cycle has another rate, the baseline."""
    jobs = {}
    for (ratio, (name, rate)), seed in itertools.product(itertools.product((1, 2), SCHEDULES.items()), range(seeds)):
        own = [f"optimizer.lr={rate}"] if name == "onecycle" else []
        run = f"{ratio}-{name}-{seed}"
        jobs[run] = [f"model.ratio={ratio}", f"scheduler={name}", *own, f"seed={seed}"]
        changes = {"model.ratio": ratio, "optimizer.lr": rate}
        finish(start(folder / run, seed, changes, {"scheduler": name}), 90.0 - ratio + 10 * rate)
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"study": "schedules", "jobs": jobs}, sort_keys=False))
    return folder


def test_baseline_with_another_rate_is_that_of_the_same_ratio(tmp_path: Path) -> None:
    found = build_study("mine", find_study(study_of_schedules(tmp_path)), {"scheduler": "onecycle"})
    pairs = {variant.label: variant.baseline.label for variant in found.variants if variant.baseline}
    assert pairs == {
        f"s = {ratio}, {name}, lr = 0.1": f"s = {ratio}, onecycle, lr = 0.4"
        for ratio in (1, 2)
        for name in ("constant", "cosine")
    }
    assert baseline_label(found) == "scheduler = onecycle, lr = 0.4"
    axis = axis_key(found)
    assert axis == "scheduler"
    assert {name: len(variants) for name, variants in group_series(found).items()} == {"s = 1": 3, "s = 2": 3}
    assert tick_labels(found, axis) == ["constant\nlr = 0.1", "cosine\nlr = 0.1", "onecycle\nlr = 0.4"]
    assert list(curve_panels(found)) == ["s = 1", "s = 2"]


@pytest.mark.parametrize("name", ["cosine", "onecycle"])
def test_run_that_has_not_started_varies_no_key_that_its_sweep_does_not_name(tmp_path: Path, name: str) -> None:
    folder = study_of_schedules(tmp_path)
    shutil.rmtree(folder / f"1-{name}-1")
    found = build_study("mine", find_study(folder), {"scheduler": name})
    assert sum(variant.baseline is not None for variant in found.variants) == 4


def test_labels_omit_what_all_have_in_common(tmp_path: Path) -> None:
    folder = study_of_schedules(tmp_path)
    for ratio, name in itertools.product((1, 2), ("constant", "cosine")):
        for seed in (0, 1):
            (folder / f"{ratio}-{name}-{seed}" / "result.json").unlink()
    found = build_study("mine", find_study(folder))
    assert [variant.label for variant in found.variants] == ["s = 1", "s = 2"]


def test_runs_with_other_seeds_of_the_data_repeat_a_run(tmp_path: Path) -> None:
    jobs = {}
    for ratio, seed in itertools.product((1, 2), (0, 1, 2)):
        jobs[f"{ratio}-{seed}"] = [f"model.ratio={ratio}", f"datamodule.seed={seed}"]
        run = start(tmp_path / f"{ratio}-{seed}", 0, {"model.ratio": ratio, "datamodule.seed": seed})
        finish(run, 90.0 - ratio * seed)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"study": None, "jobs": jobs}))
    found = build_study("mine", find_study(tmp_path))
    assert found.others == []
    two = found.variants[1]
    assert two.difference is not None
    assert two.difference.differences == {0: 0.0, "0, datamodule.seed=1": -1.0, "0, datamodule.seed=2": -2.0}


def test_runs_of_several_monitors_are_compared_by_accuracy(tmp_path: Path) -> None:
    for monitor in ("acc1", "loss"):
        run = start(tmp_path / monitor, 0, {"monitor": monitor})
        finish(run, 90.0, monitor=monitor, monitor_mode="min" if monitor == "loss" else "max")
    jobs = {monitor: [f"monitor={monitor}", "seed=0"] for monitor in ("acc1", "loss")}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"study": None, "jobs": jobs}))
    found = build_study("mine", find_study(tmp_path))
    assert found.metric == Metric("test/acc1")
    assert [variant.accuracy.mean for variant in found.variants] == [90.0, 90.0]
    assert [row["accuracy"] for row in run_rows(found)] == [90.0, 90.0]
    test = {"test/loss": 0.3}
    finish(RunDirectory(tmp_path / "loss"), 90.0, monitor="loss", monitor_mode="min", metrics={"test": test})
    found = build_study("mine", find_study(tmp_path))
    assert [(run.name, run.state, run.note) for run in found.others] == [
        ("loss", RunStatus.INCOMPATIBLE, "has no test/acc1")
    ]
