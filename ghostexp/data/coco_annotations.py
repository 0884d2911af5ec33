"""Hold the annotations of a detection set, and transform images with their boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxes

MIN_SIDE = 1.0  # pixels: boxes with a shorter side, after scaling, are not trained on


class GroundTruth(TypedDict):
    """All annotations of an image, in pixels of the image as it is on disk."""

    boxes: np.ndarray  # float32 (m, 4): left, top, right, bottom
    labels: np.ndarray  # int64 (m,)
    iscrowd: np.ndarray  # int64 (m,)
    area: np.ndarray  # float32 (m,)


class Target(TypedDict):
    """Training or evaluation target of an image, in pixels of the network's input."""

    boxes: np.ndarray  # float32 (n, 4): left, top, right, bottom
    labels: np.ndarray  # int64 (n,), from 0 on
    image_id: np.ndarray  # int64 ()
    original_size: NotRequired[np.ndarray]  # int64 (2,), height and width on disk; in evaluation only
    ground_truth: NotRequired[GroundTruth]  # in evaluation only


@dataclass(frozen=True)
class Annotations:
    """Annotations of all images of a set, as flat arrays, which workers share where lists would be copied.

    Boxes are as annotated: they may reach a fraction of a pixel outside the image, or have no size.
    """

    image_ids: np.ndarray  # int64 (N,); positions, where the annotation file has strings
    sizes: np.ndarray  # int64 (N, 2), height and width
    starts: np.ndarray  # int64 (N + 1,): the boxes of image i are starts[i] ... starts[i + 1] - 1
    ground_truth: GroundTruth  # of all images, concatenated
    category_ids: tuple[int | str, ...]  # of each label, its id in the annotation file
    text_ids: np.ndarray | None = None  # str (N,): the ids of the images, where the file has strings

    @classmethod
    def of_images(
        cls,
        image_ids: Sequence[int | str],
        sizes: np.ndarray,
        image_index: np.ndarray,
        ground_truth: GroundTruth,
        category_ids: tuple[int | str, ...],
    ) -> "Annotations":
        """Build from annotations in any order, i being of image image_index[i]; ids are all integers or all strings."""
        order = np.argsort(image_index, kind="stable")
        starts = np.searchsorted(image_index[order], np.arange(len(image_ids) + 1))
        ids, texts = np.array(image_ids), None
        if ids.dtype.kind == "U":
            ids, texts = np.arange(len(image_ids)), ids
        return cls(ids.astype(np.int64), sizes, starts, _rows(ground_truth, order), category_ids, texts)

    def of(self, index: int) -> GroundTruth:
        """Return all annotations of an image, as a copy."""
        return _rows(self.ground_truth, np.arange(self.starts[index], self.starts[index + 1]))

    def has_objects(self, left_out: np.ndarray | None = None) -> np.ndarray:
        """Return which images, (N,), have trainable boxes, apart from the annotations left out, (m,)."""
        counts = (
            is_trainable_box(self.ground_truth) if left_out is None else is_trainable_box(self.ground_truth) & ~left_out
        )
        counted = np.concatenate([[0], np.cumsum(counts)])
        return counted[self.starts[1:]] > counted[self.starts[:-1]]

    def too_small(self, min_size: int, max_size: int | None) -> np.ndarray:
        """Return which trainable boxes, (m,), have a side < MIN_SIDE after `ResizeShortestEdge` of their image."""
        image_index = np.repeat(np.arange(len(self.sizes)), np.diff(self.starts))
        scaled = np.array([scaled_size(size, min_size, max_size) for size in self.sizes.tolist()]).reshape(-1, 2)
        sides = self.sizes[image_index, ::-1]  # width, height
        corners = self.ground_truth["boxes"].reshape(-1, 2, 2).clip(0, sides[:, None])
        too_small = ((corners[:, 1] - corners[:, 0]) * (scaled[image_index, ::-1] / sides) < MIN_SIDE).any(1)
        return is_trainable_box(self.ground_truth) & too_small


def _rows(ground_truth: GroundTruth, rows: np.ndarray) -> GroundTruth:
    return GroundTruth(
        boxes=ground_truth["boxes"][rows],
        labels=ground_truth["labels"][rows],
        iscrowd=ground_truth["iscrowd"][rows],
        area=ground_truth["area"][rows],
    )


def is_trainable_box(ground_truth: GroundTruth) -> np.ndarray:
    """Return which annotations, (m,), are single objects with a size; crowds count in evaluation only."""
    sides = ground_truth["boxes"][:, 2:] - ground_truth["boxes"][:, :2]
    return (ground_truth["iscrowd"] == 0) & (sides > 0).all(1)


def evaluated_areas(ground_truth: GroundTruth) -> np.ndarray:
    """Return the areas, (m,), by which torchmetrics groups objects: where they are not > 0, those of the boxes."""
    sides = ground_truth["boxes"][:, 2:] - ground_truth["boxes"][:, :2]
    return np.where(ground_truth["area"] > 0, ground_truth["area"], sides.prod(1))


def scaled_size(size: Sequence[int], min_size: int, max_size: int | None) -> list[int]:
    """Compute height and width with the shorter side scaled to min_size, the longer one to at most max_size."""
    scale = min_size / min(size)
    if max_size is not None:
        scale = min(scale, max_size / max(size))
    return [max(1, round(side * scale)) for side in size]


class ResizeShortestEdge(v2.RandomShortestSize):
    """Scale the shorter side to a random size in [low, high], the longer one to at most max_size.

    Sizes are rounded, as Detectron2's; torchvision's own are cut: 479 pixels of 480 for a side of 698, or none.
    """

    def __init__(self, low: int, high: int, max_size: int | None) -> None:
        super().__init__(range(low, high + 1), max_size)  # pyright: ignore[reportArgumentType]

    def make_params(self, flat_inputs: list[object]) -> dict[str, list[int]]:
        """Choose the height and width to scale to."""
        number = int(torch.randint(len(self.min_size), ())) if len(self.min_size) > 1 else 0
        return {"size": scaled_size(v2.query_size(flat_inputs), self.min_size[number], self.max_size)}


def transform_with_boxes(
    image: Image.Image, ground_truth: GroundTruth, transform: v2.Transform
) -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """Transform an image and its trainable boxes; returns the image, boxes (n, 4) and labels (n,)."""
    chosen = is_trainable_box(ground_truth)
    size = (image.height, image.width)
    before = BoundingBoxes(ground_truth["boxes"][chosen], format="XYXY", canvas_size=size)  # pyright: ignore
    image, after = transform(image, before)
    boxes, has_size = F.sanitize_bounding_boxes(F.clamp_bounding_boxes(after), min_size=MIN_SIDE)
    return image, boxes.as_subclass(Tensor).numpy(), ground_truth["labels"][chosen][has_size.numpy()]
