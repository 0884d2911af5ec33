"""Look inside a trained network: figures, tables and a page in words."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ghostexp.analysis.inside import measure
from ghostexp.analysis.kernels import chance, shares
from ghostexp.analysis.layers import choose, ghost_kernels, makes_ghosts
from ghostexp.data.detection import DetectionDataModule
from ghostexp.models.contract import Network
from ghostexp.models.detection import DetectionNetwork
from ghostexp.report.inside_page import page
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.table import write_rows
from ghostexp.runs.text_files import write_atomically
from ghostexp.tasks import build
from ghostexp.tasks.detections import show_sample
from ghostexp.tasks.inside_drawing import Found, Layers, draw_layers, draw_summaries
from ghostexp.tasks.inside_rows import ghost_rows, layer_rows, pair_rows
from ghostexp.tasks.trained import Trained, check_whole, images_of, inference_device, trained_network
from ghostexp.training.wandb_logger import finish, log_images


@dataclass(frozen=True)
class Look:
    """A trained network, its layers, what was measured in them, and the images to draw, as it and we see them."""

    trained: Trained
    layers: Layers
    found: Found
    images: Tensor
    pixels: Tensor
    seen: str  # on what it was measured


def run(config: build.Config, directory: RunDirectory) -> dict[str, Any]:
    """Measure `task.layers` on `task.images` test images, draw them for `task.shown`, and say it in README.md.

    Of a detector, draw what it finds in `task.shown` test images beside what is there.
    Raises ValueError: no trained network, no such layer, no data.
    """
    for key in ("images", "shown"):
        check_whole(config, key, 1)
    trained = trained_network(config | {"compile": False})
    if isinstance(trained.network, DetectionNetwork):
        return _show_detections(trained, config, directory)
    look, title = take(trained, config), config["name"]
    tables = {"layers": layer_rows(look.found), "ghosts": ghost_rows(look.found), "pairs": pair_rows(look.found)}
    kinds = kinds_of(look.layers, look.found)
    network = look.trained.network
    drawn = draw_layers(network, look.layers, look.found, look.images, look.pixels, title, directory.path)
    drawn += draw_summaries(tables, kinds, title, directory.path)
    for name, rows in tables.items():
        if rows:
            write_rows(directory.path / f"{name}.csv", rows)
    text = page(title, look.trained.source, look.seen, tables, kinds)
    write_atomically(directory.path / "README.md", text)
    result = look.trained.record() | {"layers": tables["layers"], "kinds": kinds}
    loggers = build.loggers_of(config, directory)
    log_images(loggers, drawn)
    hints = finish(loggers, result, exit_code=0)
    print(text, *(f"W&B: {hint}" for hint in hints), f"everything is in {directory.path}", sep="\n")
    return result


def _show_detections(trained: Trained, config: build.Config, directory: RunDirectory) -> dict[str, Any]:
    device, datamodule = inference_device(config), build.datamodule_of(config)
    assert isinstance(datamodule, DetectionDataModule)
    datamodule.setup("test")
    network, shown = trained.network.to(device).eval(), config["task"]["shown"]
    loggers, result = build.loggers_of(config, directory), trained.record()
    show_sample(network, datamodule, shown, config["name"], directory, loggers)
    datamodule.teardown("test")
    hints = finish(loggers, result, exit_code=0)
    print(*(f"W&B: {hint}" for hint in hints), f"everything is in {directory.path}", sep="\n")
    return result


def take(trained: Trained, config: build.Config) -> Look:
    """Measure the layers that a configuration asks for; branches that only training needs are folded before."""
    count, shown = config["task"]["images"], config["task"]["shown"]
    device = inference_device(config)
    network = trained.network.to(device).eval()
    assert isinstance(network, Network)
    network.reparameterize()
    datamodule = images_of(config)
    datamodule.setup("test")

    def sample(count: int) -> Iterable[Tensor]:
        return (images.to(device) for images, _ in datamodule.test_sample(count))

    layers = choose(network, _wanted(config), next(iter(sample(1))))
    found = measure(network, layers, lambda: sample(count))
    images = torch.cat(list(sample(shown)))
    datamodule.teardown("test")
    seen = f"{min(count, datamodule.test_images)} test images of `{type(datamodule).__name__}`"
    return Look(trained, layers, found, images, datamodule.denormalised(images.cpu()), seen)


def _wanted(config: build.Config) -> list[str] | None:
    """What `task.layers` names; a single name needs no brackets."""
    wanted = config["task"]["layers"]
    return wanted if wanted is None else [str(name) for name in (wanted if isinstance(wanted, list) else [wanted])]


def kinds_of(layers: Layers, found: Found) -> dict[str, dict[str, float]]:
    """Shares of kinds of filters, by layer that makes ghosts, and for noise of each size of filter among them."""
    kinds = {name: shares(inside.kernels) for name, inside in found.items() if inside.kernels}
    sides = sorted({ghost_kernels(module).shape[-1] for module in layers.values() if makes_ghosts(module)})
    return kinds | {"noise" if len(sides) == 1 else f"noise {side} x {side}": chance(side) for side in sides}
