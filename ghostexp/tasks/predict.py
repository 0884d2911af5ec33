"""Predict classes or boxes of image files with a trained network."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ghostexp.data.file_lists import count_extensions
from ghostexp.data.image_files import display_name
from ghostexp.models.detection.base import DetectionModel
from ghostexp.runs.csv_table import write_rows
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.text_files import write_json
from ghostexp.tasks.common import instantiate
from ghostexp.tasks.common.class_names import class_names, readable
from ghostexp.tasks.common.export_files import load_exported
from ghostexp.tasks.common.input_images import ImageFiles, decode_batches, find_images
from ghostexp.tasks.common.load_model import (
    LoadedModel,
    build_classification_data,
    inference_device,
    load_trained_model,
)
from ghostexp.tasks.common.predict_detection import predict_boxes
from ghostexp.validation import notice

SHOWN = 40  # images on the terminal


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image, best first; target: its folder's name if that is a class."""

    path: str
    target: str | None
    classes: list[str]
    probabilities: list[float]


def run(config: instantiate.Config, directory: RunDirectory) -> dict[str, Any]:
    """Predict the images of `task.input`, write predictions.json and predictions.csv, and print the first ones.

    A classifier predicts classes; a detector predicts boxes and draws them.

    Raises ValueError: no images there, no trained network, or, after the others are written, unreadable images.
    """
    where = str(config["task"]["input"])
    files = find_images(where)
    trained = load_trained_model(config)
    if files.left_out:
        notice(f"task.input={where}: {len(files.left_out)} files left out ({count_extensions(files.left_out)})")
    is_detector = isinstance(trained.network, DetectionModel)
    if is_detector and config["task"]["runtime"] != "torch":
        raise ValueError(f"task.runtime={config['task']['runtime']}: must be torch for a detector")
    outcome, unreadable = (predict_boxes if is_detector else predict_classes)(trained, config, files, directory)
    if unreadable:
        print(*(f"skipped {reason}" for reason in unreadable.values()), sep="\n", file=sys.stderr)
        counted = f"{len(unreadable)} of {len(files.paths)} images have no prediction"
        raise ValueError(f"task.input={where}: {counted}; all others: {directory.path}/predictions.csv")
    return trained.record() | {"runtime": config["task"]["runtime"]} | outcome


def predict_classes(
    trained: LoadedModel, config: instantiate.Config, files: ImageFiles, directory: RunDirectory
) -> tuple[dict[str, Any], dict[str, str]]:
    """Predict the top classes of each image; returns entries of result.json, and the reason for each failure."""
    top, datamodule = config["task"]["top_k"], build_classification_data(config)
    names = class_names(trained, datamodule)
    is_exported = config["task"]["runtime"] != "torch"
    device = torch.device("cpu") if is_exported else inference_device(config)
    network = load_exported(config, trained) if is_exported else trained.network.to(device).eval()
    predictions: list[Prediction] = []
    unreadable: dict[str, str] = {}
    for batch in decode_batches(files.paths, datamodule.eval_transform(), datamodule.in_chans, datamodule.batch_size):
        unreadable |= {display_name(str(path)): str(image) for path, image in batch if isinstance(image, ValueError)}
        images = {path: image for path, image in batch if isinstance(image, Tensor)}
        if images:
            with torch.inference_mode():
                probabilities = network(torch.stack(list(images.values())).to(device)).float().softmax(1)
            is_finite = torch.isfinite(probabilities).all(1).cpu()
            bad = [path for path, good in zip(images, is_finite.tolist(), strict=True) if not good]
            unreadable |= {str(path): f"{path}: the network's outputs are not finite" for path in bad}
            predictions += build_predictions(
                [path for path in images if path not in bad], files, probabilities.cpu()[is_finite], names, top
            )
    _write(predictions, unreadable, directory)
    _show(predictions, directory)
    return {"images": len(predictions)} | accuracy(predictions), unreadable


def build_predictions(
    paths: Sequence[Path], files: ImageFiles, probabilities: Tensor, names: tuple[str, ...], top: int
) -> list[Prediction]:
    """Convert probabilities (N, num_classes) to the `top` classes of each image."""
    shown = readable(names)
    of_folder = dict(zip(names, shown, strict=True))
    best = probabilities.topk(min(top, len(names)))
    predictions = []
    for path, chosen, values in zip(paths, best.indices.tolist(), best.values.tolist(), strict=True):
        folder = files.label(path, of_folder)
        target = None if folder is None else of_folder[folder]
        predictions.append(Prediction(display_name(str(path)), target, [shown[i] for i in chosen], values))
    return predictions


def accuracy(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Compute the accuracy in percent over images whose folder is a class; empty if there are none."""
    hits = [prediction.classes[0] == prediction.target for prediction in predictions if prediction.target is not None]
    return {"num_labeled": len(hits), "acc1": 100 * sum(hits) / len(hits)} if hits else {}


def _write(predictions: Sequence[Prediction], unreadable: dict[str, str], directory: RunDirectory) -> None:
    content = {"predictions": [asdict(prediction) for prediction in predictions], "unreadable": unreadable}
    write_json(directory.path / "predictions.json", content)
    rows = []
    for prediction in predictions:
        row: dict[str, Any] = {"path": prediction.path, "target": prediction.target}
        for rank, (name, value) in enumerate(zip(prediction.classes, prediction.probabilities, strict=True), 1):
            row |= {f"class_{rank}": name, f"probability_{rank}": value}
        rows.append(row)
    write_rows(directory.path / "predictions.csv", rows)


def _show(predictions: Sequence[Prediction], directory: RunDirectory) -> None:
    correct = accuracy(predictions)
    rows = [["image", "folder" if correct else "", "classes"]]
    for prediction in predictions[:SHOWN]:
        best = zip(prediction.classes, prediction.probabilities, strict=True)
        classes = ", ".join(f"{name} {100 * value:.1f} %" for name, value in best)
        rows.append([prediction.path, prediction.target or "", classes])
    if len(predictions) > SHOWN:
        rows.append([f"... and {len(predictions) - SHOWN} more", "", ""])
    paths, folders = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"{path:<{paths}}  {folder:<{folders}}  {classes}".rstrip() for path, folder, classes in rows]
    if correct:
        lines.append(f"accuracy {correct['acc1']:.2f} % on {correct['num_labeled']} images whose folder is a class")
    print(*lines, f"outputs: {directory.path}", sep="\n")
