"""Repeat the test figure of an earlier run, or measure that of weights from elsewhere."""

from typing import Any

from ghostexp.runs.directory import RunDirectory
from ghostexp.tasks import build
from ghostexp.tasks.closing import figures_of, place_of, show_test
from ghostexp.tasks.trained import trained_network


def run(config: build.Config, directory: RunDirectory) -> dict[str, Any]:
    """Test a trained network.

    Raises ValueError: neither `run=DIR` nor `model.weights`, no such checkpoint, or one of another network.
    """
    trained = trained_network(config)
    classifier = build.classifier_of(config, trained.network)
    trainer = build.trainer_of(config, [], [], directory)
    trainer.test(classifier, datamodule=build.datamodule_of(config), verbose=False)
    result = trained.record() | {"metrics": {"test": figures_of(classifier, "test/")}} | place_of(trainer)
    if trainer.is_global_zero:
        show_test(result, directory)
    return result
