"""What a task says at its end."""

from typing import Any

import lightning.pytorch as pl
import torch

from ghostexp.data.base import DataModule
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.provenance import cpu
from ghostexp.runs.score import format_number, score_of, title_of
from ghostexp.training.module import Module


def figures_of(module: Module, *prefixes: str) -> dict[str, float]:
    """The latest figures whose names begin with one of the prefixes."""
    return {name: value for name, value in module.figures.items() if name.startswith(prefixes)}


def baselines_of(datamodule: pl.LightningDataModule) -> dict[str, float]:
    """Test accuracy, in percent, of methods that need no network, where the data know any."""
    baselines = getattr(datamodule, "baselines", None)
    return baselines() if baselines else {}


def data_of(datamodule: pl.LightningDataModule) -> dict[str, Any]:
    """The digest of the data, by which later commands see whether they are the same."""
    return {"data": dict(datamodule.digest())} if isinstance(datamodule, DataModule) else {}


def place_of(trainer: pl.Trainer) -> dict[str, Any]:
    """On what a task ran."""
    device = trainer.strategy.root_device
    return {
        "accelerator": device.type,
        "devices": trainer.num_devices,
        "nodes": trainer.num_nodes,
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu(),
        "threads": torch.get_num_threads(),
    }


def show_fit(result: dict[str, Any], run: RunDirectory, hints: list[str]) -> None:
    """Print the closing table of a training."""
    test, best = result["metrics"]["test"], result["metrics"]["best"]
    score = score_of(test)
    rows = [("test figure", "none: there was nothing to find in what was tested")]
    if score is not None:
        rows = [(f"test {title_of(score)}", f"{test[score]:.2f} %  ({result['tested']} epoch)")]
    if "test/acc5" in test:
        rows.append(("top-5", f"{test['test/acc5']:.2f} %"))
    if result["tested"] == "best" and score is not None:
        value = best[score.replace("test/", "val/")]
        rows.append(("best on validation", f"{value:.2f} %  (epoch {best['epoch'] + 1})"))
    rows += [(name, f"{value:.2f} %") for name, value in result["baselines"].items()]
    rows += [
        ("parameters", f"{result['params']:,}"),
        ("MACs per image", f"{result['macs']:,}"),
        ("training", f"{result['epochs']} epochs, {result['train_s']:.1f} s, {_rate(result['img_s'])}"),
        ("everything is in", str(run.path)),
    ]
    _print(rows + [("W&B", hint) for hint in hints])


def show_test(result: dict[str, Any], run: RunDirectory, hints: list[str]) -> None:
    """Print the closing table of a test."""
    figures = [(name, _with_unit(name, value)) for name, value in _test(result).items()]
    average = ", EMA average" if "ema" in result else ""
    source = result["source"] + (f" ({result['tested']}{average})" if result["tested"] else "")
    rows = [*figures, ("weights", source), ("everything is in", str(run.path))]
    _print(rows + [("W&B", hint) for hint in hints])


def _with_unit(name: str, value: float) -> str:
    return format_number(value) if "loss" in name else f"{value:.4f} %"


def _test(result: dict[str, Any]) -> dict[str, float]:
    return result["metrics"]["test"]


def _rate(rate: float | None) -> str:
    return f"{rate:,.0f} img/s" if rate else "no rate measured"


def _print(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows))
