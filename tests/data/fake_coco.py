"""Write tiny sets in COCO's layout, and read them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ghostexp.data.datasets.coco import Coco

CATEGORIES = [{"id": 7, "name": "cow"}, {"id": 2, "name": "ant"}]  # labels: ant 0, cow 1
SIZES = [(60, 40), (40, 60), (50, 50), (64, 32), (30, 60), (40, 40), (60, 30)]  # width, height
ANNOTATED = 5  # images, the first ones, that have boxes


def boxes_of(width: int, height: int) -> list[list[float]]:
    """Return two boxes in COCO's format."""
    return [[4, 6, width / 2, height / 3], [width - 20, height - 12, 20, 12]]


def write_part(root: Path, part: str, count: int = len(SIZES), first_id: int = 100, **change: Any) -> Path:
    """Write ROOT/PART2017/, images of noise, and return the annotation file: two boxes an image, one box a crowd.

    change: replacements for lists of the file.
    """
    generator = np.random.default_rng(first_id)
    folder = root / f"{part}2017"
    folder.mkdir(parents=True)
    images, annotations = [], []
    for number, (width, height) in enumerate(SIZES[:count]):
        name = f"{number:012}.png"
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / name)
        images.append({"id": first_id + number, "file_name": name, "width": width, "height": height})
        for box in boxes_of(width, height) if number < ANNOTATED else []:
            one = {"id": len(annotations) + 1, "image_id": first_id + number, "category_id": 2, "bbox": box}
            annotations.append(one | {"area": box[2] * box[3] / 2, "iscrowd": 0, "segmentation": [[0, 0, 1, 1]]})
    annotations[1] |= {"iscrowd": 1}
    annotations[2] |= {"category_id": 7}
    path = root / "annotations" / f"instances_{part}2017.json"
    path.parent.mkdir(exist_ok=True)
    content = {"images": images, "annotations": annotations[::-1], "categories": CATEGORIES}
    path.write_text(json.dumps(content | change))
    return path


def write_set(root: Path) -> Path:
    """Write both parts, seven images each."""
    write_part(root, "train")
    write_part(root, "val", first_id=500)
    return root


def change_entry(path: Path, entries: str, number: int, **values: Any) -> None:
    """Change an entry of an annotation file."""
    content = json.loads(path.read_text())
    content[entries][number] |= values
    path.write_text(json.dumps(content))


def unread_coco(root: Path, **changes: Any) -> Coco:
    """Build the datamodule of two categories, in batches of 2, the shorter side scaled to 24."""
    arguments: dict[str, Any] = {"batch_size": 2, "num_classes": 2, "in_chans": 3, "image_size": 24, "max_size": 48}
    arguments |= {"num_workers": 0, "seed": 3}
    return Coco(root=str(root), **(arguments | changes))


def coco(root: Path, **changes: Any) -> Coco:
    """Build the same datamodule and set it up."""
    module = unread_coco(root, **changes)
    module.setup()
    return module


def tensors_of(batch: Any) -> list[torch.Tensor]:
    """Flatten the tensors of a nested batch."""
    if isinstance(batch, torch.Tensor):
        return [batch]
    parts = batch.values() if isinstance(batch, dict) else batch
    return [tensor for part in parts for tensor in tensors_of(part)]


def map_ids(path: Path, convert: Callable[[int], Any], *keys: str) -> None:
    """Convert the ids under keys (image_id, category_id) of an annotation file, and those that they refer to."""
    content = json.loads(path.read_text())
    for key in keys:
        referred = {"image_id": "images", "category_id": "categories"}[key]
        for entry in content[referred]:
            entry["id"] = convert(entry["id"])
        for entry in content["annotations"]:
            entry[key] = convert(entry[key])
    path.write_text(json.dumps(content))


def map_boxes(path: Path, convert: Callable[[list[float], int, int], list[float]]) -> None:
    """Convert all boxes of an annotation file; convert gets a box and the width and height of its image."""
    content = json.loads(path.read_text())
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    for entry in content["annotations"]:
        entry["bbox"] = convert(entry["bbox"], *sizes[entry["image_id"]])
    path.write_text(json.dumps(content))
