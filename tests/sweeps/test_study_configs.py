"""Test that recipes and studies compose and build, and that network costs match the papers."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ghostexp.__main__ import register_resolvers
from ghostexp.analysis.cost import Cost, backbone_macs, count_cost
from ghostexp.config.compose import CONF, resolve_config
from ghostexp.config.config_files import list_options
from ghostexp.report.published import PublishedResult, PublishedTable, read_published_tables
from ghostexp.runs.directory import RunDirectory
from ghostexp.sweeps.grid import Grid
from ghostexp.sweeps.jobs import SweepJob
from ghostexp.tasks.common import instantiate
from ghostexp.tasks.common.build_check import Checker
from tests.cli import command

RECIPES = list_options("experiment", CONF)
STUDIES = list_options("study", CONF)
BUILT: dict[str, Cost] = {}
ROWS = [
    pytest.param(table, row, id=f"{name}-{row.name}")
    for name, table in read_published_tables().items()
    for row in table.rows
    if row.ours
]


@contextmanager
def composed(*overrides: str) -> Iterator[DictConfig]:
    """Compose a command line with Hydra."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield GlobalHydra.instance().config_loader().load_configuration("config", list(overrides), RunMode.MULTIRUN)


def configuration(*overrides: str) -> dict[str, Any]:
    """Return the plain configuration of a run."""
    with composed(*overrides) as config:
        choices = config.hydra.runtime.choices
        return resolve_config(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]), choices)


def cost_of(config: dict[str, Any], folder: Path) -> Cost:
    """Return the cost of a configuration's network, cached across tests."""
    node = json.dumps([config["model"], config["datamodule"]["image_size"]], sort_keys=True)
    if node not in BUILT:
        with torch.device("meta"):
            BUILT[node] = Checker().build(config, RunDirectory(folder))
    instantiate.instantiate_node(config["scheduler"], "scheduler")(config["trainer"]["max_epochs"], 1)
    return BUILT[node]


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_builds_and_its_header_has_the_command(recipe: str, tmp_path: Path) -> None:
    assert cost_of(configuration(f"experiment={recipe}"), tmp_path).macs > 0
    assert f"python -m ghostexp experiment={recipe}" in (CONF / "experiment" / f"{recipe}.yaml").read_text()


def jobs_of(grid: Grid) -> list[SweepJob]:
    """Compose the jobs of a study, or the corners of its search."""
    if grid.composed.search is not None:
        return [job for some in grid.search_command().compose_corners().values() for job in some]
    jobs, errors, all_jobs = grid.jobs()
    assert errors == []
    assert len(all_jobs) >= len(jobs)
    return jobs


@pytest.mark.parametrize("study", STUDIES)
def test_every_job_of_a_study_builds(study: str, tmp_path: Path) -> None:
    with composed(f"study={study}", "seed=0") as config:
        jobs = jobs_of(Grid(config))
    assert len(jobs) >= 3
    assert len({str(job.config) for job in jobs}) == len(jobs)
    assert len({cost_of(job.config, tmp_path).params for job in jobs}) > 1
    assert f"python -m ghostexp study={study}" in (CONF / "study" / f"{study}.yaml").read_text()
    assert all(job.config["choices"]["study"] == study for job in jobs)


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_network_cost_matches_the_paper_or_is_listed_as_different(table: PublishedTable, row: PublishedResult) -> None:
    config = configuration(f"datamodule={table.datamodule}", *row.overrides)
    data, node = config["datamodule"], dict(config["model"])
    is_backbone = "backbone" in node  # the papers count the backbone of a detector
    node = node.get("backbone", node)
    node = {key: value for key, value in node.items() if key not in ("weights", "reset_head", "plan")}
    with torch.device("meta"):
        network = instantiate.instantiate_node(node, "model")
    if hasattr(network, "reparameterize"):  # the papers count the reparameterized network
        network.to_empty(device="cpu").reparameterize()
    cost = count_cost(network, (data["in_chans"], data["image_size"], data["image_size"]))
    macs = backbone_macs(network) if is_backbone else cost.macs
    for column, ours in (("params_m", cost.params / 1e6), ("macs_m", macs / 1e6)):
        if column in row.metrics:
            agrees = abs(ours - row.metrics[column]) < last_digit(row.metrics[column])
            assert agrees != (column in row.differs), (column, ours, row.metrics[column])


def last_digit(printed: float) -> float:
    """Return the value of the last printed digit; integers >= 1000 are printed in hundreds."""
    if isinstance(printed, int):
        return 100 if printed >= 1000 else 1
    return 10.0 ** -len(str(printed).partition(".")[2])


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["study=none_such"], "study=none_such: not found; there are dw_size_ablation"),
        (["study=ratio_ablation", "model.ratio=7"], "model.ratio=7: study=ratio_ablation has model.ratio=1,2,3,4,5,10"),
        (["study=ratio_ablation", "model.ratio=2,7"], "model.ratio=7: study=ratio_ablation has"),
        (["-m", "study=ratio_ablation,width"], "study=ratio_ablation,width: only one study at a time"),
        (["study=width", "hydra.mode=RUN"], "hydra.mode=RUN: study=width is a sweep"),
        (["-m", "seed=range(0)"], "seed=range(0): empty grid"),
        (["-m", "optimizer.lr=interval(0,1)"], "optimizer.lr=interval(0,1): must be single values"),
        (["-m", "seed=0,1,0"], "seed-0: seed=0: duplicate job"),
        (["-m", "optimizer.lr=0.1,1e-1"], "lr-0.1: optimizer.lr=0.1: duplicate job"),
        (["-m", "seed=0,1", "hydra/launcher=basic"], "hydra/launcher=basic: must be one of local, submitit_local"),
        (
            ["-m", "seed=0,1", "trainer.num_nodes=2"],
            "seed-0 and 1 others: trainer.num_nodes=2: needs hydra/launcher=sub",
        ),
        (["-m", "seed=0,1", "n_jobs=0"], "n_jobs=0: must be an integer >= 1 or null"),
        (["-m", "model.ratio=0"], "job: model.ratio=0"),
        (["-m", "model=resnet20,resnet21"], "model-resnet21: model=resnet21: not found"),
        (["-m", "task=profile", "seed=0,1", "trainer.devices=2"], "seed-0 and 1 others: trainer.devices=2, trainer."),
        (["dry_run=true"], "dry_run=true: lists the jobs of a sweep"),
    ],
)
def test_wrong_sweep_is_one_line_error(arguments: list[str], wanted: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(*arguments) == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert f"error: {wanted}" in lines[0]


def test_directory_of_another_study_is_rejected(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "outputs" / "mine"
    folder.mkdir(parents=True)
    (folder / "sweep.yaml").write_text("study: width\njobs: {}\n")
    assert command("study=ratio_ablation", "name=mine") == 1
    assert f"study=ratio_ablation: {folder} contains study width; set another name=..." in capfd.readouterr().err
    assert command("-m", "seed=0,1", "name=mine") == 1
    assert "a sweep without a study" in capfd.readouterr().err


def test_narrowed_study_records_all_jobs(tmp_path: Path) -> None:
    with composed("study=ratio_ablation", "seed=0,17", "model.ratio=2") as config:
        _, _, all_jobs = Grid(config).jobs()
    assert len(all_jobs) == 6 * 10 + 1
    assert all_jobs["ratio-2_seed-17"] == ["model.ratio=2", "seed=17"]
