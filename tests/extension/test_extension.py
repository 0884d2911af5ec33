"""Parts of an own package, copied from my_ghosts/ to a temporary folder: each door, each task, each misuse."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from ghostexp.api import compose
from ghostexp.data.third_party_datamodule import as_datamodule
from ghostexp.runs.csv_table import read_rows
from ghostexp.tasks.common.instantiate import build_datamodule
from tests.cli import command, finish, in_directory

TINY = ("experiment=stripes", "trainer.max_epochs=1", "callbacks.progress=false", "threads=1")
OWN_DATA = ("datamodule._target_=my_ghosts.StripesDataModule", "datamodule.num_classes=2", "datamodule.in_chans=1")
OWN_DATA += ("datamodule.image_size=16", "datamodule.batch_size=16")
# Each door of a classifier's training at once.
DOORS = ("optimizer._target_=my_ghosts.SignSGD", "optimizer.lr=0.01", "scheduler._target_=my_ghosts.Halve")
DOORS += ("loss._target_=my_ghosts.FocalLoss", "loss.gamma=1.5")
DOORS += ("metrics.f1._target_=torchmetrics.classification.MulticlassF1Score", "monitor=f1")
DOORS += ("datamodule.transforms.invert._target_=my_ghosts.Invert",)
DOORS += ("callbacks.count._target_=my_ghosts.CountSteps", "callbacks.count.file=steps.txt")
DOORS += ("logger.list._target_=my_ghosts.ListLogger",)


class RecordSeedOfOrder(Callback):
    """Write the seed with which Lightning shuffles for several devices to seed.txt."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it from rank 0."""
        assert trainer.train_dataloader is not None
        if trainer.is_global_zero:
            Path(trainer.default_root_dir, "seed.txt").write_text(str(trainer.train_dataloader.sampler.seed))


def result_of(run: Path) -> dict[str, Any]:
    """Read a run's result.json."""
    return json.loads((run / "result.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the package."""
    return Path(shutil.copytree(Path(__file__).parent / "my_ghosts", tmp_path_factory.mktemp("own") / "my_ghosts"))


@pytest.fixture(scope="module")
def doors_run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train with an own part in each door."""
    run = tmp_path_factory.mktemp("doors") / "run"
    assert own(folder, *TINY, *DOORS, "trainer.max_epochs=2", in_directory(run)) == 0
    return run


@pytest.fixture(scope="module")
def third_party_run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train with an own LightningDataModule and LightningModule."""
    run = tmp_path_factory.mktemp("third_party") / "run"
    module = ("lightning_module._target_=my_ghosts.PlainModule", "monitor=hits")
    assert own(folder, *TINY, *OWN_DATA, *module, in_directory(run)) == 0
    return run


def own(folder: Path, *arguments: str) -> int:
    """Run a command with the package's folder."""
    return command("--config-dir", str(folder), *arguments)


def test_every_door_takes_an_own_part(doors_run: Path) -> None:
    result = result_of(doors_run)
    assert result["monitor"] == "f1"
    assert 0 <= result["metrics"]["test"]["test/f1"] <= 1
    assert (doors_run / "steps.txt").read_text() == str(result["steps"]) == "8"
    assert "train/loss" in (doors_run / "list.txt").read_text()
    rates = [line.rpartition(",")[2] for line in (doors_run / "metrics.csv").read_text().splitlines()[1:]]
    assert [float(rate) for rate in rates] == [0.01, 0.005]  # SignSGD's rate, halved by Halve
    smooth = 0.25 * torch.log(torch.tensor(2.0)) * 0.5**-0.5  # FocalLoss of even odds: (1 - 1/2)^1.5 log 2
    assert abs(result["metrics"]["last"]["train/loss"] - float(smooth)) < 0.1
    config = (doors_run / "config.yaml").read_text()
    assert "nesterov" not in config.partition("optimizer:")[2].partition("scheduler:")[0]  # of the option it replaced


def test_what_own_parts_cannot_give_is_recorded(doors_run: Path, third_party_run: Path) -> None:
    result = result_of(doors_run)
    assert result["exact_resume"] is None
    assert set(result["limits"]) >= {"model", "loss", "optimizer", "scheduler", "callbacks.count", "logger.list"}
    assert result["data"]["train"]["images"] == 64
    third_party = result_of(third_party_run)
    assert third_party["exact_resume"] is False
    assert "no digest" in third_party["limits"]["datamodule"]
    assert "data" not in third_party


def test_own_datamodule_and_lightning_module_train(third_party_run: Path) -> None:
    result = result_of(third_party_run)
    assert result["test_checkpoint"] == "best"  # it has a val_dataloader
    assert set(result["metrics"]["test"]) == {"test/hits"}
    assert "val/hits" in result["metrics"]["best"]


def test_own_lightning_module_logs_completed_epochs_and_steps(third_party_run: Path) -> None:
    rows, speed = (read_rows(third_party_run / name) for name in ("metrics.csv", "speed.csv"))
    validated = [(row["step"], row["epoch"]) for row in rows if row.get("val/hits")]
    assert validated == [(row["step"], row["epoch"]) for row in speed]
    assert [int(epoch) for _, epoch in validated] == list(range(1, len(validated) + 1))
    assert not any(name.startswith("test/") for row in rows for name in row)


class Staged(LightningDataModule):
    """Notes its stages."""

    def __init__(self) -> None:
        super().__init__()
        self.stages: list[str] = []
        self.sets: dict[str, TensorDataset] = {}

    def setup(self, stage: str) -> None:
        self.stages.append(stage)
        self.sets[stage] = TensorDataset(torch.zeros(4, 1, 8, 8), torch.zeros(4).long())

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.sets["fit"])

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.sets["test"])


class TornDown(Staged):
    """Forgets its data after a stage."""

    def teardown(self, stage: str) -> None:
        self.sets.clear()


@pytest.mark.parametrize(("kind", "stages"), [(Staged, ["fit", "test"]), (TornDown, ["fit", "test", "test", "fit"])])
def test_own_datamodule_is_set_up_once_for_a_stage(kind: type[Staged], stages: list[str]) -> None:
    own = kind()
    datamodule = as_datamodule(own, {"num_classes": 2, "in_chans": 1, "image_size": 8, "batch_size": 1})
    datamodule.setup("fit")
    assert own.stages == ["fit", "test"]
    datamodule.teardown("fit")
    datamodule.setup("test")
    assert len(list(datamodule.train_sample(2))) == 2
    assert own.stages == stages


class OneSet(Staged):
    """Has one attribute for the data of all stages, of as many images as the stage has letters."""

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.data = TensorDataset(torch.zeros(len(stage), 1, 8, 8), torch.zeros(len(stage)).long())

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.data)

    test_dataloader = train_dataloader


def test_own_datamodule_trains_on_the_data_of_its_training(folder: Path) -> None:
    own = OneSet()
    datamodule = as_datamodule(own, {"num_classes": 2, "in_chans": 1, "image_size": 8, "batch_size": 1})
    datamodule.setup("fit")
    assert (own.stages, len(datamodule.train_dataloader())) == (["fit"], len("fit"))
    datamodule.setup("test")
    assert (own.stages, len(datamodule.test_dataloader())) == (["fit", "test"], len("test"))


@pytest.mark.parametrize("run", ["doors_run", "third_party_run"])
def test_tasks_on_own_runs(run: str, folder: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    trained: Path = request.getfixturevalue(run)
    Image.new("L", (16, 16), 100).save(tmp_path / "image.png")
    before = result_of(trained)["metrics"]["test"]
    prepared = () if run == "doors_run" else ("+datamodule.mean=[0]", "+datamodule.std=[1]")
    formats = "onnx,torch,safetensors" if run == "doors_run" else "safetensors"
    for task in (
        ("task=test",),
        ("task=predict", f"task.input={tmp_path}/image.png", *prepared),
        ("task=profile", "task.modes=[eager]", "task.batch_sizes=[1]", "task.repeats=1"),
        ("task=visualize", "task.num_images=4", "task.num_shown=1"),
        ("task=export", f"task.formats=[{formats}]", "task.num_check_images=4", *prepared),
    ):
        assert own(folder, *task, f"run={trained}", in_directory(tmp_path / task[0])) == 0, task
    assert result_of(tmp_path / "task=test")["metrics"]["test"] == before
    assert json.loads((tmp_path / "task=predict" / "predictions.json").read_text())["predictions"]
    assert {*formats.split(",")} <= {*result_of(tmp_path / "task=export")["checks"]}


def test_resume_of_own_parts_equals_one_training(doors_run: Path, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stopped = (*TINY, *DOORS, "trainer.max_epochs=2", "callbacks.stop._target_=my_ghosts.StopAfter")
    assert own(folder, *stopped, "callbacks.stop.steps=6", in_directory(run)) == 130
    assert own(folder, f"resume={run}") == 0
    assert result_of(run)["metrics"] == result_of(doors_run)["metrics"]
    assert (run / "metrics.csv").read_text() == (doors_run / "metrics.csv").read_text()


def test_run_remembers_folder_and_needs_trust(
    doors_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = ("task=profile", "task.modes=[eager]", "task.batch_sizes=[1]", "task.repeats=1", f"run={doors_run}")
    assert command(*profile, in_directory(tmp_path / "refused")) == 1
    assert "or allowed by allow=[my_ghosts]" in capsys.readouterr().err
    assert command(*profile, "allow=[my_ghosts]", in_directory(tmp_path / "allowed")) == 0


@pytest.mark.parametrize(
    ("renamed", "error"),
    [
        (("my_ghosts.ThreeLayers", "my_ghosts.FourLayers"), "model._target_=my_ghosts.FourLayers: not found"),
        (
            ("torch_dataset.TorchDataset", "torch_data.TorchDataset"),
            "torch_data.TorchDataset: not found in this version",
        ),
    ],
)
def test_run_whose_target_was_renamed_since_says_what_to_do(
    renamed: tuple[str, str],
    error: str,
    doors_run: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Path(shutil.copytree(doors_run, tmp_path / "run"))
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace(*renamed))
    assert own(folder, "task=test", f"run={run}", in_directory(tmp_path / "test")) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert error in line
    assert line.endswith(f"if it was renamed, write its new name into {run}/config.yaml")


def test_installed_package_adds_options(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package, info = tmp_path / "installed_ghosts", tmp_path / "installed_ghosts-1.0.dist-info"
    shutil.copytree(folder, package / "conf", ignore=shutil.ignore_patterns("*.py"))
    for path in (package / "__init__.py", package / "conf" / "__init__.py"):
        path.touch()
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: installed-ghosts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ghostexp.conf]\ninstalled = installed_ghosts.conf\n")
    assert command("model=three_layers", "--cfg", "job") == 1
    monkeypatch.syspath_prepend(str(tmp_path))
    assert command("model=three_layers", "--cfg", "job") == 0
    assert "_target_: my_ghosts.ThreeLayers" in capsys.readouterr().out


def test_two_ranks_train_own_parts_as_one(folder: Path, tmp_path: Path) -> None:
    arguments = ("--config-dir", str(folder), *TINY, "trainer.devices=2", "trainer.accelerator=cpu")
    data = (*OWN_DATA, "lightning_module._target_=my_ghosts.PlainModule", "monitor=hits", "seed=3")
    record = "callbacks.seed._target_=tests.extension.test_extension.RecordSeedOfOrder"
    code, _, error = finish(*arguments, *data, record, in_directory(tmp_path / "run"))
    assert code == 0, error
    assert (tmp_path / "run" / "seed.txt").read_text() == "3"
    result = result_of(tmp_path / "run")
    assert result["steps"] == 4  # 64 images, 16 in a batch of both devices
    assert "counted twice" in result["limits"]["datamodule"]


def test_building_own_data_leaves_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    config, before = compose("--config-dir", str(folder), *TINY, *OWN_DATA), dict(os.environ)
    build_datamodule(config)  # as ghostexp.load does, in the process of its caller
    assert dict(os.environ) == before


def test_sweep_over_own_parts(folder: Path, tmp_path: Path) -> None:
    swept = ("-m", "optimizer._target_=my_ghosts.SignSGD,torch.optim.Adam", "name=sweep", f"output_dir={tmp_path}")
    assert own(folder, *TINY, *swept, "n_jobs=1") == 0
    targets = [result.parent.name for result in (tmp_path / "sweep").glob("*/result.json")]
    assert sorted(targets) == ["_target_-my_ghosts.SignSGD", "_target_-torch.optim.Adam"]


def test_own_task_and_run_name(folder: Path, tmp_path: Path) -> None:
    task = ("task._target_=my_ghosts.count_weights", "model._target_=my_ghosts.ThreeLayers", "model.width=4")
    assert own(folder, *task, f"output_dir={tmp_path}") == 0
    network = sys.modules["my_ghosts"].ThreeLayers(num_classes=10, in_chans=1, width=4)
    (result,) = (tmp_path / "ThreeLayers_digits").glob("*/result.json")
    assert result_of(result.parent)["weights"] == sum(map(torch.numel, network.parameters()))


MISUSES = [
    (
        ["model._target_=torch.nn.Identity"],
        "model: Identity must map images (N, 1, 16, 16) to logits (N, 2); for",
    ),
    (["model._target_=my_ghosts.Nothing"], "model._target_=my_ghosts.Nothing: not found"),
    (["model._target_=my_ghosts.Stripes", "model.count=4"], "must build a torch.nn.modules.module.Module, got Stripes"),
    (["datamodule.train._target_=my_ghosts.FocalLoss"], "datamodule.train.count: datamodule.train has no count"),
    (["datamodule.image_size=8"], "must return (image, class), with images 1 x 8 x 8"),
    (["datamodule.num_classes=3"], "datamodule.num_classes=3: Stripes has 2 classes"),
    ([*OWN_DATA, "datamodule.first_class=1"], "classes must be integers (N,) below datamodule.num_classes=2"),
    ([*OWN_DATA, "datamodule.image_size=8"], "batches must be float images (N, 1, 8, 8)"),
    ([*OWN_DATA[:4]], "datamodule.batch_size: must be set for StripesDataModule"),
    (["datamodule._target_=lightning.pytorch.LightningDataModule", *OWN_DATA[1:]], "must define train_dataloader"),
    (
        ["datamodule.transforms.x._target_=torch.nn.Flatten"],
        "datamodule.transforms.x: must map uint8 images",
    ),
    (["loss._target_=my_ghosts.FocalLoss", "loss.alpha=1"], "loss.alpha=1: loss has no alpha; there is gamma"),
    (
        ["loss._target_=torch.nn.BCELoss"],
        "loss: BCELoss must map logits (N, num_classes) and classes (N,)",
    ),
    (["metrics.acc1._target_=torchmetrics.MeanMetric"], "metrics.acc1: already exists"),
    (["metrics.x._target_=torchmetrics.classification.MulticlassConfusionMatrix"], "metrics.x: MulticlassConfusion"),
    (["monitor=f2"], "monitor=f2: must be one of loss, acc1, or null"),
    (["callbacks.x._target_=my_ghosts.FocalLoss"], "callbacks.x._target_=my_ghosts.FocalLoss: must build a lightning"),
    (["logger.x._target_=my_ghosts.FocalLoss"], "logger.x._target_=my_ghosts.FocalLoss: must build a lightning"),
    (
        ["optimizer._target_=torch.optim.Adam", "optimizer.momentum=1"],
        "optimizer.momentum=1: optimizer has no momentum; there is lr, betas",
    ),
    (["optimizer._target_=torch.nn.Identity"], "optimizer: must build a torch.optim.Optimizer, got Identity"),
    (["scheduler._target_=torch.optim.lr_scheduler.StepLR"], "scheduler: cannot be built (TypeError: "),
    (["scheduler._target_=torch.nn.Flatten"], "scheduler: cannot be built (AttributeError: "),
    (["lightning_module._target_=my_ghosts.PlainModule"], "monitor: must be set for PlainModule"),
    (["lightning_module._target_=lightning.pytorch.LightningModule"], "LightningModule must take the argument network"),
    (["task._target_=my_ghosts.nothing"], "task._target_=my_ghosts.nothing: not found"),
    (["task._target_=my_ghosts.count_weights", "task.name=fit"], "task.name=fit: must be set, to another name than"),
]


@pytest.mark.parametrize(("arguments", "wanted"), MISUSES, ids=lambda part: part if isinstance(part, str) else "")
def test_misuse_is_one_line_before_training(
    arguments: list[str], wanted: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own(folder, *TINY, *arguments, in_directory(tmp_path / "run")) == 1
    error = capsys.readouterr().err
    assert wanted in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run" / "checkpoints").exists()


class OwnLoaders(Staged):
    """Has the loaders that it is given."""

    def __init__(self, train: dict[str, Any], test: dict[str, Any]) -> None:
        super().__init__()
        self.keys = {"fit": train, "test": test}

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.sets["fit"], **self.keys["fit"])

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.sets["test"], **self.keys["test"])


@pytest.mark.parametrize("test", [{"shuffle": True}, {"batch_sampler": [[0, 1], [2, 3]]}, {"batch_size": None}])
def test_test_loader_of_own_datamodule_must_be_in_order(test: dict[str, Any]) -> None:
    given = {"num_classes": 2, "in_chans": 1, "image_size": 8, "batch_size": 2}
    datamodule = as_datamodule(OwnLoaders({}, test), given)
    with pytest.raises(ValueError, match="test_dataloader of OwnLoaders must have a batch_size and shuffle=False"):
        datamodule.setup("test")


def test_training_loader_of_own_datamodule_may_have_a_batch_sampler() -> None:
    given = {"num_classes": 2, "in_chans": 1, "image_size": 8, "batch_size": 2}
    datamodule = as_datamodule(OwnLoaders({"batch_sampler": [[0, 2], [1, 3]]}, {"batch_size": 2}), given)
    datamodule.setup("fit")
    assert [len(images) for images, _ in datamodule.train_sample(3)] == [2, 1]
