"""Repeat the test figure of an earlier run."""

from pathlib import Path
from typing import Any

from ghostexp.runs.directory import RunDirectory
from ghostexp.tasks import build
from ghostexp.tasks.closing import figures_of, place_of, show_test
from ghostexp.training.checkpoints import load_weights


def run(config: build.Config, directory: RunDirectory) -> dict[str, Any]:
    """Test `best.ckpt` or `last.ckpt` of `run=DIR`; without a choice, the one that the run itself tested.

    Raises ValueError: no `run=DIR`, no such checkpoint, or one of another network.
    """
    if config["run"] is None:
        raise ValueError("task=test: needs run=DIR, the directory of an earlier run")
    earlier = RunDirectory(Path(config["run"]))
    chosen = config["task"]["checkpoint"] or ("best" if config["datamodule"]["split"] == "val" else "last")
    if chosen not in ("best", "last"):
        raise ValueError(f"task.checkpoint={chosen}: best or last")
    datamodule = build.datamodule_of(config)
    network, cost = build.network_of(config)
    classifier = build.classifier_of(config, network)
    load_weights(classifier, earlier.best if chosen == "best" else earlier.last)
    trainer = build.trainer_of(config, [], [], directory)
    trainer.test(classifier, datamodule=datamodule, verbose=False)
    result = {
        "run": config["run"],
        "tested": chosen,
        "params": cost.params,
        "macs": cost.macs,
        "metrics": {"test": figures_of(classifier, "test/")},
    } | place_of(trainer)
    if trainer.is_global_zero:
        show_test(result, directory)
    return result
