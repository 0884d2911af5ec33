"""Predict boxes in image files with a trained detector."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL.Image import Image
from torch import Tensor

from ghostexp.data.detection_datamodule import DetectionDataModule
from ghostexp.data.image_files import display_name
from ghostexp.report.boxes import Box, draw_bounding_boxes
from ghostexp.runs.csv_table import write_rows
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.text_files import write_json
from ghostexp.tasks.common import instantiate
from ghostexp.tasks.common.detection_outputs import boxes_of
from ghostexp.tasks.common.input_images import ImageFiles, decode_batches
from ghostexp.tasks.common.load_model import LoadedModel, inference_device, set_up_test
from ghostexp.training.detection_module import scale_to_original
from ghostexp.validation import notice

SHOWN = 40  # images on the terminal


class ImageDetections(NamedTuple):
    """An image file, its width and height, and its boxes in its own pixels, highest score last."""

    path: Path
    size: tuple[int, int]
    boxes: list[Box]


def predict_boxes(
    trained: LoadedModel, config: instantiate.Config, files: ImageFiles, directory: RunDirectory
) -> tuple[dict[str, Any], dict[str, str]]:
    """Write predictions.json (COCO's layout, with scores), predictions.csv, and each image with its boxes in `images/`.

    Boxes with a score below `task.score_threshold` are neither drawn nor printed.
    Returns entries of result.json, and the reasons why files are unreadable.
    """
    threshold, datamodule = config["task"]["score_threshold"], instantiate.build_datamodule(config)
    assert isinstance(datamodule, DetectionDataModule)
    names, numbers = _classes(trained, datamodule)
    device = inference_device(config)
    network, transform = trained.network.to(device).eval(), datamodule.eval_transform()
    (directory.path / "images").mkdir(exist_ok=True)
    predictions: list[ImageDetections] = []
    unreadable: dict[str, str] = {}

    def read(picture: Image) -> tuple[Image, Tensor]:
        return picture, transform(picture)

    for batch in decode_batches(files.paths, read, 3, datamodule.batch_size):
        unreadable |= {display_name(str(path)): str(error) for path, error in batch if isinstance(error, ValueError)}
        pictures = [(path, *pair) for path, pair in batch if not isinstance(pair, ValueError)]
        if not pictures:
            continue
        with torch.inference_mode():
            found = network([image.to(device) for _, _, image in pictures])
        for (path, picture, image), one in zip(pictures, found, strict=True):
            original = {"original_size": torch.tensor([picture.height, picture.width], device=device)}
            boxes = boxes_of(scale_to_original(one, image, original), names)
            seen = [box for box in boxes if (box.score or 0) >= threshold]
            drawn = directory.path / "images" / f"{len(predictions):05}-{path.stem}.jpg"
            try:
                draw_bounding_boxes(picture, seen).save(drawn, quality=90)
            except (OSError, ValueError) as error:  # of its size, or its name
                notice(f"{display_name(str(path))}: its picture with boxes cannot be written ({error})")
            predictions.append(ImageDetections(path, picture.size, boxes))
    _write(predictions, list(zip(numbers, names, strict=True)), unreadable, directory)
    _show(predictions, threshold, directory)
    return {"images": len(predictions), "boxes": sum(len(image.boxes) for image in predictions)}, unreadable


def _classes(trained: LoadedModel, datamodule: DetectionDataModule) -> tuple[tuple[str, ...], tuple[int | str, ...]]:
    """Return names and category ids of the labels; those of the data if the checkpoint has none."""
    if trained.class_names and trained.category_ids:
        return trained.class_names, trained.category_ids
    set_up_test(datamodule)
    return datamodule.class_names, datamodule.category_ids


def _write(
    predictions: Sequence[ImageDetections],
    categories: Sequence[tuple[int | str, str]],
    unreadable: dict[str, str],
    directory: RunDirectory,
) -> None:
    """Write both files; categories: id and name of each label."""
    images, annotations, rows = [], [], []
    for number, (path, (width, height), boxes) in enumerate(predictions):
        images.append({"id": number, "file_name": display_name(str(path)), "width": width, "height": height})
        for left, top, right, bottom, label, name, score in reversed(boxes):
            sides = {"left": left, "top": top, "width": right - left, "height": bottom - top}
            rows.append({"path": display_name(str(path)), "class": name, "score": score, **sides})
            annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": categories[label][0]}
            area = sides["width"] * sides["height"]
            annotations.append(annotation | {"bbox": list(sides.values()), "area": area, "iscrowd": 0, "score": score})
    content = {"images": images, "annotations": annotations, "unreadable": unreadable}
    content["categories"] = [{"id": number, "name": name} for number, name in categories]
    write_json(directory.path / "predictions.json", content, indent=None)
    write_rows(directory.path / "predictions.csv", rows)


def _show(predictions: Sequence[ImageDetections], threshold: float, directory: RunDirectory) -> None:
    """Print the boxes of the first images, highest score first."""
    names = [display_name(str(image.path)) for image in predictions[:SHOWN]]
    width = max(map(len, names), default=0)
    for name, image in zip(names, predictions, strict=False):
        seen = [f"{box.name} {box.score:.2f}" for box in reversed(image.boxes) if (box.score or 0) >= threshold]
        print(f"{name:<{width}}  {', '.join(seen) or f'no box with a score >= {threshold}'}")
    if len(predictions) > SHOWN:
        print(f"... and {len(predictions) - SHOWN} more")
    print(f"outputs: {directory.path}")
