"""Generated images of shapes with bounding boxes, for detection without a download."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from ghostexp.data.coco_annotations import Annotations, GroundTruth
from ghostexp.data.detection_datamodule import DetectionDataModule, DetectionDataset
from ghostexp.data.digest import digest_arrays
from ghostexp.data.splits import DatasetSplits
from ghostexp.validation import require_int

CLASSES = ("rectangle", "ellipse", "triangle", "cross")
SIDE = 128  # pixels of an image
MAX_OBJECTS = 5
MIN_SIDE, MAX_SIDE = 12, 64  # pixels, of an object
MIN_VISIBLE = 3  # at least 1 / MIN_VISIBLE of each object is visible
MIN_CONTRAST = 150  # between two colours: the sum of three differences in 0 ... 255
NOISE = 24  # grey levels
SEED = 1911_11907

Randint = Callable[..., Any]  # numpy's randint(low, high, shape)


@dataclass(frozen=True)
class ShapesImage:
    """An image and its n objects, later ones in front of earlier ones."""

    image: np.ndarray  # uint8 (SIDE, SIDE, 3)
    boxes: np.ndarray  # int64 (n, 4): left, top, right, bottom
    labels: np.ndarray  # int64 (n,)
    areas: np.ndarray  # int64 (n,): pixels of each object, hidden ones included
    object_map: np.ndarray  # int64 (SIDE, SIDE): index of the visible object, -1 for the background


def generate_image(part: int, number: int) -> ShapesImage:
    """Generate image `number` of a part, each with its own random generator."""
    randint = _generator(part, number)
    colours = [randint(0, 256, 3), randint(0, 256, 3)]
    image = np.stack(colours)[_background(randint)]
    object_map = np.full((SIDE, SIDE), -1)
    boxes, labels, areas = [], [], np.zeros(0, dtype=int)
    for item in range(randint(1, MAX_OBJECTS + 1)):
        label = randint(len(CLASSES))
        object_map, box, area = _add_object(randint, label, item, object_map, areas)
        colours.append(_sample_colour(randint, colours))
        image[object_map == item] = colours[-1]
        boxes.append(box)
        labels.append(label)
        areas = np.append(areas, area)
    image += randint(-NOISE, NOISE + 1, image.shape, dtype=np.int16)
    return ShapesImage(image.clip(0, 255).astype(np.uint8), np.array(boxes), np.array(labels), areas, object_map)


def _generator(part: int, number: int) -> Randint:
    """Build a randint of RandomState, whose streams numpy keeps forever (NEP 19), unlike those of Generator."""
    return partial(np.random.RandomState([SEED, part, number]).randint, dtype=np.int64)


def _sample_colour(randint: Randint, others: list[np.ndarray]) -> np.ndarray:
    """Sample a color, (3,), with enough contrast to others and independent of the class."""
    while True:
        color = randint(0, 256, 3)
        if all(np.abs(color - other).sum() >= MIN_CONTRAST for other in others):
            return color


def _background(randint: Randint) -> np.ndarray:
    """Generate the index of the background's color at each pixel, (SIDE, SIDE): stripes, checks or blotches."""
    y, x = np.mgrid[:SIDE, :SIDE]
    kind, width = randint(3), randint(4, 17)
    if kind == 0:
        along, across = randint(-2, 3, 2)
        return (x * along + y * (across or 1)) // width % 2
    if kind == 1:
        return (x // width + y // width) % 2
    cells = randint(0, 2, (SIDE // 4 + 1, SIDE // 4 + 1))
    return cells[y // width, x // width]


def _add_object(
    randint: Randint, label: int, item: int, object_map: np.ndarray, areas: np.ndarray
) -> tuple[np.ndarray, tuple[int, int, int, int], int]:
    """Add an object that leaves the earlier ones visible; returns the new object map, its box and its area."""
    while True:
        longer = randint(MIN_SIDE, MAX_SIDE + 1)
        sides = [longer, randint(max(MIN_SIDE, longer // 2), longer + 1)]
        height, width = sides if randint(2) else reversed(sides)
        top, left = randint(SIDE - height + 1), randint(SIDE - width + 1)
        mask = shape(label, height, width, apex=randint(width), upside_down=randint(2) == 1)
        after = object_map.copy()
        after[top : top + height, left : left + width][mask] = item
        visible = np.bincount(after[after >= 0], minlength=item)[:item]
        if (visible * MIN_VISIBLE >= areas).all():
            return after, (left, top, left + width, top + height), int(mask.sum())


def shape(label: int, height: int, width: int, apex: int = 0, upside_down: bool = False) -> np.ndarray:
    """Rasterise a shape: its pixels, bool (height, width), which touch all four sides.

    apex: the column of a triangle's apex.
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
        """Return no problems: all images are generated."""
        return []


@dataclass(kw_only=True, eq=False, repr=False)
class Shapes(DetectionDataModule):
    """num_images training images of 128 x 128 and a quarter as many test images; the same on every machine."""

    num_images: int = 600
    max_size: None = field(init=False, default=None)  # all images are square
    aspect_ratio_grouping: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        require_int("num_images", self.num_images, 4)
        super().__post_init__()
        self.check_matches_config("num_classes", len(CLASSES), f"shapes has {len(CLASSES)} classes")

    def read(self) -> DatasetSplits[DetectionDataset]:
        """Generate all images; none depends on num_images."""
        parts = [self._part(TRAIN, self.num_images), self._part(TEST, self.num_images // 4)]
        return DatasetSplits(*parts, class_names=CLASSES)

    def _part(self, part: int, count: int) -> DetectionDataset:
        images = [generate_image(part, number) for number in range(count)]
        annotations = build_annotations(images)
        return self.build_dataset(InMemoryImageSource(np.stack([one.image for one in images])), annotations)


def build_annotations(images: list[ShapesImage]) -> Annotations:
    """Build annotations as in COCO: areas include hidden pixels, image ids count from 0, category ids from 1."""
    count = len(images)
    boxes = np.concatenate([one.boxes for one in images])
    ground_truth = GroundTruth(
        boxes=boxes.astype(np.float32),
        labels=np.concatenate([one.labels for one in images]),
        iscrowd=np.zeros(len(boxes), dtype=np.int64),
        area=np.concatenate([one.areas for one in images]).astype(np.float32),
    )
    image_index = np.repeat(np.arange(count), [len(one.boxes) for one in images])
    category_ids = tuple(range(1, len(CLASSES) + 1))
    return Annotations.of_images(range(count), np.full((count, 2), SIDE), image_index, ground_truth, category_ids)
