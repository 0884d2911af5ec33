"""Say what a trained network sees in image files."""

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
from ghostexp.tasks.common.input_images import ImageFiles, decoded, find_images
from ghostexp.tasks.common.load_model import (
    LoadedModel,
    build_classification_data,
    check_fraction,
    check_int,
    inference_device,
    load_trained_model,
)
from ghostexp.tasks.common.predict_detection import predict_boxes
from ghostexp.validation import notice

SHOWN = 40  # images on the terminal


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image, best first; truth is its folder's name where that is a class."""

    path: str
    truth: str | None
    classes: list[str]
    probabilities: list[float]


def run(config: instantiate.Config, directory: RunDirectory) -> dict[str, Any]:
    """Predict the images of `task.input`, write predictions.json and predictions.csv, and print the first ones.

    A classifier names classes; a detector finds boxes, and draws them.

    Raises ValueError: no images there, no trained network, or, when all others are written, some without a prediction.
    """
    where = str(config["task"]["input"])
    files = find_images(where)
    if files.left_out:
        notice(f"task.input={where}: {len(files.left_out)} files left out ({count_extensions(files.left_out)})")
    check_int(config, "top_k", 1)
    check_fraction(config, "score_threshold")
    trained = load_trained_model(config)
    is_detector = isinstance(trained.network, DetectionModel)
    outcome, unreadable = (predict_boxes if is_detector else predict_classes)(trained, config, files, directory)
    if unreadable:
        print(*(f"skipped {reason}" for reason in unreadable.values()), sep="\n", file=sys.stderr)
        counted = f"{len(unreadable)} of {len(files.paths)} images have no prediction"
        raise ValueError(f"task.input={where}: {counted}; the others are in {directory.path}/predictions.csv")
    return trained.record() | outcome


def predict_classes(
    trained: LoadedModel, config: instantiate.Config, files: ImageFiles, directory: RunDirectory
) -> tuple[dict[str, Any], dict[str, str]]:
    """Name the most probable classes of each image; returns what result.json says, and why files have no prediction."""
    top, datamodule = config["task"]["top_k"], build_classification_data(config)
    names = class_names(trained, datamodule)
    device = inference_device(config)
    network = trained.network.to(device).eval()
    done: list[Prediction] = []
    unreadable: dict[str, str] = {}
    for batch in decoded(files.paths, datamodule.eval_transform(), datamodule.in_chans, datamodule.batch_size):
        unreadable |= {display_name(str(path)): str(image) for path, image in batch if isinstance(image, ValueError)}
        images = {path: image for path, image in batch if isinstance(image, Tensor)}
        if images:
            with torch.inference_mode():
                probabilities = network(torch.stack(list(images.values())).to(device)).float().softmax(1)
            is_finite = torch.isfinite(probabilities).all(1).cpu()
            bad = [path for path, good in zip(images, is_finite.tolist(), strict=True) if not good]
            unreadable |= {str(path): f"{path}: the network's outputs are not finite numbers" for path in bad}
            done += named(
                [path for path in images if path not in bad], files, probabilities.cpu()[is_finite], names, top
            )
    _write(done, unreadable, directory)
    _show(done, directory)
    return {"images": len(done)} | accuracy(done), unreadable


def named(
    paths: Sequence[Path], files: ImageFiles, probabilities: Tensor, names: tuple[str, ...], top: int
) -> list[Prediction]:
    """The `top` classes of each image, from probabilities (N, num_classes)."""
    shown = readable(names)
    of_folder = dict(zip(names, shown, strict=True))
    best = probabilities.topk(min(top, len(names)))
    done = []
    for path, chosen, values in zip(paths, best.indices.tolist(), best.values.tolist(), strict=True):
        folder = files.truth(path, of_folder)
        truth = None if folder is None else of_folder[folder]
        done.append(Prediction(display_name(str(path)), truth, [shown[i] for i in chosen], values))
    return done


def accuracy(done: Sequence[Prediction]) -> dict[str, float]:
    """Percent right, of the images whose folder says what they are; nothing if there are none."""
    right = [prediction.classes[0] == prediction.truth for prediction in done if prediction.truth is not None]
    return {"with_truth": len(right), "acc1": 100 * sum(right) / len(right)} if right else {}


def _write(done: Sequence[Prediction], unreadable: dict[str, str], directory: RunDirectory) -> None:
    content = {"predictions": [asdict(prediction) for prediction in done], "unreadable": unreadable}
    write_json(directory.path / "predictions.json", content)
    rows = []
    for prediction in done:
        row: dict[str, Any] = {"path": prediction.path, "truth": prediction.truth}
        for place, (name, value) in enumerate(zip(prediction.classes, prediction.probabilities, strict=True), 1):
            row |= {f"class_{place}": name, f"probability_{place}": value}
        rows.append(row)
    write_rows(directory.path / "predictions.csv", rows)


def _show(done: Sequence[Prediction], directory: RunDirectory) -> None:
    right = accuracy(done)
    rows = [["image", "folder" if right else "", "classes"]]
    for prediction in done[:SHOWN]:
        guesses = zip(prediction.classes, prediction.probabilities, strict=True)
        guessed = ", ".join(f"{name} {100 * value:.1f} %" for name, value in guesses)
        rows.append([prediction.path, prediction.truth or "", guessed])
    if len(done) > SHOWN:
        rows.append([f"... and {len(done) - SHOWN} more", "", ""])
    paths, folders = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"{path:<{paths}}  {folder:<{folders}}  {guessed}".rstrip() for path, folder, guessed in rows]
    if right:
        lines.append(f"{right['acc1']:.2f} % of {right['with_truth']} images are of the class that their folder names")
    print(*lines, f"everything is in {directory.path}", sep="\n")
