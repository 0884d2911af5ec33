"""Test an earlier run again, or weights from another source."""

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.outcome import Outcome, Outputs
from ghostexp.tasks.common import instantiate
from ghostexp.tasks.common.class_names import check_class_names
from ghostexp.tasks.common.load_model import LoadedModel, load_trained_model
from ghostexp.tasks.common.summary import data_digest, hardware_info, metrics_with_prefix, show_test
from ghostexp.tasks.common.test_outputs import save_test_outputs
from ghostexp.training.callbacks.batch_timeout import BatchTimeout
from ghostexp.training.callbacks.checkpoint import load_checkpoint_weights
from ghostexp.training.loggers.wandb_outputs import finish


class CheckClasses(Callback):
    """Checks, before the test, that the data have the classes that the network was trained with."""

    def __init__(self, trained: LoadedModel) -> None:
        self.trained = trained

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check the data, which are set up already."""
        check_class_names(self.trained, trainer.datamodule)  # pyright: ignore[reportAttributeAccessIssue]


def run(config: instantiate.Config, directory: RunDirectory) -> Outcome:
    """Test a trained network.

    Raises ValueError: neither `run=DIR` nor `model.weights`, no such checkpoint, or one of another network.
    """
    datamodule = instantiate.build_datamodule(config)
    trained = load_trained_model(config)
    module = instantiate.build_lightning_module(config, trained.network)
    if config.get("lightning_module") and trained.file is not None:
        load_checkpoint_weights(module, trained.file)  # it may have weights beside the network's
    loggers = instantiate.build_loggers(config, directory)
    callbacks: list[Callback] = [BatchTimeout(instantiate.batch_timeout(config)), CheckClasses(trained)]
    trainer = instantiate.build_trainer(config, callbacks, [], directory, datamodule)
    trainer.test(module, datamodule=datamodule, verbose=False)
    result = (
        trained.record()
        | {"monitor": module.monitor, "metrics": {"test": metrics_with_prefix(trainer, "test/")}}
        | hardware_info(trainer)
    )
    result |= data_digest(datamodule) if trainer.is_global_zero else {}

    def make_outputs(outputs: Outputs) -> None:
        where = (module, datamodule, directory, config["name"], loggers)
        outputs.make("tables and pictures", save_test_outputs, *where, outputs)
        hints = outputs.make("W&B", finish, loggers, result) or []
        outputs.make("summary", show_test, result, directory, hints)

    return Outcome(result, make_outputs)
