"""Run directories as a training leaves them, written without one."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ghostexp.runs.directory import RunDirectory

CHOICES = {"model": "ghost_resnet20", "datamodule": "digits", "optimizer": "sgd_nesterov", "scheduler": "onecycle"}
CONFIG = {
    "model": {"ratio": 2, "dw_size": 3, "norm_act": "none", "exclude": [], "network": {"shortcut": "A"}},
    "datamodule": {"train_fraction": 1.0, "num_classes": 10, "batch_size": 64, "validate_on": "test"},
    "optimizer": {"lr": 0.1},
    "scheduler": {"pct_start": 0.3},
    "trainer": {"max_epochs": 3},
    "task": {"name": "fit"},
}


def start(path: Path, seed: int, changes: Mapping[str, Any], choices: Mapping[str, str] | None = None) -> RunDirectory:
    """Start a run, its configuration changed by path."""
    config: dict[str, Any] = json.loads(json.dumps(CONFIG))
    config |= {"seed": seed, "name": path.parent.name, "choices": CHOICES | dict(choices or {})}
    config["datamodule"]["seed"] = seed
    for key, value in changes.items():
        *parents, leaf = key.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    run = RunDirectory(path)
    run.write_config(config)
    return run


def finish(run: RunDirectory, accuracy: float, **others: Any) -> None:
    """Write the result of a run, and a curve that ends there."""
    result = {
        "task": "fit",
        "metrics": {"test": {"test/acc1": accuracy, "test/loss": 0.1}},
        "params": 138_826,
        "macs": 1_311_616,
        "images_per_second": 1000.0,
        "train_seconds": 20.0,
        "test_checkpoint": "last",
        "hardware": "a machine",
        "accelerator": "cpu",
        "threads": 1,
        "git": "abc",
        "versions": {"torch": "2.14.1"},
        "started": "2026-01-02T03:04:05+00:00",
    }
    run.write_result(result | others)
    rows = [f"{2 * epoch},{epoch},{accuracy - 10 * (3 - epoch)},{0.1 / epoch}" for epoch in (1, 2, 3)]
    run.metrics.write_text("\n".join(["step,epoch,val/acc1,lr", *rows]) + "\n")


def study(folder: Path, accuracies: Mapping[int, Sequence[float]], name: str | None = "ratio_ablation") -> Path:
    """Write a finished study of ratios: accuracies by ratio, of seeds 0, 1, 2, ..."""
    jobs = {}
    for ratio, values in accuracies.items():
        for seed, accuracy in enumerate(values):
            run = f"ratio-{ratio}_seed-{seed}"
            jobs[run] = [f"model.ratio={ratio}", f"seed={seed}"]
            finish(start(folder / run, seed, {"model.ratio": ratio}), accuracy, macs=2_516_608 // ratio)
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"study": name, "jobs": jobs}, sort_keys=False))
    return folder
