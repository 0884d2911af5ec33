"""Repeat the test figure of an earlier run, or measure that of weights from elsewhere."""

from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.outcome import Outcome, Outputs
from ghostexp.tasks import build
from ghostexp.tasks.closing import data_of, figures_of, place_of, show_test
from ghostexp.tasks.tested import keep_tested
from ghostexp.tasks.trained import trained_network
from ghostexp.training.wandb_logger import finish


def run(config: build.Config, directory: RunDirectory) -> Outcome:
    """Test a trained network.

    Raises ValueError: neither `run=DIR` nor `model.weights`, no such checkpoint, or one of another network.
    """
    datamodule = build.datamodule_of(config)
    trained = trained_network(config)
    module = build.module_of(config, trained.network)
    loggers = build.loggers_of(config, directory)
    trainer = build.trainer_of(config, [], [], directory)
    trainer.test(module, datamodule=datamodule, verbose=False)
    result = trained.record() | {"metrics": {"test": figures_of(module, "test/")}} | place_of(trainer)
    result |= data_of(datamodule) if trainer.is_global_zero else {}

    def make_outputs(outputs: Outputs) -> None:
        where = (module, datamodule, directory, config["name"], loggers)
        outputs.make("tables and pictures", keep_tested, *where, outputs)
        hints = outputs.make("W&B", finish, loggers, result, exit_code=0) or []
        outputs.make("summary", show_test, result, directory, hints)

    return Outcome(result, make_outputs)
