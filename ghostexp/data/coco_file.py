"""Reading COCO's annotation files (https://cocodataset.org/#format-data), and refusing what cannot be meant."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ghostexp.data.boxes import Annotations, Truth

log = logging.getLogger(__name__)

Entries = list[dict[str, Any]]

OVERHANG = 1.0  # pixels that a box may reach outside its image: COCO's own do so by fractions of one


@dataclass(frozen=True)
class CocoFile:
    """What an annotation file says."""

    file_names: list[str]
    class_names: tuple[str, ...]  # in the order of the category ids
    annotations: Annotations


def read_coco(path: Path) -> CocoFile:
    """Read an annotation file; ValueError in one line that names it and what is wrong in it.

    Boxes without size, of which COCO 2017 has two, stay in the truth, as pycocotools keeps them, but are not trained
    on; one line warns of them.
    """
    images, annotations, categories = _parse(path)
    image_ids = _ids(path, "images", images)
    sizes = _column(path, "images", images, ("height", "width"), np.int64)
    if (sizes < 1).any():
        raise ValueError(f"{path}: image {image_ids[(sizes < 1).any(1).argmax()]} is without height or width")
    names = {int(number): str(entry.get("name", number)) for number, entry in _by_id(path, categories)}
    category_ids = tuple(sorted(names))
    owners = _places(path, "image_id", annotations, image_ids)
    labels = _places(path, "category_id", annotations, np.array(category_ids))
    xywh = _column(path, "annotations", annotations, ("bbox",), np.float64, (4,))
    _check_boxes(path, annotations, xywh, sizes[owners])
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
    found = Annotations.of_images(image_ids, sizes, owners, truth, category_ids)
    return CocoFile(file_names, tuple(names[number] for number in category_ids), found)


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


def _ids(path: Path, what: str, entries: Entries) -> np.ndarray:
    """The ids of entries, which have to differ."""
    ids = _column(path, what, entries, ("id",), np.int64)
    values, counts = np.unique(ids, return_counts=True)
    if len(values) < len(ids):
        raise ValueError(f"{path}: {what}: id {values[counts > 1][0]} is there {counts[counts > 1][0]} times")
    return ids


def _by_id(path: Path, entries: Entries) -> zip:
    return zip(_ids(path, "categories", entries), entries, strict=True)


def _places(path: Path, key: str, annotations: Entries, known: np.ndarray) -> np.ndarray:
    """Where among the known ids those of the annotations are."""
    wanted = _column(path, "annotations", annotations, (key,), np.int64)
    order = np.argsort(known, kind="stable")
    places = order[np.searchsorted(known, wanted, sorter=order).clip(max=len(known) - 1)]
    unknown = known[places] != wanted
    if unknown.any():
        first = unknown.argmax()
        of = {"image_id": "images", "category_id": "categories"}[key]
        raise ValueError(f'{path}: {_named(annotations, first)} has {key} {wanted[first]}, which is not in "{of}"')
    return places


def _check_boxes(path: Path, annotations: Entries, xywh: np.ndarray, sizes: np.ndarray) -> None:
    """Refuse boxes that are not in their images; sizes: height and width of each box's image."""
    edges = np.concatenate([-xywh[:, :2], xywh[:, :2] + xywh[:, 2:] - sizes[:, ::-1]], 1)
    right = (xywh[:, 2:] >= 0).all(1) & (edges <= OVERHANG).all(1)  # and no NaN
    wrong = np.flatnonzero(~right)
    if len(wrong):
        first = wrong[0]
        height, width = sizes[first]
        raise ValueError(
            f"{path}: {_named(annotations, first)} has the box {xywh[first].tolist()}; [x, y, width, height] inside "
            f"its image of {width} x {height} is needed ({len(wrong)} of {len(xywh)} boxes are wrong)"
        )
    flat = (xywh[:, 2:] == 0).any(1)
    if flat.any():
        first = _named(annotations, flat.argmax())
        log.warning("%s: %d boxes without width or height are not trained on (%s)", path, flat.sum(), first)


def _named(annotations: Entries, number: np.intp) -> str:
    return f"annotation {annotations[number].get('id', f'number {number}')}"
