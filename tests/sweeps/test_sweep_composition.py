"""Test the composition of sweep jobs: equal to Hydra's, fast, with keys of options and unique names."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ghostexp.__main__ import register_resolvers
from ghostexp.config.compose import CONF
from ghostexp.runs.directory import RunDirectory
from ghostexp.sweeps.deferred import defer
from ghostexp.sweeps.grid import Grid
from ghostexp.tasks.common import instantiate
from ghostexp.tasks.common.build_check import Checker, network_key
from tests.cli import command, finish

DRY_RUN = ("-m", "datamodule=fake", "dry_run=true", "name=sweep")


@pytest.fixture
def loader() -> Iterator[Any]:
    """Return Hydra's config loader."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def master(loader: Any, *overrides: str) -> DictConfig:
    """Compose a sweep with Hydra, before its jobs."""
    return loader.load_configuration("config", list(overrides), RunMode.MULTIRUN)


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=3", "model.ratio=4"],
        ["model=ghostnet", "model.width=0.5", "experiment=digits/full", "optimizer.lr=1e-3"],
        ["+model.extra={a:1,b:[2,3]}", "~scheduler.warmup_epochs", "++loss.label_smoothing=0.1", "+note='x=y'"],
        ["model=retinanet_ghostnet", "model@model.backbone=ghostnet_small", "datamodule=shapes", "logger=[csv,wandb]"],
        ["study=ratio_ablation", "model.ratio=2", "~logger"],
        ["loss={label_smoothing:0.2}", "data_dir=elsewhere", "datamodule=cifar10"],
    ],
)
def test_composer_matches_hydra(overrides: list[str], loader: Any) -> None:
    composed = master(loader)
    expected = loader.load_sweep_config(composed, overrides)
    grid = Grid(composed)
    parsed = [grid._parse(text) for text in overrides]
    for _ in range(2):  # the second time from the cache
        found, choices = grid.composer.compose(parsed)
        assert choices == expected.hydra.runtime.choices
        ours = OmegaConf.masked_copy(expected, [str(key) for key in found])
        assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(ours)
        assert [*found] == [key for key in expected if key != "hydra"]
    record = grid.composer.record(parsed, Path("there"))
    assert OmegaConf.create(record["overrides.yaml"]) == overrides
    hydra = OmegaConf.create(record["hydra.yaml"]).hydra
    assert hydra.runtime.output_dir == "there"
    assert hydra.overrides == expected.hydra.overrides


def test_composer_reads_files_once_per_choice_of_options(loader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    composed, loaded = master(loader, "seed=range(0,30)", "scheduler=step,cosine", "model.ratio=2,3"), []
    load = loader.load_sweep_config
    monkeypatch.setattr(loader, "load_sweep_config", lambda *args: loaded.append(args) or load(*args))
    jobs, errors, _ = Grid(composed).jobs()
    assert (len(jobs), errors, len(loaded)) == (120, [], 2)
    assert len({(job.config["seed"], job.config["model"]["ratio"]) for job in jobs}) == 60


def test_checker_builds_each_distinct_network_once(
    loader: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jobs, _, _ = Grid(master(loader, "optimizer.lr=0.1,0.2,0.3", "model.ratio=2,3", "seed=0,1")).jobs()
    built, build_network = [], instantiate.build_network
    monkeypatch.setattr(
        instantiate, "build_network", lambda *args, **options: built.append(args) or build_network(*args, **options)
    )
    checker, costs = Checker(), set()
    for job in sorted(jobs, key=lambda job: network_key(job.config)):
        costs.add(checker.check(job.config, RunDirectory(tmp_path)).params)
    assert (len(jobs), len(built), len(costs)) == (12, 2, 2)


def test_network_key_distinguishes_networks(loader: Any) -> None:
    def keys(*overrides: str) -> int:
        jobs, errors, _ = Grid(master(loader, *overrides)).jobs()
        assert errors == []
        return len({network_key(job.config) for job in jobs})

    assert keys("model.ratio=2,3") == keys("compile=true,false") == keys("datamodule=digits,cifar10") == 2
    assert keys("optimizer.lr=1,2", "seed=0,1", "datamodule.batch_size=16,32", "callbacks.ema=null,0.9") == 1


@pytest.mark.slow
def test_dry_run_of_a_thousand_jobs_takes_seconds() -> None:
    clock = time.monotonic()
    code, out, err = finish("-m", "seed=range(0,200)", "model.ratio=2,3,4,5,6", "dry_run=true")
    assert code == 0, err
    assert "1000 jobs: 1000 pending" in out
    assert time.monotonic() - clock < 60  # 8 on two free cores


@pytest.mark.parametrize(
    ("arguments", "jobs"),
    [
        (["model=ghostnet,ghostnetv2", "model.width=0.5"], ["model-ghostnet", "model-ghostnetv2"]),
        (["model.width=0.5,0.75", "model=ghostnet"], ["width-0.5", "width-0.75"]),
        (["scheduler=step", "scheduler.step_size=2", "seed=0"], ["job"]),
    ],
)
def test_key_that_all_swept_options_have_can_be_set(
    arguments: list[str], jobs: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command(*DRY_RUN, *arguments) == 0
    out = capfd.readouterr().out
    assert all(f"pending    {tmp_path / 'outputs' / 'sweep' / name} " in out for name in jobs)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (
            ["scheduler=step,cosine", "scheduler.step_size=2"],
            "scheduler-cosine: scheduler=cosine: has no step_size, which scheduler.step_size=2 sets; there is",
        ),
        (
            ["datamodule=fake,image_folder", "datamodule.root=T", "datamodule.num_classes=3"],
            "datamodule-fake: datamodule=fake: has no root, which datamodule.root=T sets; there is ",
        ),
        (
            ["model=ghostnet,ghostnetv2", "model.wdth=1"],
            "model-ghostnet: model=ghostnet: has no wdth",
        ),
        (
            ["model=ghostnet,ghostnetv2", "+model.width=0.5"],
            "model-ghostnet and 1 others: +model.width=0.5: model.width already exists; leave out the +",
        ),
        (["seed=0,1", "model.width=0.5"], "model.width=0.5: model has no width"),
    ],
)
def test_error_names_option_without_the_key(
    arguments: list[str], wanted: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command("-m", *arguments, "dry_run=true", "name=sweep") == 1
    assert f"error: {wanted}" in capfd.readouterr().err


def test_defer_keeps_overrides_of_swept_options_for_the_jobs() -> None:
    assert defer(["-m", "seed=0,1", "model.ratio=2"]) == ["-m", "seed=0,1", "model.ratio=2"]
    arguments = ["-m", "model=a,b", "model.ratio=2", "seed=1", "task.output_dir=x", "hydra.verbose=true", "~model.a"]
    typed = "'model=a,b','model.ratio=2','seed=1','task.output_dir=x','~model.a'"
    rest = ["-m", "model=a,b", "seed=1", "task.output_dir=x", "hydra.verbose=true"]
    assert defer(arguments) == [f"+hydra.sweeper.typed=[{typed}]", *rest]
    assert defer([*arguments, "--cfg", "job"]) == [*arguments, "--cfg", "job"]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ("'w/数据/a.pth','w/图像/a.pth'", ["weights-w-a.pth-", "weights-w-a.pth-"]),
        ("w/a.pth,w-a.pth", ["weights-w-a.pth", "weights-w-a.pth-"]),
        (f"{'d' * 300}/a.pth,{'d' * 300}/b.pth", [f"weights-{'d' * 111}-", f"weights-{'d' * 111}-"]),
    ],
)
def test_jobs_with_different_values_have_different_names(values: str, names: list[str], loader: Any) -> None:
    jobs, errors, all_jobs = Grid(master(loader, f"model.weights={values}")).jobs()
    found = [job.name for job in jobs]
    assert errors == []
    assert list(all_jobs) == found
    assert len(set(found)) == 2
    assert all(name.startswith(start) and len(name) <= 128 for name, start in zip(found, names, strict=True))
    again, _, _ = Grid(master(loader, f"model.weights={values}")).jobs()
    assert [job.name for job in again] == found


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([f"name={'n' * 300}"], f"name={'n' * 20}...: must be at most 255 bytes long, got 300"),
        (["name=p%j", "hydra/launcher=submitit_local"], "p%j: must not contain %, which SLURM replaces"),
    ],
)
def test_invalid_name_is_an_error_before_any_job(
    arguments: list[str], wanted: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command("-m", "seed=0,1", *arguments) == 1
    assert wanted in capfd.readouterr().err
    assert not list(tmp_path.glob("outputs/*"))
