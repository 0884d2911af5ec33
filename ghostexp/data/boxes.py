"""Boxes of objects: what a set's annotations are, and what scaling and flipping an image does to them."""

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

    image_ids: np.ndarray  # int64 (N,)
    sizes: np.ndarray  # int64 (N, 2), height and width
    starts: np.ndarray  # int64 (N + 1,): the boxes of image i are starts[i] ... starts[i + 1] - 1
    truth: Truth  # of all images, one after the other
    category_ids: tuple[int, ...]  # of each label, what the annotation file calls it

    @classmethod
    def of_images(
        cls, image_ids: np.ndarray, sizes: np.ndarray, owners: np.ndarray, truth: Truth, category_ids: tuple[int, ...]
    ) -> "Annotations":
        """Annotations in any order, annotation i being of image number owners[i]."""
        order = np.argsort(owners, kind="stable")
        starts = np.searchsorted(owners[order], np.arange(len(image_ids) + 1))
        return cls(image_ids, sizes, starts, _rows(truth, order), category_ids)

    def of(self, index: int) -> Truth:
        """All annotations of an image, as a copy."""
        return _rows(self.truth, np.arange(self.starts[index], self.starts[index + 1]))

    def with_objects(self) -> np.ndarray:
        """Whether there is something to learn in each image, (N,)."""
        counted = np.concatenate([[0], np.cumsum(learnable(self.truth))])
        return counted[self.starts[1:]] > counted[self.starts[:-1]]


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
        size = v2.query_size(flat_inputs)
        scale = shorter / min(size)
        if self.longest is not None:
            scale = min(scale, self.longest / max(size))
        return {"size": [max(1, round(side * scale)) for side in size]}

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
