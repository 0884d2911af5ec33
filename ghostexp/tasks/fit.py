"""Train a network, then measure the test figure."""

import logging
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.outcome import Outcome, Outputs
from ghostexp.tasks import build
from ghostexp.tasks.closing import baselines_of, data_of, figures_of, place_of, show_fit
from ghostexp.tasks.preconditions import CheckEvaluation
from ghostexp.tasks.savings import note_savings
from ghostexp.tasks.teacher import distillation_of
from ghostexp.tasks.tested import keep_tested
from ghostexp.tasks.weights import record
from ghostexp.training.checkpoints import Checkpoints, check_match, load_weights, read
from ghostexp.training.module import Module
from ghostexp.training.throughput import Throughput
from ghostexp.training.wandb_logger import finish, log_tested_model

log = logging.getLogger(__name__)


def run(config: build.Config, directory: RunDirectory) -> Outcome:
    """Fit, with `resume` from `checkpoints/last.ckpt` on; returns what result.json says of it.

    With `datamodule.split=test` the test figure is the last epoch's: choosing the best by it would be peeking.
    With `split=val` it is that of the best epoch on the validation set.
    """
    datamodule = build.datamodule_of(config)
    resumed = read(directory.last) if config["resume"] and directory.last.exists() else None
    built = build.network_of(config, is_resumed=resumed is not None)
    note_savings(built, config, directory)
    distillation, teacher = distillation_of(config)
    module = build.module_of(config, built.network, distillation)
    if resumed is not None:
        check_match(module.state_dict(), resumed["state_dict"], directory.last)
    loggers = build.loggers_of(config, directory, resumed_step=resumed["global_step"] if resumed else None)
    callbacks = [*build.callbacks_of(config, directory, module.score), CheckEvaluation(config, f"val/{module.score}")]
    trainer = build.trainer_of(config, callbacks, loggers, directory)

    result: dict[str, Any] = {"params": built.cost.params, "macs": built.cost.macs}
    result |= {"backbone_macs": built.backbone_macs} if built.backbone_macs else {}
    result |= {"weights": record(built.weights, directory), "teacher": teacher}
    try:
        trainer.fit(module, datamodule=datamodule, ckpt_path=directory.last if resumed else None)
        result |= _figures(trainer, module, callbacks)
        checkpoint = _to_test(config, directory, module, callbacks)
        result["tested"] = checkpoint.stem
        load_weights(module, checkpoint)
        trainer.test(module, datamodule=datamodule, verbose=False)
        result["metrics"]["test"] = figures_of(module, "test/")
        result |= {"baselines": baselines_of(datamodule)} | place_of(trainer)
        result |= data_of(datamodule) if trainer.is_global_zero else {}
    except BaseException:
        with suppress(Exception):  # whatever a logger has to say, it is not why the run ends
            finish(loggers, result, exit_code=1)
        raise

    def make_outputs(outputs: Outputs) -> None:
        where = (module, datamodule, directory, config["name"], loggers)
        outputs.make("tables and pictures", keep_tested, *where, outputs)
        outputs.make("W&B model", log_tested_model, loggers, checkpoint, result)
        hints = outputs.make("W&B", finish, loggers, result, exit_code=0) or []
        outputs.make("summary", show_fit, result, directory, hints)

    return Outcome(result, make_outputs)


def _to_test(config: build.Config, directory: RunDirectory, module: Module, callbacks: list[Callback]) -> Path:
    """The checkpoint whose test metrics are the run's; the last one where no validation had a score to choose by."""
    (checkpoints,) = (callback for callback in callbacks if isinstance(callback, Checkpoints))
    if config["datamodule"]["split"] != "val":
        return directory.last
    if checkpoints.best_epoch is not None:
        return directory.best
    text = f"datamodule.split=val: no validation had a val/{module.score} to choose by; the last epoch is tested"
    log.warning(text)
    if module.global_rank == 0:
        print(f"warning: {text}", file=sys.stderr)
    return directory.last


def _figures(trainer: pl.Trainer, module: Module, callbacks: list[Callback]) -> dict[str, Any]:
    """What a training left behind."""
    (checkpoints,) = (callback for callback in callbacks if isinstance(callback, Checkpoints))
    (throughput,) = (callback for callback in callbacks if isinstance(callback, Throughput))
    best = {"epoch": checkpoints.best_epoch, **checkpoints.best_metrics}
    return {
        "metrics": {"last": figures_of(module, "train/", "val/"), "best": best},
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "train_s": round(throughput.seconds, 2),
        "img_s": throughput.median,
    }
