"""Boxes of objects: what a set's annotations are, and what scaling and flipping an image does to them."""

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

SMALLEST = 1.0  # pixels a side: smaller boxes, after scaling, are nothing that a network could find


class Truth(TypedDict):
    """All annotations of an image, in pixels of the image as it is on disk."""

    boxes: np.ndarray  # float32 (m, 4): left, top, right, bottom
    labels: np.ndarray  # int64 (m,)
    iscrowd: np.ndarray  # int64 (m,)
    area: np.ndarray  # float32 (m,)


class Target(TypedDict):
    """What a network should find in an image, in pixels of the image as the network gets it."""

    boxes: np.ndarray  # float32 (n, 4): left, top, right, bottom
    labels: np.ndarray  # int64 (n,), from 0 on
    image_id: np.ndarray  # int64 ()
    original: NotRequired[np.ndarray]  # int64 (2,), height and width on disk; like `truth` in evaluation only
    truth: NotRequired[Truth]


@dataclass(frozen=True)
class Annotations:
    """What is in the images of a set, as flat arrays, which workers share where lists would be copied.

    Boxes are as they were annotated, which may be a fraction of a pixel outside the image, and without size.
    """

    image_ids: np.ndarray  # int64 (N,); positions, where the annotation file has texts
    sizes: np.ndarray  # int64 (N, 2), height and width
    starts: np.ndarray  # int64 (N + 1,): the boxes of image i are starts[i] ... starts[i + 1] - 1
    truth: Truth  # of all images, one after the other
    category_ids: tuple[int | str, ...]  # of each label, what the annotation file calls it
    text_ids: np.ndarray | None = None  # str (N,): of each image, what the annotation file calls it, where it has texts

    @classmethod
    def of_images(
        cls,
        image_ids: Sequence[int | str],
        sizes: np.ndarray,
        owners: np.ndarray,
        truth: Truth,
        category_ids: tuple[int | str, ...],
    ) -> "Annotations":
        """Annotations in any order, annotation i being of image number owners[i]; ids are all numbers or all texts."""
        order = np.argsort(owners, kind="stable")
        starts = np.searchsorted(owners[order], np.arange(len(image_ids) + 1))
        ids, texts = np.array(image_ids), None
        if ids.dtype.kind == "U":
            ids, texts = np.arange(len(image_ids)), ids
        return cls(ids.astype(np.int64), sizes, starts, _rows(truth, order), category_ids, texts)

    def of(self, index: int) -> Truth:
        """All annotations of an image, as a copy."""
        return _rows(self.truth, np.arange(self.starts[index], self.starts[index + 1]))

    def with_objects(self, left_out: np.ndarray | None = None) -> np.ndarray:
        """Whether there is something to learn in each image, (N,), without the annotations that are left out, (m,)."""
        counts = learnable(self.truth) if left_out is None else learnable(self.truth) & ~left_out
        counted = np.concatenate([[0], np.cumsum(counts)])
        return counted[self.starts[1:]] > counted[self.starts[:-1]]

    def too_small(self, shorter: int, longest: int | None) -> np.ndarray:
        """Whether each annotation, (m,), has a size that scaling its image by `ShortSide` makes too small to learn."""
        owners = np.repeat(np.arange(len(self.sizes)), np.diff(self.starts))
        scaled = np.array([scaled_size(size, shorter, longest) for size in self.sizes.tolist()]).reshape(-1, 2)
        sides = self.sizes[owners, ::-1]  # width, height
        corners = self.truth["boxes"].reshape(-1, 2, 2).clip(0, sides[:, None])
        too_small = ((corners[:, 1] - corners[:, 0]) * (scaled[owners, ::-1] / sides) < SMALLEST).any(1)
        return learnable(self.truth) & too_small


def _rows(truth: Truth, rows: np.ndarray) -> Truth:
    return Truth(
        boxes=truth["boxes"][rows],
        labels=truth["labels"][rows],
        iscrowd=truth["iscrowd"][rows],
        area=truth["area"][rows],
    )


def learnable(truth: Truth) -> np.ndarray:
    """Which annotations, (m,), are of one object that has a size; crowds are left to evaluation."""
    sides = truth["boxes"][:, 2:] - truth["boxes"][:, :2]
    return (truth["iscrowd"] == 0) & (sides > 0).all(1)


def scaled_size(size: Sequence[int], shorter: int, longest: int | None) -> list[int]:
    """Height and width of an image whose shorter side is scaled to `shorter`, the longer one at most to `longest`."""
    scale = shorter / min(size)
    if longest is not None:
        scale = min(scale, longest / max(size))
    return [max(1, round(side * scale)) for side in size]


class ShortSide(v2.Transform):
    """Scale an image until its shorter side is `low`, or by chance up to `high`, but the longer one at most `longest`.

    Detectron2 calls it ResizeShortestEdge.
    """

    def __init__(self, low: int, high: int, longest: int | None) -> None:
        super().__init__()
        self.low = low
        self.high = high
        self.longest = longest

    def make_params(self, flat_inputs: list[object]) -> dict[str, list[int]]:
        """Height and width to scale to."""
        shorter = self.low if self.low == self.high else int(torch.randint(self.low, self.high + 1, ()))
        return {"size": scaled_size(v2.query_size(flat_inputs), shorter, self.longest)}

    def transform(self, inpt: object, params: dict[str, list[int]]) -> object:
        """Scale an image, or its boxes."""
        return F.resize(inpt, params["size"])  # pyright: ignore[reportArgumentType]


def scaled_and_flipped(
    image: Image.Image, truth: Truth, transform: v2.Transform
) -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """An image after a transform, with the boxes (n, 4) and labels (n,) of the objects that are left to be learnt."""
    chosen = learnable(truth)
    size = (image.height, image.width)
    before = BoundingBoxes(truth["boxes"][chosen], format="XYXY", canvas_size=size)  # pyright: ignore
    image, after = transform(image, before)
    boxes, has_size = F.sanitize_bounding_boxes(F.clamp_bounding_boxes(after), min_size=SMALLEST)
    return image, boxes.as_subclass(Tensor).numpy(), truth["labels"][chosen][has_size.numpy()]
