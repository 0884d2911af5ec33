"""Shapes: generated scenes with exact boxes, for detectors that train in minutes without a download."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from ghostexp.data.base import Images
from ghostexp.data.boxes import Annotations, Truth
from ghostexp.data.checks import require_whole
from ghostexp.data.detection import DetectionDataModule, DetectionImages
from ghostexp.data.digest import digest_arrays
from ghostexp.data.scenes import CLASSES, SIDE, Scene, draw_scene

TRAIN, TEST = 0, 1


class ArrayPictures:
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
    long_side: None = field(init=False, default=None)  # all images are square
    group_by_aspect: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        require_whole("num_images", self.num_images, 4)
        super().__post_init__()
        self.expect("num_classes", len(CLASSES), f"shapes has {len(CLASSES)} classes")

    def read(self) -> Images[DetectionImages]:
        """Draw all scenes; no scene depends on how many there are."""
        parts = [self._part(TRAIN, self.num_images), self._part(TEST, self.num_images // 4)]
        return Images(*parts, class_names=CLASSES)

    def _part(self, part: int, count: int) -> DetectionImages:
        scenes = [draw_scene(part, number) for number in range(count)]
        annotations = annotations_of(scenes)
        return self.image_set(ArrayPictures(np.stack([scene.image for scene in scenes])), annotations)


def annotations_of(scenes: list[Scene]) -> Annotations:
    """Scenes' objects as COCO has them: area is what was drawn, ids of images count from 0, of categories from 1."""
    count = len(scenes)
    boxes = np.concatenate([scene.boxes for scene in scenes])
    truth = Truth(
        boxes=boxes.astype(np.float32),
        labels=np.concatenate([scene.labels for scene in scenes]),
        iscrowd=np.zeros(len(boxes), dtype=np.int64),
        area=np.concatenate([scene.areas for scene in scenes]).astype(np.float32),
    )
    owners = np.repeat(np.arange(count), [len(scene.boxes) for scene in scenes])
    category_ids = tuple(range(1, len(CLASSES) + 1))
    return Annotations.of_images(range(count), np.full((count, 2), SIDE), owners, truth, category_ids)
