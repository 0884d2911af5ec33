"""Print the summary of a run, and collect the common entries of its result."""

import logging
from dataclasses import asdict
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch.cuda import nccl

from ghostexp.analysis.compression import conv_reductions
from ghostexp.data.base import DataModule
from ghostexp.runs.csv_table import write_rows
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.metrics import format_metric, format_number, metric_title, metric_unit, primary_metric
from ghostexp.runs.provenance import cpu, nvidia_driver
from ghostexp.tasks.common import instantiate
from ghostexp.tasks.common.build_network import image_shape
from ghostexp.training.base_module import latest_metrics


def metrics_with_prefix(trainer: pl.Trainer, *prefixes: str) -> dict[str, float]:
    """Select the latest metrics with one of the prefixes."""
    return {name: value for name, value in latest_metrics(trainer).items() if name.startswith(prefixes)}


def compute_baselines(datamodule: pl.LightningDataModule) -> dict[str, float]:
    """Compute the test accuracy in percent of baselines without a network, where the datamodule has any."""
    baselines = getattr(datamodule, "baselines", None)
    return baselines() if baselines else {}


def data_digest(datamodule: pl.LightningDataModule) -> dict[str, Any]:
    """Return the digest of the data, by which later commands detect changes, and of CIFAR what its files are."""
    if not isinstance(datamodule, DataModule):
        return {}
    data_format = getattr(datamodule, "data_format", None)
    return {"data": dict(datamodule.digest()), **({"data_format": data_format} if data_format else {})}


def hardware_info(trainer: pl.Trainer) -> dict[str, Any]:
    """Describe the hardware of a run."""
    device = trainer.strategy.root_device
    return {
        "accelerator": device.type,
        "devices": trainer.num_devices,
        "nodes": trainer.num_nodes,
        **device_info(device),
    }


def device_info(device: torch.device) -> dict[str, Any]:
    """Describe a device and, for a GPU, its software, the settings that decide speed and rounding, and peak memory."""
    is_gpu = device.type == "cuda"
    info: dict[str, Any] = {
        "hardware": torch.cuda.get_device_name(device) if is_gpu else cpu(),
        "cpu": cpu(),
        "threads": torch.get_num_threads(),
    }
    if is_gpu:
        info["gpu"] = {
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "nccl": ".".join(str(part) for part in nccl.version()),
            "driver": nvidia_driver(),
            "tf32": torch.backends.cudnn.allow_tf32,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "memory_bytes": torch.cuda.get_device_properties(device).total_memory,
            "peak_memory_bytes": torch.cuda.max_memory_allocated(device),
        }
    return info


def show_fit(result: dict[str, Any], run: RunDirectory, hints: list[str]) -> None:
    """Print the summary of a training."""
    test, best = result["metrics"]["test"], result["metrics"]["best"]
    metric = primary_metric(result)
    rows = [("test metric", "none: the tested images contain no annotated objects")]
    if metric is not None:
        rows = [
            (
                f"test {metric_title(metric)}",
                f"{format_metric(metric, test[metric])}  ({result['test_checkpoint']} epoch)",
            )
        ]
    if "test/acc5" in test:
        rows.append(("top-5", f"{test['test/acc5']:.2f} %"))
    if result["test_checkpoint"] == "best" and metric is not None:
        value = best[metric.replace("test/", "val/")]
        rows.append(("best on validation", f"{format_metric(metric, value)}  (epoch {best['epoch'] + 1})"))
    rows += [(name, f"{value:.2f} %") for name, value in result["baselines"].items()]
    rows += [
        ("parameters", f"{result['params']:,}"),
        ("MACs per image", f"{result['macs']:,}"),
        (
            "training",
            f"{result['epochs']} epochs, {result['train_seconds']:.1f} s, {_rate(result['images_per_second'])}",
        ),
        ("outputs", str(run.path)),
    ]
    _print(rows + [("W&B", hint) for hint in hints])


def show_test(result: dict[str, Any], run: RunDirectory, hints: list[str]) -> None:
    """Print the summary of a test."""
    metrics = [(name, _with_unit(name, value)) for name, value in result["metrics"]["test"].items()]
    average = ", EMA average" if "ema" in result else ""
    source = result["source"] + (f" ({result['test_checkpoint']}{average})" if result["test_checkpoint"] else "")
    rows = [*metrics, ("weights", source), ("outputs", str(run.path))]
    _print(rows + [("W&B", hint) for hint in hints])


def _with_unit(name: str, value: float) -> str:
    return f"{value:.4f} %" if metric_unit(name) else format_number(value)


def _rate(rate: float | None) -> str:
    return f"{rate:,.0f} img/s" if rate else "img/s not measured"


def _print(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows))


log = logging.getLogger(__name__)


@rank_zero_only
def write_ghostify_report(built: instantiate.BuiltModel, config: instantiate.Config, run: RunDirectory) -> None:
    """Write `ghostify.csv`, a row for each replaced convolution, and print the totals; nothing if none was replaced."""
    rows = conv_reductions(built.network, image_shape(config))
    if not rows:
        return
    write_rows(run.path / "ghostify.csv", [asdict(row) for row in rows])
    cost = built.cost
    params = cost.params + sum(row.params_before - row.params_after for row in rows)
    macs = cost.macs + sum(row.macs_before - row.macs_after for row in rows)
    text = (
        f"{len(rows)} convolutions replaced by ghost modules (ghostify.csv): "
        f"parameters {params:,} -> {cost.params:,}, MACs {macs:,} -> {cost.macs:,}"
    )
    log.info(text)
    print(text)
