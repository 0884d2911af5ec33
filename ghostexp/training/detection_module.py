"""LightningModule of the detectors."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics.detection import MeanAveragePrecision

from ghostexp.training.base_module import BaseModule

Target = dict[str, Any]
Columns = dict[str, Tensor]  # by name, a row for each box
Batch = tuple[list[Tensor], list[Target]]

# COCO's twelve metrics, under torchmetrics' names.
COCO_METRICS = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")
COCO_METRICS += ("mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large")
AREAS = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}  # of a metric's objects, in pixels

# COCO's thresholds. Torchmetrics' own are float32: a recall of exactly 0.2 then falls short of the threshold 0.2.
IOUS = np.linspace(0.5, 0.95, 10).tolist()
RECALLS = np.linspace(0, 1, 101).tolist()


class DetectionModule(BaseModule):
    """A detector: the network's own losses, each logged by its name, and COCO's twelve metrics, in percent.

    A batch is images, (3, H, W) each, and targets: `boxes` (n, 4) as left, top, right, bottom in pixels of the image
    and `labels` (n,) from 0 on. Under evaluation a target also has `image_id`, `original_size`, the height and width of
    the image before it was scaled, and `ground_truth`: all annotations in pixels of that.
    Metrics refer to the original images, as COCO's do; those that no object contributes to are left out.
    """

    monitor = "map"

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., Any],
        *,
        loss_names: Sequence[str],
        seed: int = 0,
        interval: str | None = None,
        monitor: str | None = None,
    ) -> None:
        sums = len(loss_names) + 1
        super().__init__(network, optimizer, schedule, seed=seed, sums=sums, interval=interval, monitor=monitor)
        self.loss_names = tuple(loss_names)
        # Detections and ground truth by image_id, on the CPU: of this rank's images, after an evaluation of all.
        self.evaluated: dict[int, tuple[Columns, Columns]] = {}
        self.class_precision: dict[int, float] = {}  # latest mAP of each annotated label, in percent

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the sum of a batch's losses, and add them to the epoch's sums."""
        losses: Mapping[str, Tensor] = self.network(*batch)
        values = torch.stack([losses[name] for name in self.loss_names])
        loss = values.sum()
        count = torch.full_like(loss, len(batch[0]))
        self.accumulate_train_metrics(loss, batch_idx, torch.cat([values.detach() * count, count[None]]).float())
        return loss

    def average_train_metrics(self, sums: list[float]) -> dict[str, float]:
        """Compute the losses of an epoch, and their sum."""
        *losses, images = sums
        means = zip(self.loss_names, losses, strict=True)
        return {"train/loss": sum(losses) / images} | {f"train/loss_{name}": loss / images for name, loss in means}

    def reset_eval_metrics(self) -> None:
        """Drop earlier detections."""
        self.evaluated = {}

    def update_eval_metrics(self, batch: Batch) -> None:
        """Add the detections of a batch."""
        images, targets = batch
        for one, image, target in zip(_on_cpu(self.network(images)), images, targets, strict=True):
            self.evaluated[int(target["image_id"])] = scale_to_original(one, image, target), target["ground_truth"]

    def compute_eval_metrics(self) -> dict[str, float]:
        """Compute COCO's metrics over the images of all devices."""
        self.evaluated = self._gather(self.evaluated)
        values = coco_metrics(self.evaluated.values())
        classes, precisions = (values[name].reshape(-1).tolist() for name in ("classes", "map_per_class"))
        self.class_precision = {int(c): 100 * p for c, p in zip(classes, precisions, strict=True) if p >= 0}
        return {name: 100 * float(values[name]) for name in COCO_METRICS if values[name] >= 0}

    def _gather(self, own: dict[int, Any]) -> dict[int, Any]:
        """Gather the entries of all devices' images, ordered by image id."""
        parts: list[Any] = [own]
        if self.trainer.world_size > 1:
            parts = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, own)
        return dict(sorted((number, value) for part in parts for number, value in part.items()))


def coco_metrics(evaluated: Iterable[tuple[Columns, Columns]]) -> dict[str, Tensor]:
    """Compute COCO's metrics, in [0, 1], of (detections, ground truth) pairs; -1 where no object contributes.

    All images are given at once: torchmetrics hangs when devices have unequally many.
    """
    precision = MeanAveragePrecision(
        iou_thresholds=IOUS, rec_thresholds=RECALLS, class_metrics=True, backend="pycocotools", sync_on_compute=False
    )
    precision.warn_on_many_detections = False  # COCO counts the best hundred of an image
    for detections, ground_truth in evaluated:
        precision.update([detections], [ground_truth])
    return precision.compute()


def _on_cpu(found: Sequence[Columns]) -> list[Columns]:
    """Move the detections of all images to the CPU, in one copy for each column."""
    counts = [len(one["labels"]) for one in found]
    columns = {name: torch.cat([one[name] for one in found]).cpu().split(counts) for name in found[0]}
    return [{name: columns[name][index] for name in columns} for index in range(len(found))]


def scale_to_original(found: Mapping[str, Tensor], image: Tensor, target: Mapping[str, Any]) -> dict[str, Tensor]:
    """Scale the boxes of detections to pixels of the original image."""
    height, width = image.shape[-2:]
    scale = target["original_size"].flip(0).repeat(2) / found["boxes"].new_tensor([width, height] * 2)
    return {**found, "boxes": found["boxes"].float() * scale, "scores": found["scores"].float()}
