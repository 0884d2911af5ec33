"""Generated images of shapes with bounding boxes: detection without a download."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from ghostexp.data.base import DatasetSplits
from ghostexp.data.coco_annotations import Annotations, GroundTruth
from ghostexp.data.detection_datamodule import DetectionDataModule, DetectionDataset
from ghostexp.data.digest import digest_arrays
from ghostexp.validation import require_int

CLASSES = ("rectangle", "ellipse", "triangle", "cross")
SIDE = 128  # pixels of a scene
OBJECTS = 5  # at most
SMALLEST, LARGEST = 12, 64  # pixels, of an object's sides
SHOWN = 3  # at least one part in so many of an object stays in sight
CONTRAST = 150  # at least, between colours that have to be told apart: the sum of three differences in 0 ... 255
NOISE = 24  # grey levels
SEED = 1911_11907

Draw = Callable[..., Any]  # low, high and shape to whole numbers in [low, high), as numpy's randint


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and its n objects, the later ones in front."""

    image: np.ndarray  # uint8 (SIDE, SIDE, 3)
    boxes: np.ndarray  # int64 (n, 4): left, top, right, bottom
    labels: np.ndarray  # int64 (n,)
    areas: np.ndarray  # int64 (n,): pixels drawn, those later hidden too
    image_index: np.ndarray  # int64 (SIDE, SIDE): the object in sight, -1 for the background


def draw_scene(part: int, number: int) -> AnnotatedImage:
    """Scene `number` of a part, each from a generator of its own."""
    draw = _generator(part, number)
    colours = [draw(0, 256, 3), draw(0, 256, 3)]
    image = np.stack(colours)[_pattern(draw)]
    image_index = np.full((SIDE, SIDE), -1)
    boxes, labels, areas = [], [], np.zeros(0, dtype=int)
    for item in range(draw(1, OBJECTS + 1)):
        label = draw(len(CLASSES))
        image_index, box, area = _place(draw, label, item, image_index, areas)
        colours.append(_colour(draw, colours))
        image[image_index == item] = colours[-1]
        boxes.append(box)
        labels.append(label)
        areas = np.append(areas, area)
    image += draw(-NOISE, NOISE + 1, image.shape, dtype=np.int16)
    return AnnotatedImage(image.clip(0, 255).astype(np.uint8), np.array(boxes), np.array(labels), areas, image_index)


def _generator(part: int, number: int) -> Draw:
    """numpy promises that the streams of RandomState never change (NEP 19), unlike those of its successor."""
    return partial(np.random.RandomState([SEED, part, number]).randint, dtype=np.int64)


def _colour(draw: Draw, others: list[np.ndarray]) -> np.ndarray:
    """A colour, (3,), that can be told from others, and says nothing of what has it."""
    while True:
        colour = draw(0, 256, 3)
        if all(np.abs(colour - other).sum() >= CONTRAST for other in others):
            return colour


def _pattern(draw: Draw) -> np.ndarray:
    """Which of two colours the background has at each pixel, (SIDE, SIDE): stripes, checks or blotches."""
    y, x = np.mgrid[:SIDE, :SIDE]
    kind, width = draw(3), draw(4, 17)
    if kind == 0:
        along, across = draw(-2, 3, 2)
        return (x * along + y * (across or 1)) // width % 2
    if kind == 1:
        return (x // width + y // width) % 2
    cells = draw(0, 2, (SIDE // 4 + 1, SIDE // 4 + 1))
    return cells[y // width, x // width]


def _place(
    draw: Draw, label: int, item: int, image_index: np.ndarray, areas: np.ndarray
) -> tuple[np.ndarray, tuple[int, int, int, int], int]:
    """Put an object where it leaves the earlier ones in sight: who is in sight where then, its box and its area."""
    while True:
        longer = draw(SMALLEST, LARGEST + 1)
        sides = [longer, draw(max(SMALLEST, longer // 2), longer + 1)]
        height, width = sides if draw(2) else reversed(sides)
        top, left = draw(SIDE - height + 1), draw(SIDE - width + 1)
        mask = shape(label, height, width, apex=draw(width), upside_down=draw(2) == 1)
        after = image_index.copy()
        after[top : top + height, left : left + width][mask] = item
        in_sight = np.bincount(after[after >= 0], minlength=item)[:item]
        if (in_sight * SHOWN >= areas).all():
            return after, (left, top, left + width, top + height), int(mask.sum())


def shape(label: int, height: int, width: int, apex: int = 0, upside_down: bool = False) -> np.ndarray:
    """Which pixels, bool (height, width), a shape has; it reaches all four sides.

    apex: the column of a triangle's corner.
    """
    y, x = np.mgrid[:height, :width]
    if CLASSES[label] == "rectangle":
        return np.ones((height, width), dtype=bool)
    if CLASSES[label] == "ellipse":
        across, down = (2 * x + 1 - width) * height, (2 * y + 1 - height) * width
        return across**2 + down**2 <= (height * width) ** 2
    if CLASSES[label] == "triangle":
        rows = height - 1 - y if upside_down else y
        left = apex * (height - 1 - rows) // (height - 1)
        right = apex + (width - 1 - apex) * rows // (height - 1)
        return (left <= x) & (x <= right)
    arm_y, arm_x = height // 3, width // 3
    return ((y >= arm_y) & (y < height - arm_y)) | ((x >= arm_x) & (x < width - arm_x))


TRAIN, TEST = 0, 1


class InMemoryImageSource:
    """Images as uint8 (N, H, W, 3)."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __getitem__(self, index: int) -> Image.Image:
        return Image.fromarray(self.images[index])

    def digest(self) -> str:
        """Digest the values."""
        return digest_arrays(self.images)

    def find_unreadable(self, indices: np.ndarray) -> list[str]:
        """None: all are drawn."""
        return []


@dataclass(kw_only=True, eq=False, repr=False)
class Shapes(DetectionDataModule):
    """num_images scenes of 128 x 128 to train and a quarter as many to test; always the same, on every machine."""

    num_images: int = 600
    max_size: None = field(init=False, default=None)  # all images are square
    aspect_ratio_grouping: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        require_int("num_images", self.num_images, 4)
        super().__post_init__()
        self.check_matches_config("num_classes", len(CLASSES), f"shapes has {len(CLASSES)} classes")

    def read(self) -> DatasetSplits[DetectionDataset]:
        """Draw all scenes; no scene depends on how many there are."""
        parts = [self._part(TRAIN, self.num_images), self._part(TEST, self.num_images // 4)]
        return DatasetSplits(*parts, class_names=CLASSES)

    def _part(self, part: int, count: int) -> DetectionDataset:
        scenes = [draw_scene(part, number) for number in range(count)]
        annotations = build_annotations(scenes)
        return self.image_set(InMemoryImageSource(np.stack([scene.image for scene in scenes])), annotations)


def build_annotations(scenes: list[AnnotatedImage]) -> Annotations:
    """Scenes' objects as COCO has them: area is what was drawn, ids of images count from 0, of categories from 1."""
    count = len(scenes)
    boxes = np.concatenate([scene.boxes for scene in scenes])
    truth = GroundTruth(
        boxes=boxes.astype(np.float32),
        labels=np.concatenate([scene.labels for scene in scenes]),
        iscrowd=np.zeros(len(boxes), dtype=np.int64),
        area=np.concatenate([scene.areas for scene in scenes]).astype(np.float32),
    )
    image_index = np.repeat(np.arange(count), [len(scene.boxes) for scene in scenes])
    category_ids = tuple(range(1, len(CLASSES) + 1))
    return Annotations.of_images(range(count), np.full((count, 2), SIDE), image_index, truth, category_ids)
