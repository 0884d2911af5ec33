"""Save detections: in COCO's format, as AP per class, and drawn on images."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torchvision.transforms.v2.functional import to_pil_image

from ghostexp.data.detection_datamodule import DetectionDataModule
from ghostexp.report.boxes import AnnotatedImage, Box, plot_boxes
from ghostexp.runs.csv_table import write_rows
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.outcome import Outputs
from ghostexp.runs.text_files import write_json
from ghostexp.training.detection_module import DetectionModule, scale_to_original
from ghostexp.training.loggers.wandb import BoxImage
from ghostexp.training.loggers.wandb_outputs import log_boxes

log = logging.getLogger(__name__)

SHOWN = 4  # images drawn after a test
SCORE = 0.5  # boxes below are not drawn
PICTURE = "boxes.png"
Detections = Mapping[str, Tensor]  # boxes (k, 4), scores (k,), labels (k,)
Sample = tuple[Tensor, Mapping[str, Any]]  # a normalised image and its target


@rank_zero_only
def save_detections(
    module: DetectionModule,
    datamodule: DetectionDataModule,
    directory: RunDirectory,
    title: str,
    loggers: Sequence[Logger],
    outputs: Outputs,
) -> None:
    """Write detections.json, per_class.csv and boxes.png of the last test, and log the images of boxes.png to W&B."""
    found = {number: one for number, (one, _) in module.evaluated.items()}
    rows = coco_results(found, datamodule.category_ids, datamodule.text_ids)
    if not rows:
        log.warning(
            "%s: no detections; pycocotools' loadRes raises an IndexError on an empty list: its metrics would be 0",
            directory.path / "detections.json",
        )
    outputs.make("detections.json", write_json, directory.path / "detections.json", rows, indent=None)
    names, precisions = datamodule.class_names, sorted(module.class_precision.items())
    per_class = [{"class": names[label], "map": value} for label, value in precisions]
    outputs.make("per_class.csv", write_rows, directory.path / "per_class.csv", per_class)
    shown = [(image, target) for image, target in _sample(datamodule, SHOWN) if int(target["image_id"]) in found]
    if shown:  # empty if trainer.limit_test_batches left them out
        detections = [found[int(target["image_id"])] for _, target in shown]
        outputs.make(PICTURE, _show, shown, detections, datamodule, title, directory, loggers)


def show_sample(
    network: nn.Module,
    datamodule: DetectionDataModule,
    count: int,
    title: str,
    directory: RunDirectory,
    loggers: Sequence[Logger],
) -> None:
    """Draw a network's detections beside ground truth in `count` test images, and log them to W&B.

    network: in evaluation mode.
    """
    device, found = next(network.parameters()).device, []
    sample = _sample(datamodule, count)
    for image, target in sample:
        with torch.inference_mode():
            (one,) = network([image.to(device)])
        found.append(scale_to_original({name: value.cpu() for name, value in one.items()}, image, target))
    _show(sample, found, datamodule, title, directory, loggers)


def _sample(datamodule: DetectionDataModule, count: int) -> list[Sample]:
    return [pair for batch in datamodule.test_sample(count) for pair in zip(*batch, strict=True)]


def _show(
    sample: Sequence[Sample],
    found: Sequence[Detections],
    datamodule: DetectionDataModule,
    title: str,
    directory: RunDirectory,
    loggers: Sequence[Logger],
) -> None:
    images = [annotate(image, target, one, datamodule) for (image, target), one in zip(sample, found, strict=True)]
    plot_boxes(images, f"{title}\nboxes with a score of {SCORE} or more", directory.path / PICTURE)
    boxes = [BoxImage(one.title, one.picture, _asdicts(one.ground_truth), _asdicts(one.detections)) for one in images]
    log_boxes(loggers, boxes, datamodule.class_names)


def _asdicts(boxes: Iterable[Box]) -> list[dict[str, Any]]:
    return [box._asdict() for box in boxes]


def coco_results(
    found: Mapping[int, Detections], category_ids: Sequence[int | str], text_ids: Mapping[int, str] | None = None
) -> list[dict[str, Any]]:
    """Convert detections by image_id to COCO's results format; boxes become left, top, width, height.

    text_ids: an image's id in the annotation file, where ids are texts.
    """
    id_of = text_ids or {}
    return [
        {
            "image_id": id_of.get(image, image),
            "category_id": category_ids[label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for image, one in sorted(found.items())
        for (x1, y1, x2, y2), label, score in _rows(one, "boxes", "labels", "scores")
    ]


def annotate(
    image: Tensor, target: Mapping[str, Any], found: Detections, datamodule: DetectionDataModule
) -> AnnotatedImage:
    """Combine an evaluated image, its target, and its detections in pixels of the original image."""
    names, (height, width) = datamodule.class_names, target["original_size"].tolist()
    scale = torch.tensor([image.shape[2] / width, image.shape[1] / height] * 2)
    kept = found["scores"] >= SCORE
    shown = {"boxes": found["boxes"][kept] * scale, "labels": found["labels"][kept], "scores": found["scores"][kept]}
    ground_truth = [Box(x1, y1, x2, y2, n, names[int(n)]) for (x1, y1, x2, y2), n in _rows(target, "boxes", "labels")]
    picture = to_pil_image(datamodule.denormalize(image))
    image_id = int(target["image_id"])
    return AnnotatedImage(
        f"image {datamodule.text_ids.get(image_id, image_id)}", picture, ground_truth, boxes_of(shown, names)
    )


def boxes_of(found: Detections, names: Sequence[str]) -> list[Box]:
    """Convert detections to boxes to draw, lowest score first, so that the highest lie on top."""
    rows = list(_rows(found, "boxes", "labels", "scores"))[::-1]
    return [Box(x1, y1, x2, y2, label, names[int(label)], score) for (x1, y1, x2, y2), label, score in rows]


def _rows(columns: Mapping[str, Tensor], *names: str) -> Iterable[tuple[Any, ...]]:
    return zip(*(columns[name].tolist() for name in names), strict=True)
