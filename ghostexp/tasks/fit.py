"""Train a network, then test it."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.outcome import Outcome, Outputs
from ghostexp.tasks.common import instantiate
from ghostexp.tasks.common.acceleration import warn_of_slow_bfloat16
from ghostexp.tasks.common.preconditions import CheckEvaluation
from ghostexp.tasks.common.reproducibility import reproducibility
from ghostexp.tasks.common.summary import (
    compute_baselines,
    data_digest,
    hardware_info,
    metrics_with_prefix,
    show_fit,
    write_ghostify_report,
)
from ghostexp.tasks.common.teacher import build_distillation
from ghostexp.tasks.common.test_outputs import save_test_outputs
from ghostexp.tasks.common.weights_source import weights_record
from ghostexp.training.base_module import BaseModule
from ghostexp.training.callbacks.checkpoint import (
    ModelCheckpoint,
    check_match,
    load_checkpoint_weights,
    read_checkpoint,
)
from ghostexp.training.callbacks.throughput import Throughput
from ghostexp.training.loggers import log_in_our_rows
from ghostexp.training.loggers.wandb_outputs import finish, log_tested_model
from ghostexp.validation import notice


def run(config: instantiate.Config, directory: RunDirectory) -> Outcome:
    """Fit, with `resume` from `checkpoints/last.ckpt` on; returns the content of result.json.

    With `datamodule.validate_on=test` the last epoch is tested: selecting the best epoch on the test set would leak it.
    With `validate_on=holdout` the best epoch on the validation set is tested.
    """
    datamodule = instantiate.build_datamodule(config)
    resumed = read_checkpoint(directory.last) if config["resume"] and directory.last.exists() else None
    built = instantiate.build_network(config, is_resumed=resumed is not None)
    write_ghostify_report(built, config, directory)
    distillation, teacher = build_distillation(config, built.network)
    module = instantiate.build_lightning_module(config, built.network, distillation)
    if resumed is not None:
        check_match(module.state_dict(), resumed["state_dict"], directory.last)
    loggers = instantiate.build_loggers(config, directory, resumed_step=resumed["global_step"] if resumed else None)
    monitor: str = module.monitor  # pyright: ignore[reportAssignmentType]
    mode = getattr(module, "monitor_mode", "max")
    callbacks = [
        *instantiate.build_callbacks(config, directory, monitor, mode),
        CheckEvaluation(config, f"val/{monitor}"),
    ]
    trainer = instantiate.build_trainer(config, callbacks, loggers, directory, datamodule)
    warn_of_slow_bfloat16(str(trainer.precision), trainer.strategy.root_device)

    if not isinstance(module, BaseModule):
        log_in_our_rows(trainer)
    result: dict[str, Any] = {"params": built.cost.params, "macs": built.cost.macs}
    result |= {"backbone_macs": built.backbone_macs} if built.backbone_macs else {}
    latency = directory.read_latency()
    result |= {"latency_ms": latency["latency_ms"]} if latency else {}
    result |= {"weights": weights_record(built.weights, directory), "teacher": teacher}
    result |= {"monitor": monitor, "monitor_mode": mode}
    result |= reproducibility(config, datamodule, trainer)
    try:
        trainer.fit(module, datamodule=datamodule, ckpt_path=directory.last if resumed else None)
        result |= _training_record(trainer, callbacks)
        checkpoint = _select_checkpoint(datamodule, directory, trainer, callbacks)
        result["test_checkpoint"] = checkpoint.stem
        load_checkpoint_weights(module, checkpoint)
        trainer.test(module, datamodule=datamodule, verbose=False)
        result["metrics"]["test"] = metrics_with_prefix(trainer, "test/")
        result |= {"baselines": compute_baselines(datamodule)} | hardware_info(trainer)
        result |= data_digest(datamodule) if trainer.is_global_zero else {}
    except BaseException as error:
        with suppress(Exception):  # an error of a logger must not hide why the run ended
            finish(loggers, result, error)
        raise

    def make_outputs(outputs: Outputs) -> None:
        where = (module, datamodule, directory, config["name"], loggers)
        outputs.make("tables and pictures", save_test_outputs, *where, outputs)
        outputs.make("W&B model", log_tested_model, loggers, checkpoint, result)
        hints = outputs.make("W&B", finish, loggers, result) or []
        outputs.make("summary", show_fit, result, directory, hints)

    return Outcome(result, make_outputs)


def _select_checkpoint(
    datamodule: pl.LightningDataModule, directory: RunDirectory, trainer: pl.Trainer, callbacks: list[Callback]
) -> Path:
    """Select the checkpoint to test; the last one if no validation had a metric to select by."""
    (checkpoints,) = (callback for callback in callbacks if isinstance(callback, ModelCheckpoint))
    if getattr(datamodule, "validate_on", "test") != "holdout":
        return directory.last
    if checkpoints.best_epoch is not None:
        return directory.best
    text = f"datamodule.validate_on=holdout: no validation had a {checkpoints.monitor}; the last epoch is tested"
    notice(f"warning: {text}")
    return directory.last


def _training_record(trainer: pl.Trainer, callbacks: list[Callback]) -> dict[str, Any]:
    """Collect metrics, steps and times of a training for result.json."""
    (checkpoints,) = (callback for callback in callbacks if isinstance(callback, ModelCheckpoint))
    (throughput,) = (callback for callback in callbacks if isinstance(callback, Throughput))
    best = {"epoch": checkpoints.best_epoch, **checkpoints.best_metrics}
    return {
        "metrics": {"last": metrics_with_prefix(trainer, "train/", "val/"), "best": best},
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "train_seconds": round(throughput.seconds, 2),
        "images_per_second": throughput.median,
    }
