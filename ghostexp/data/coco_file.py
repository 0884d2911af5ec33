"""Read and check annotation files in COCO's format."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET

from ghostexp.data.coco_annotations import Annotations, GroundTruth
from ghostexp.data.coco_boxes import check_boxes, warn_of_areas
from ghostexp.data.coco_ids import Id, check_unique, read_ids, warn_of_annotation_ids


# Only what is read here: without the segmentations, and without a dictionary for each entry, train2017 with its
# 860,000 annotations takes a third of the memory.
class ImageEntry(msgspec.Struct, gc=False):
    """An entry of "images"; any value may be missing or of any type."""

    id: Any = UNSET
    file_name: Any = UNSET
    height: Any = UNSET
    width: Any = UNSET


class AnnotationEntry(msgspec.Struct, gc=False):
    """An entry of "annotations"."""

    id: Any = UNSET
    image_id: Any = UNSET
    category_id: Any = UNSET
    bbox: Any = UNSET
    area: Any = UNSET
    iscrowd: Any = UNSET


class CategoryEntry(msgspec.Struct, gc=False):
    """An entry of "categories"."""

    id: Any = UNSET
    name: Any = UNSET


class Content(msgspec.Struct):
    """What is read of a file."""

    images: list[ImageEntry]
    annotations: list[AnnotationEntry]
    categories: list[CategoryEntry]


@dataclass(frozen=True)
class CocoFile:
    """The contents of an annotation file."""

    file_names: list[str]
    class_names: tuple[str, ...]  # in the order of the category ids
    annotations: Annotations


def read_coco(path: Path, is_evaluated: bool = False) -> CocoFile:
    """Read an annotation file; ValueError in one line with its path and the problem.

    Boxes without size, of which COCO 2017 has two, and boxes a few pixels outside their image stay in the ground truth
    unchanged, as in pycocotools; training drops the former and clips the latter, with one warning each.
    is_evaluated: also warn of annotation ids and areas with which pycocotools' own metrics would differ.
    """
    content = _parse(path)
    images, annotations = content.images, content.annotations
    image_ids = _unique_ids(path, "images", images)
    sizes = _column(path, "images", images, ("height", "width"), np.int64)
    if (sizes < 1).any():
        raise ValueError(f"{path}: image {image_ids[(sizes < 1).any(1).argmax()]} is without height or width")
    category_ids, class_names = _categories(path, content.categories)
    image_index = _positions(path, "image_id", annotations, image_ids)
    labels = _positions(path, "category_id", annotations, category_ids)
    xywh = _column(path, "annotations", annotations, ("bbox",), np.float64, (4,))
    check_boxes(path, lambda number: _named(annotations, number), xywh, sizes[image_index])
    if is_evaluated:
        warn_of_annotation_ids(path, annotations)
    for entry, box in zip(annotations, xywh, strict=True):
        if entry.area is UNSET:
            entry.area = box[2] * box[3]
        if entry.iscrowd is UNSET:
            entry.iscrowd = 0
    ground_truth = GroundTruth(
        boxes=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1).astype(np.float32),
        labels=labels,
        iscrowd=_column(path, "annotations", annotations, ("iscrowd",), np.int64),
        area=_column(path, "annotations", annotations, ("area",), np.float32),
    )
    if is_evaluated:
        warn_of_areas(path, lambda number: _named(annotations, number), xywh, ground_truth["area"])
    file_names = ["" if entry.file_name is UNSET else str(entry.file_name) for entry in images]
    return CocoFile(
        file_names, class_names, Annotations.of_images(image_ids, sizes, image_index, ground_truth, category_ids)
    )


def _parse(path: Path) -> Content:
    """Parse the images, annotations and categories of a file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        content = msgspec.json.decode(data, type=Content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        content = msgspec.convert(_parse_leniently(path, data), Content)
    for key in ("images", "annotations", "categories"):
        if not getattr(content, key):
            raise ValueError(f"{path}: no {key} in it")
    return content


def _parse_leniently(path: Path, data: bytes) -> dict[str, list[dict[str, Any]]]:
    """Parse a file that is not in UTF-8 or has NaN; ValueError for the others that are refused."""
    try:
        content = json.loads(data)
    except ValueError as error:  # of JSON, or of its encoding
        raise ValueError(f"{path}: not valid JSON ({error})") from None
    for key in ("images", "annotations", "categories"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError(f'{path}: no list "{key}" of objects in it, as COCO\'s instances_*.json have')
    return content


def _unique_ids(path: Path, what: str, entries: Sequence[Any]) -> list[Id]:
    ids = read_ids(path, what, entries)
    check_unique(path, what, ids)
    return ids


def _categories(path: Path, categories: list[CategoryEntry]) -> tuple[tuple[Id, ...], tuple[str, ...]]:
    """Return ids and names of the categories, sorted by id."""
    ids = _unique_ids(path, "categories", categories)
    names = {one: str(one if entry.name is UNSET else entry.name) for one, entry in zip(ids, categories, strict=True)}
    ordered = sorted(names)  # pyright: ignore[reportArgumentType]  # all are integers, or all strings
    return tuple(ordered), tuple(names[one] for one in ordered)


def _column(
    path: Path, what: str, entries: Sequence[Any], keys: Sequence[str], dtype: type, shape: tuple[int, ...] = ()
) -> np.ndarray:
    """Collect values of a shape under keys: (entries, keys, *shape), or with one key (entries, *shape)."""
    try:
        found = [
            [getattr(entry, key) for key in keys] if len(keys) > 1 else getattr(entry, keys[0]) for entry in entries
        ]
        column = np.array(found, dtype=dtype)
    except (TypeError, ValueError, OverflowError):
        column = None
    if column is None or column.shape != (len(entries), *([len(keys)] if len(keys) > 1 else []), *shape):
        wanted, numbers = " and ".join(f'"{key}"' for key in keys), f"{shape[0]} numbers" if shape else "numbers"
        raise ValueError(f"{path}: {what}: {wanted} must be {numbers} in every entry, as in COCO")
    return column


def _positions(path: Path, key: str, annotations: list[AnnotationEntry], known: Sequence[Id]) -> np.ndarray:
    """Return the positions of the annotations' ids among the known ids."""
    position_of = {one: position for position, one in enumerate(known)}
    wanted = read_ids(path, "annotations", annotations, key)
    positions = np.array([position_of.get(one, -1) for one in wanted])
    if (positions < 0).any():
        first = int((positions < 0).argmax())
        entries = {"image_id": "images", "category_id": "categories"}[key]
        found = json.dumps(wanted[first])  # a string in quotes
        raise ValueError(f'{path}: {_named(annotations, first)} has {key} {found}, which is not in "{entries}"')
    return positions


def _named(annotations: list[AnnotationEntry], number: int) -> str:
    found = annotations[number].id
    return f"annotation {f'number {number}' if found is UNSET else found}"
