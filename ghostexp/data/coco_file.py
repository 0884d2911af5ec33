"""Reading COCO's annotation files (https://cocodataset.org/#format-data), and refusing what cannot be meant."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ghostexp.data.boxes import Annotations, Truth
from ghostexp.data.coco_boxes import check_boxes
from ghostexp.data.coco_ids import Entries, Id, check_unique, read_ids, warn_of_annotation_ids


@dataclass(frozen=True)
class CocoFile:
    """What an annotation file says."""

    file_names: list[str]
    class_names: tuple[str, ...]  # in the order of the category ids
    annotations: Annotations


def read_coco(path: Path, is_evaluated: bool = False) -> CocoFile:
    """Read an annotation file; ValueError in one line that names it and what is wrong in it.

    Boxes without size, of which COCO 2017 has two, and boxes a few pixels outside their image stay in the truth as they
    are, as pycocotools keeps them; training leaves out the former and clips the latter, of which one line warns.
    is_evaluated: pycocotools may be asked for its metrics on this file, so that what it does not bear is mentioned too.
    """
    images, annotations, categories = _parse(path)
    image_ids = _unique_ids(path, "images", images)
    sizes = _column(path, "images", images, ("height", "width"), np.int64)
    if (sizes < 1).any():
        raise ValueError(f"{path}: image {image_ids[(sizes < 1).any(1).argmax()]} is without height or width")
    category_ids, class_names = _categories(path, categories)
    owners = _positions(path, "image_id", annotations, image_ids)
    labels = _positions(path, "category_id", annotations, category_ids)
    xywh = _column(path, "annotations", annotations, ("bbox",), np.float64, (4,))
    check_boxes(path, lambda number: _named(annotations, number), xywh, sizes[owners])
    if is_evaluated:
        warn_of_annotation_ids(path, annotations)
    for entry, (_, _, width, height) in zip(annotations, xywh.tolist(), strict=True):
        entry.setdefault("area", width * height)
        entry.setdefault("iscrowd", 0)
    truth = Truth(
        boxes=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1).astype(np.float32),
        labels=labels,
        iscrowd=_column(path, "annotations", annotations, ("iscrowd",), np.int64),
        area=_column(path, "annotations", annotations, ("area",), np.float32),
    )
    file_names = [str(entry.get("file_name", "")) for entry in images]
    return CocoFile(file_names, class_names, Annotations.of_images(image_ids, sizes, owners, truth, category_ids))


def _unique_ids(path: Path, what: str, entries: Entries) -> list[Id]:
    ids = read_ids(path, what, entries)
    check_unique(path, what, ids)
    return ids


def _categories(path: Path, categories: Entries) -> tuple[tuple[Id, ...], tuple[str, ...]]:
    """Ids and names of the categories in the order of the ids."""
    ids = _unique_ids(path, "categories", categories)
    names = {one: str(entry.get("name", one)) for one, entry in zip(ids, categories, strict=True)}
    ordered = sorted(names)  # pyright: ignore[reportArgumentType]  # all are numbers, or all texts
    return tuple(ordered), tuple(names[one] for one in ordered)


def _parse(path: Path) -> tuple[Entries, Entries, Entries]:
    """The images, annotations and categories of a file."""
    try:
        with path.open("rb") as file:
            content = json.load(file, object_hook=_without_outline)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # of JSON, or of UTF-8
        raise ValueError(f"{path}: not valid JSON ({error})") from None
    lists = [content.get(key) if isinstance(content, dict) else None for key in ("images", "annotations", "categories")]
    for key, entries in zip(("images", "annotations", "categories"), lists, strict=True):
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError(f'{path}: no list "{key}" of objects in it, as COCO\'s instances_*.json have')
        if not entries:
            raise ValueError(f"{path}: no {key} in it")
    return lists[0], lists[1], lists[2]  # pyright: ignore[reportReturnType]


def _without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    """Forget outlines at once: with those of train2017, reading takes 4 GB of memory instead of 2."""
    entry.pop("segmentation", None)
    return entry


def _column(
    path: Path, what: str, entries: Entries, keys: Sequence[str], dtype: type, shape: tuple[int, ...] = ()
) -> np.ndarray:
    """What entries have under keys, each of a shape: (entries, keys, *shape), or with one key (entries, *shape)."""
    try:
        found = [[entry[key] for key in keys] if len(keys) > 1 else entry[keys[0]] for entry in entries]
        column = np.array(found, dtype=dtype)
    except (KeyError, TypeError, ValueError, OverflowError):
        column = None
    if column is None or column.shape != (len(entries), *([len(keys)] if len(keys) > 1 else []), *shape):
        wanted, numbers = " and ".join(f'"{key}"' for key in keys), f"{shape[0]} numbers" if shape else "numbers"
        raise ValueError(f"{path}: {what}: not every one has {wanted} with {numbers}, as COCO's have")
    return column


def _positions(path: Path, key: str, annotations: Entries, known: Sequence[Id]) -> np.ndarray:
    """Where among the known ids those of the annotations are."""
    position_of = {one: position for position, one in enumerate(known)}
    wanted = read_ids(path, "annotations", annotations, key)
    positions = np.array([position_of.get(one, -1) for one in wanted])
    if (positions < 0).any():
        first = int((positions < 0).argmax())
        place = {"image_id": "images", "category_id": "categories"}[key]
        found = json.dumps(wanted[first])  # a text in quotes
        raise ValueError(f'{path}: {_named(annotations, first)} has {key} {found}, which is not in "{place}"')
    return positions


def _named(annotations: Entries, number: int) -> str:
    return f"annotation {annotations[number].get('id', f'number {number}')}"
