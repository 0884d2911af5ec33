"""Train a network, then measure the test figure."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.table import last_step
from ghostexp.tasks import build
from ghostexp.tasks.closing import baselines_of, data_of, figures_of, place_of, show_fit
from ghostexp.tasks.savings import note_savings
from ghostexp.tasks.teacher import distillation_of
from ghostexp.tasks.tested import keep_tested
from ghostexp.tasks.weights import record
from ghostexp.training.checkpoints import Checkpoints, check_match, load_weights, read
from ghostexp.training.module import Module
from ghostexp.training.throughput import Throughput
from ghostexp.training.wandb_logger import finish, log_tested_model


def run(config: build.Config, directory: RunDirectory) -> dict[str, Any]:
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
    loggers = build.loggers_of(
        config,
        directory,
        resumed_step=resumed["global_step"] if resumed else None,
        logged_step=last_step(directory.metrics) if resumed else None,
    )
    callbacks = build.callbacks_of(config, directory, module.score)
    trainer = build.trainer_of(config, callbacks, loggers, directory)

    result: dict[str, Any] = {"params": built.cost.params, "macs": built.cost.macs}
    result |= {"backbone_macs": built.backbone_macs} if built.backbone_macs else {}
    result |= {"weights": record(built.weights, directory), "teacher": teacher}
    try:
        trainer.fit(module, datamodule=datamodule, ckpt_path=directory.last if resumed else None)
        result |= _outcome(trainer, module, callbacks)
        result["tested"] = "best" if config["datamodule"]["split"] == "val" else "last"
        checkpoint = directory.best if result["tested"] == "best" else directory.last
        load_weights(module, checkpoint)
        trainer.test(module, datamodule=datamodule, verbose=False)
        result["metrics"]["test"] = figures_of(module, "test/")
        result |= {"baselines": baselines_of(datamodule)} | place_of(trainer)
        result |= data_of(datamodule) if trainer.is_global_zero else {}
        keep_tested(module, datamodule, directory, config["name"], loggers)
        if trainer.is_global_zero:
            log_tested_model(loggers, checkpoint, result)
    except BaseException:
        finish(loggers, result, exit_code=1)
        raise
    hints = finish(loggers, result, exit_code=0)
    if trainer.is_global_zero:
        show_fit(result, directory, hints)
    return result


def _outcome(trainer: pl.Trainer, module: Module, callbacks: list[Callback]) -> dict[str, Any]:
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
