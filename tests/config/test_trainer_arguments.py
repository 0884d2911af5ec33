"""Test the Trainer arguments that would end a training, or validate it, within an epoch."""

import inspect
import json
from pathlib import Path

import lightning.pytorch as pl
import pytest

from ghostexp.config.trainer_arguments import ALLOWED, check_trainer
from ghostexp.training.callbacks.stopping import ResumableEarlyStopping
from ghostexp.training.classification_module import ClassificationModule
from tests.cli import TINY, TINY_DETECTOR, command, in_directory
from tests.data.fake_coco import write_set

# Arguments that neither end a training nor validate it: devices, speed, logging, and those set by the program.
NEUTRAL = {"accelerator", "strategy", "devices", "num_nodes", "precision", "logger", "callbacks", "sync_batchnorm"}
NEUTRAL |= {"num_sanity_val_steps", "log_every_n_steps", "enable_checkpointing", "enable_progress_bar", "profiler"}
NEUTRAL |= {"enable_model_summary", "gradient_clip_val", "gradient_clip_algorithm", "deterministic", "benchmark"}
NEUTRAL |= {"inference_mode", "use_distributed_sampler", "detect_anomaly", "barebones", "plugins", "model_registry"}
NEUTRAL |= {"default_root_dir", "enable_autolog_hparams", "reload_dataloaders_every_n_epochs"}
CHECKED = {"max_epochs", "limit_train_batches", "limit_val_batches", "overfit_batches", "accumulate_grad_batches"}


def test_every_trainer_argument_is_classified() -> None:
    arguments = set(inspect.signature(pl.Trainer.__init__).parameters) - {"self"}
    assert arguments == NEUTRAL | CHECKED | ALLOWED.keys()


REFUSED = [
    (
        ["+trainer.fast_dev_run=true"],
        "trainer.fast_dev_run=True: would write the result of one batch as if it were a full one",
    ),
    (["+trainer.fast_dev_run=3"], "trainer.fast_dev_run=3: would write"),
    (
        ["+trainer.max_steps=30"],
        "trainer.max_steps=30: a training ends with an epoch, and its schedule there; set train",
    ),
    (["+trainer.max_steps=0"], "trainer.max_steps=0: a training ends with an epoch"),
    (
        ["+trainer.max_time=00:00:00:08"],
        "trainer.max_time=00:00:00:08: would end a training before its schedule; `time",
    ),
    (
        ["+trainer.min_steps=5"],
        "trainer.min_steps=5: a training ends at trainer.max_epochs, or earlier by callbacks.pat",
    ),
    (["+trainer.min_epochs=2"], "trainer.min_epochs=2: a training ends at trainer.max_epochs"),
    (["+trainer.val_check_interval=0.5"], "trainer.val_check_interval=0.5: validation runs at the end of an epoch"),
    (["+trainer.val_check_interval=1"], "trainer.val_check_interval=1: validation runs at the end of an epoch"),
    (["trainer.check_val_every_n_epoch=null"], "trainer.check_val_every_n_epoch=None: must be an integer >= 1"),
    (["+trainer.limit_predict_batches=2"], "trainer.limit_predict_batches=2: no task predicts with the trainer"),
    (
        ["trainer.limit_train_batches=0"],
        "trainer.limit_train_batches=0: must be an integer >= 1 or a fraction in (0, 1]",
    ),
    (
        ["trainer.limit_train_batches=6", "trainer.accumulate_grad_batches=4"],
        "trainer.limit_train_batches=6: counts micro-batches, and must be a multiple of "
        "trainer.accumulate_grad_batches=4; set trainer.limit_train_batches=8",
    ),
    (
        ["+trainer.overfit_batches=3", "trainer.accumulate_grad_batches=2"],
        "trainer.overfit_batches=3: counts micro-batches, and must be a multiple of trainer.accumulate_grad_batches=2",
    ),
    (
        ["trainer.limit_train_batches=0.75", "trainer.accumulate_grad_batches=2"],  # 6 of 8 micro-batches are 3 steps
        None,
    ),
    (
        ["trainer.limit_train_batches=0.9", "trainer.accumulate_grad_batches=2"],
        "trainer.limit_train_batches=0.9: leaves 7 micro-batches an epoch, which must be a multiple of "
        "trainer.accumulate_grad_batches=2; set trainer.limit_train_batches=6",
    ),
    (["trainer.limit_train_batches=0.01"], "Try at least `limit_train_batches=0.25`"),
    (["trainer.limit_test_batches=0.01"], "trainer.limit_test_batches=0.01: must leave at least one of"),
    (
        ["task=test", "+trainer.fast_dev_run=true", "model.weights=x"],
        "trainer.fast_dev_run=True: would write the resul",
    ),
    (["task=test", "trainer.limit_test_batches=0", "model.weights=x"], "trainer.limit_test_batches=0: a run ends with"),
]


@pytest.mark.parametrize(("arguments", "wanted"), REFUSED, ids=lambda value: str(value)[:40])
def test_trainer_arguments_work_or_are_rejected_before_training(
    arguments: list[str], wanted: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = command(*TINY, "trainer.max_epochs=1", *arguments, in_directory(tmp_path / "run"))
    lines = capsys.readouterr().err.strip().splitlines()
    assert (code, len(lines)) == ((0, 0) if wanted is None else (1, 1)), lines
    assert wanted is None or wanted in lines[0]
    assert (tmp_path / "run" / "result.json").exists() == (wanted is None)
    assert wanted is None or not (tmp_path / "run" / "metrics.csv").exists()


def test_check_trainer_allows_lightning_defaults() -> None:
    parameters = inspect.signature(pl.Trainer.__init__).parameters
    defaults = {
        name: value.default for name, value in parameters.items() if value.default is not inspect.Parameter.empty
    }
    for task in ("fit", "test"):
        check_trainer(defaults, task)
    check_trainer({"val_check_interval": 1.0, "max_steps": -1, "fast_dev_run": 0, "limit_predict_batches": 1.0}, "fit")


def test_epoch_without_validation_has_no_val_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    arguments = ("trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2", "callbacks.progress=true")
    assert command(*TINY, *arguments, in_directory(run)) == 0
    metrics = json.loads((run / "result.json").read_text())["metrics"]
    assert metrics["best"]["epoch"] == 1
    assert [name for name in metrics["last"] if name.startswith("val/")] == []
    (last,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch 3/3")]
    assert "val/acc1" not in last
    log = (run / "run.log").read_text()
    assert [("val/acc1" in line) for line in log.splitlines() if ": epoch " in line] == [False, True, False]


@pytest.mark.parametrize(("epochs", "every", "checks"), [(3, 1, 3), (10, 5, 2), (12, 5, 3), (1, 4, 1)])
def test_patience_counts_epochs(epochs: int, every: int, checks: int, tmp_path: Path) -> None:
    callback = ResumableEarlyStopping("val/acc1", epochs)
    trainer = pl.Trainer(check_val_every_n_epoch=every, logger=False, barebones=True)
    callback.setup(trainer, pl.LightningModule(), "fit")
    assert callback.patience == checks


EMPTY = ("datamodule=coco", "datamodule.num_classes=2", "datamodule.image_size=64", "datamodule.max_size=null")
EMPTY += ("datamodule.batch_size=2", "datamodule.num_workers=0", "datamodule.keep_empty=true")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (
            ["datamodule.validate_on=holdout", "datamodule.holdout_fraction=0.15"],
            "datamodule.validate_on=holdout: none of 1 validation images has an object, so that there is no val/map",
        ),
        (
            ["callbacks.patience=2", "trainer.limit_val_batches=1"],
            "callbacks.patience: none of 2 validation images has an object, so that there is no val/map",
        ),
    ],
)
def test_validation_without_objects_is_rejected_before_training(
    arguments: list[str], wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_set(tmp_path / "set")
    for part in ("train", "val"):  # the holdout of seed 0 is one of the first four images
        path = root / "annotations" / f"instances_{part}2017.json"
        content = json.loads(path.read_text())
        last = max(one["image_id"] for one in content["annotations"])
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] == last]
        path.write_text(json.dumps(content))
    data = [argument for argument in TINY_DETECTOR if not argument.startswith("datamodule")]
    assert command(*data, *EMPTY, f"datamodule.root={root}", *arguments, in_directory(tmp_path / "run")) == 1
    assert wanted in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_last_epoch_is_tested_with_a_warning_without_val_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log_epoch_metrics = ClassificationModule.log_epoch_metrics

    def without_val_metric(self: ClassificationModule, metrics: dict[str, float]) -> None:
        log_epoch_metrics(self, {name: value for name, value in metrics.items() if name != "val/acc1"})

    monkeypatch.setattr(ClassificationModule, "log_epoch_metrics", without_val_metric)
    run = tmp_path / "run"
    assert command(*TINY, "datamodule.validate_on=holdout", in_directory(run)) == 0
    wanted = "warning: datamodule.validate_on=holdout: no validation had a val/acc1; the last epoch is tested"
    assert capsys.readouterr().err.strip() == wanted
    result = json.loads((run / "result.json").read_text())
    assert result["test_checkpoint"] == "last"
    assert not (run / "checkpoints" / "best.ckpt").exists()
    assert command("task=test", f"run={run}") == 0
    assert json.loads((run / "test" / "result.json").read_text())["metrics"] == {"test": result["metrics"]["test"]}
