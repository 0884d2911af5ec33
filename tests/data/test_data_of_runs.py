"""Runs and sweeps with broken images, and with other images than before."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ghostexp.runs.directory import RunDirectory
from ghostexp.sweeps import data_check
from ghostexp.sweeps.data_check import changed_data
from ghostexp.sweeps.jobs import SweepJob, load_status
from tests.cli import command, in_directory
from tests.data.fake_image_folders import write_tree

RUN = ("datamodule=image_folder", "datamodule.num_classes=2", "datamodule.batch_size=4", "model=resnet20")
RUN += ("trainer.max_epochs=1", "callbacks.progress=false", "threads=1")
SMALL = (*RUN, "datamodule.image_size=16")
LARGE = (*RUN, "datamodule.image_size=65", "datamodule.num_workers=0")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Write four training images and two test images of each of two classes."""
    return write_tree(tmp_path / "tree", {"train": 4, "test": 2}, classes=("ant", "bee"), size=66)


def break_image(path: Path) -> bytes:
    """Truncate a file to half; returns its old content."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return content


def result_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_bytes())


def test_broken_images_are_listed_and_repaired_run_resumes(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, broken = tmp_path / "run", [tree / "train/ant/0001.png", tree / "test/bee/0000.png"]
    start = (*LARGE, f"datamodule.root={tree}", in_directory(run))
    contents = [break_image(path) for path in broken]
    assert command(*start, "datamodule.validate_on=holdout", "datamodule.holdout_fraction=0.5") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: 2 of 12 images cannot be read: ")
    assert all(str(path) in error for path in broken)
    assert not (run / "metrics.csv").exists()
    for path, content in zip(broken, contents, strict=True):
        path.write_bytes(content)
    assert command(f"resume={run}") == 0
    assert result_of(run)["data"]["train"]["images"] == 8
    curve = (run / "metrics.csv").read_bytes()
    (run / "result.json").unlink()
    break_image(broken[1])
    assert command(f"resume={run}") == 1
    assert capsys.readouterr().err.startswith(f"error: {broken[1]}: not a readable image")
    Image.new("RGB", (70, 70)).save(broken[1])  # the repaired file need not be the old one
    assert command(f"resume={run}") == 0
    assert (run / "metrics.csv").read_bytes() == curve


def test_broken_image_that_is_not_read_is_ignored(tree: Path, tmp_path: Path) -> None:
    break_image(tree / "train/ant/0001.png")
    run = tmp_path / "run"
    assert command(*LARGE, f"datamodule.root={tree}", in_directory(run)) == 1
    broken = (tree / "train/ant/0001.png").read_bytes()
    Image.new("RGB", (70, 70)).save(tree / "train/ant/0001.png")
    assert command(f"resume={run}") == 0
    (tree / "train/ant/0001.png").write_bytes(broken)
    assert command("task=test", f"run={run}") == 0


def test_resume_with_other_images_raises(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert command(*SMALL, f"datamodule.root={tree}", in_directory(run)) == 0
    (run / "result.json").unlink()
    moved = Path(shutil.copytree(tree, tmp_path / "moved"))
    assert command(f"resume={run}", f"datamodule.root={moved}") == 0
    (run / "result.json").unlink()
    shutil.copy(moved / "train/ant/0001.png", moved / "train/ant/more.png")
    assert command(f"resume={run}") == 1
    message = (
        f"datamodule.root={moved}: not what this run was trained on (train: 8 images -> 9 images); start a new run"
    )
    assert message in capsys.readouterr().err
    assert not (run / "result.json").exists()


def test_changed_data_finds_jobs_finished_with_other_images(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [tmp_path / "seed-0", tmp_path / "seed-1"]
    for seed, run in enumerate(runs):
        assert command(*SMALL, f"datamodule.root={tree}", f"seed={seed}", in_directory(run)) == 0
    jobs = [SweepJob(RunDirectory(run), (), RunDirectory(run).read_config()) for run in runs]
    for job in jobs:
        load_status(job)
    # In-process: the fork server takes seconds.
    monkeypatch.setattr(data_check, "call_quietly", lambda _, jobs: data_check._check_all(jobs))
    assert changed_data(jobs) == []
    Image.fromarray(np.zeros((66, 66, 3), np.uint8)).save(tree / "test/bee/0001.png")
    message = f"datamodule.root={tree}: must be the data of this run (test: 4 images -> 4 images, others); "
    assert [(name, error.removeprefix(message)) for name, error in changed_data(jobs)] == [
        (name, "name=... starts a new sweep") for name in ("seed-0", "seed-1")
    ]
    shutil.rmtree(tree)  # missing images do not invalidate results
    assert changed_data(jobs) == []


@pytest.mark.slow
def test_search_rejects_trials_finished_with_other_images(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = (*SMALL, f"datamodule.root={tree}", "datamodule.validate_on=holdout", "datamodule.holdout_fraction=0.5")
    search = ("-m", *data, "optimizer.lr=interval(0.01,0.1)", "search=random", "search.trials=2", "name=tuned")
    assert command(*search) == 0
    Image.fromarray(np.zeros((66, 66, 3), np.uint8)).save(tree / "test/bee/0001.png")
    assert command(*search) == 1
    message = f"datamodule.root={tree}: must be the data of this run (test: 4 images -> 4 images, others); "
    assert f"error: trial-0000_seed-0 and 1 others: {message}" in capsys.readouterr().err


@pytest.mark.slow
def test_sweep_rejects_jobs_finished_with_other_images(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = ("-m", *SMALL, f"datamodule.root={tree}", "seed=0,1", "name=pair")
    assert command(*sweep) == 0
    assert command(*sweep) == 0
    assert "2 of 2 jobs are finished already" in capsys.readouterr().out
    Image.fromarray(np.zeros((66, 66, 3), np.uint8)).save(tree / "test/bee/0001.png")
    assert command(*sweep) == 1
    error = capsys.readouterr().err
    message = f"datamodule.root={tree}: must be the data of this run (test: 4 images -> 4 images, others); "
    assert f"error: seed-0 and 1 others: {message}" in error
    shutil.rmtree(tree)  # missing images do not invalidate results
    assert command(*sweep) == 0
