"""Inspect the layers of a trained network: figures, tables and a README."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ghostexp.analysis.feature_maps import cheap_filters, has_cheap_operation, select_layers
from ghostexp.analysis.filters import kind_fractions, random_filter_fractions
from ghostexp.analysis.layer_statistics import layer_statistics
from ghostexp.data.detection_datamodule import DetectionDataModule
from ghostexp.models.base import Network
from ghostexp.models.detection.base import DetectionModel
from ghostexp.report.layer_report import build_layer_report
from ghostexp.report.page import write_page
from ghostexp.runs.csv_table import write_rows
from ghostexp.runs.directory import RunDirectory
from ghostexp.tasks.common import instantiate
from ghostexp.tasks.common.detection_outputs import show_sample
from ghostexp.tasks.common.layer_figures import (
    Found,
    Layers,
    draw_layers,
    draw_summaries,
    ghost_rows,
    layer_rows,
    pair_rows,
)
from ghostexp.tasks.common.load_model import (
    LoadedModel,
    build_classification_data,
    inference_device,
    load_trained_model,
    set_up_test,
)
from ghostexp.training.loggers.wandb_outputs import finish, log_images


@dataclass(frozen=True)
class LayerInspection:
    """A trained network, its layers and their statistics.

    images: to draw, normalised, (N, C, H, W). pixels: the same in [0, 1]. data: description of the measured images.
    """

    trained: LoadedModel
    layers: Layers
    found: Found
    images: Tensor
    pixels: Tensor
    data: str


def run(config: instantiate.Config, directory: RunDirectory) -> dict[str, Any]:
    """Measure `task.layers` on `task.num_images` test images, draw them for `task.num_shown`, and write README.md.

    For a detector, draw detections beside ground truth in `task.num_shown` test images.
    Raises ValueError: no trained network, no such layer, no data.
    """
    trained = load_trained_model(config | {"compile": False})
    if isinstance(trained.network, DetectionModel):
        return _show_detections(trained, config, directory)
    inspection, title = inspect_layers(trained, config), config["name"]
    tables = {
        "layers": layer_rows(inspection.found),
        "ghosts": ghost_rows(inspection.found),
        "pairs": pair_rows(inspection.found),
    }
    kinds = filter_kinds(inspection.layers, inspection.found)
    network = inspection.trained.network
    drawn = draw_layers(
        network, inspection.layers, inspection.found, inspection.images, inspection.pixels, title, directory.path
    )
    drawn += draw_summaries(tables, kinds, title, directory.path)
    for name, rows in tables.items():
        if rows:
            write_rows(directory.path / f"{name}.csv", rows)
    text = build_layer_report(title, inspection.trained.source, inspection.data, tables, kinds)
    write_page(directory.path, text)
    result = inspection.trained.record() | {"layers": tables["layers"], "kinds": kinds}
    loggers = instantiate.build_loggers(config, directory)
    log_images(loggers, drawn)
    hints = finish(loggers, result)
    print(text, *(f"W&B: {hint}" for hint in hints), f"outputs: {directory.path}", sep="\n")
    return result


def _show_detections(trained: LoadedModel, config: instantiate.Config, directory: RunDirectory) -> dict[str, Any]:
    device, datamodule = inference_device(config), instantiate.build_datamodule(config)
    assert isinstance(datamodule, DetectionDataModule)
    set_up_test(datamodule)
    network, shown = trained.network.to(device).eval(), config["task"]["num_shown"]
    loggers, result = instantiate.build_loggers(config, directory), trained.record()
    show_sample(network, datamodule, shown, config["name"], directory, loggers)
    datamodule.teardown("test")
    hints = finish(loggers, result)
    print(*(f"W&B: {hint}" for hint in hints), f"outputs: {directory.path}", sep="\n")
    return result


def inspect_layers(trained: LoadedModel, config: instantiate.Config) -> LayerInspection:
    """Measure the layers of a configuration, after fusing training-only branches."""
    count, shown = config["task"]["num_images"], config["task"]["num_shown"]
    device = inference_device(config)
    network = trained.network.to(device).eval()
    assert isinstance(network, Network)
    network.reparameterize()
    datamodule = build_classification_data(config)
    set_up_test(datamodule)

    def sample(count: int) -> Iterable[Tensor]:
        return (images.to(device) for images, _ in datamodule.test_sample(count))

    layers = select_layers(network, _wanted(config), next(iter(sample(1))))
    found = layer_statistics(network, layers, lambda: sample(count))
    images = torch.cat(list(sample(shown)))
    datamodule.teardown("test")
    data = f"{min(count, datamodule.test_images)} test images of `{type(datamodule).__name__}`"
    return LayerInspection(trained, layers, found, images, datamodule.denormalize(images.cpu()), data)


def _wanted(config: instantiate.Config) -> list[str] | None:
    """Return `task.layers` as a list; a single name needs no brackets."""
    wanted = config["task"]["layers"]
    return wanted if wanted is None else [str(name) for name in (wanted if isinstance(wanted, list) else [wanted])]


def filter_kinds(layers: Layers, found: Found) -> dict[str, dict[str, float]]:
    """Compute the fractions of filter kinds by ghost layer, and for random filters of each size used."""
    kinds = {name: kind_fractions(inside.kernels) for name, inside in found.items() if inside.kernels}
    sides = sorted({cheap_filters(module).shape[-1] for module in layers.values() if has_cheap_operation(module)})
    return kinds | {
        "noise" if len(sides) == 1 else f"noise {side} x {side}": random_filter_fractions(side) for side in sides
    }
