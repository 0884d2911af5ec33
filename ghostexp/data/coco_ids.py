"""Read the ids of COCO annotation files: integers, as COCO has them, or strings, as other programs write them."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import UNSET

log = logging.getLogger(__name__)

Id = int | str

LARGEST = 2**63  # first integer that does not fit an int64 array


def read_ids(path: Path, what: str, entries: Sequence[Any], key: str = "id") -> list[Id]:
    """Read the ids of entries under a key: all integers (9.0 is 9), or all strings.

    Raises ValueError: an id is missing or of another type, or types are mixed.
    """
    ids: list[Any] = [getattr(entry, key) for entry in entries]
    types = set(map(type, ids))
    if types == {str}:
        return ids
    if not types <= {int, float} or not all(-LARGEST <= number < LARGEST for number in ids):
        raise ValueError(
            f'{path}: {what}: "{key}" must be an integer in every entry, as in COCO, or a string in every entry'
        )
    if float in types:
        broken = next((number for number in ids if number != int(number)), None)
        if broken is not None:
            raise ValueError(f"{path}: {what}: {key} must be an integer or a string, got {broken}")
        return [int(number) for number in ids]
    return ids


def check_unique(path: Path, what: str, ids: Sequence[Id]) -> None:
    """Raise ValueError for a duplicate id."""
    seen: set[Id] = set()
    for one in ids:
        if one in seen:
            raise ValueError(f"{path}: {what}: id {one} is used {ids.count(one)} times")
        seen.add(one)


def warn_of_annotation_ids(path: Path, annotations: Sequence[Any]) -> None:
    """Warn of annotation ids that change pycocotools' metrics: it counts a match with id 0 as no match."""
    ids = [entry.id for entry in annotations]
    if any(one is None or one is UNSET for one in ids):
        problem = "an annotation has no id"
    elif 0 in ids:
        problem = "an annotation has the id 0"
    elif len(set(map(str, ids))) < len(ids):
        problem = "two annotations have the same id"
    else:
        return
    log.warning(
        "%s: %s: pycocotools' own metrics on this file fail or are lower than those here, which do not depend on it; "
        "number the annotations from 1 on",
        path,
        problem,
    )
