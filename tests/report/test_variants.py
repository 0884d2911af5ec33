"""Status of runs in a report, variants, and their baselines."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from ghostexp.report.build_study import build_study
from ghostexp.report.load_runs import RunStatus, find_runs, find_study
from ghostexp.report.readme import sweep_command
from ghostexp.report.tables import run_rows
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
    assert sweep_command(find_study(folder), ["model.ratio"]) == wanted


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
    assert sweep_command(find_study(tmp_path), ["model.ratio"]) == wanted


@pytest.mark.parametrize(("folder", "shown"), [("/home/mine/conf", "conf"), ("/elsewhere/conf", "DIR")])
def test_sweep_command_has_config_dir(folder: str, shown: str, tmp_path: Path) -> None:
    record = study(tmp_path, {1: [95.0]}, None) / "ratio-1_seed-0" / ".hydra"
    record.mkdir()
    (record / "overrides.yaml").write_text(yaml.safe_dump(["name=mine"]))
    sources = [{"path": "/package/conf", "provider": "main"}, {"path": folder, "provider": "command-line"}]
    hydra = {"hydra": {"runtime": {"cwd": "/home/mine", "config_sources": sources}}}
    (record / "hydra.yaml").write_text(yaml.safe_dump(hydra))
    command = sweep_command(find_study(tmp_path), [])
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
