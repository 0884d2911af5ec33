"""What a command with run= takes from the earlier run, and what from the command."""

from pathlib import Path

import pytest

import ghostexp
from ghostexp.runs.directory import RunDirectory
from ghostexp.tasks.common.load_model import load_trained_model
from ghostexp.tasks.common.normalisation import normalisation
from tests.cli import command


def change(run: Path, **trainer: object) -> None:
    config = RunDirectory(run).read_config()
    RunDirectory(run).write_config(config | {"trainer": config["trainer"] | trainer})


@pytest.mark.parametrize("task", ["test", "predict"])
def test_run_with_synchronised_batchnorm_is_used_without_gpus(tiny_run: Path, task: str) -> None:
    change(tiny_run, sync_batchnorm=True)
    given = ["task.input=images"] if task == "predict" else []
    assert ghostexp.compose(f"task={task}", f"run={tiny_run}", *given)["trainer"]["sync_batchnorm"] is False
    if task == "test":
        assert command("task=test", f"run={tiny_run}") == 0


def test_new_keys_are_added_by_one_plus_and_by_two(tiny_run: Path) -> None:
    for plus in ("+", "++"):
        config = ghostexp.compose("task=test", f"run={tiny_run}", f"{plus}trainer.profiler=simple")
        assert config["trainer"]["profiler"] == "simple"
    with pytest.raises(ghostexp.ConfigError, match="trainer has no profiler"):
        ghostexp.compose("task=test", f"run={tiny_run}", "trainer.profiler=simple")


def test_replaced_group_is_the_recorded_option(tiny_run: Path, tmp_path: Path) -> None:
    before = ghostexp.compose("task=test", f"run={tiny_run}")["choices"]
    choices = ghostexp.compose("task=test", f"run={tiny_run}", "datamodule=digits")["choices"]
    assert (before["datamodule"], choices["datamodule"]) == ("fake", "digits")
    assert {**choices, "datamodule": "fake"} == before


def test_other_data_are_normalised_as_those_of_the_run(tiny_run: Path) -> None:
    data = ("datamodule=torch_dataset", "datamodule.train._target_=torchvision.datasets.FakeData")
    data += ("datamodule.test._target_=torchvision.datasets.FakeData", "datamodule.num_classes=10")
    before = ghostexp.compose("task=test", f"run={tiny_run}")["datamodule"]
    data += tuple(f"datamodule.{key}={before[key]}" for key in ("in_chans", "image_size"))
    config = ghostexp.compose("task=test", f"run={tiny_run}", *data)
    theirs, ours = (normalisation({**config, "datamodule": part}) for part in (before, config["datamodule"]))
    assert theirs != ours
    assert theirs is not None
    with pytest.raises(ValueError, match=r"datamodule.mean=null: the run's images have another mean and std"):
        load_trained_model(config)
    mean, std = (f"[{','.join(map(str, values))}]" for values in theirs)
    typed = (f"datamodule.mean={mean}", f"datamodule.std={std}")
    assert load_trained_model(ghostexp.compose("task=test", f"run={tiny_run}", *data, *typed))
    with pytest.raises(ValueError, match=r"datamodule\.mean=null"):
        load_trained_model(ghostexp.compose("task=test", f"run={tiny_run}", *data, typed[0]))


def test_cfg_of_an_earlier_run_names_its_file(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("task=test", f"run={tiny_run}", "--cfg", "job") == 1
    assert f"--cfg: must be used without run=; the configuration of that run is {tiny_run}" in capsys.readouterr().err
