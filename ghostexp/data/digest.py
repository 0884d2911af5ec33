"""Digest a set of images: names, sizes and labels of its files, or the values where there are no files.

File times and locations do not change a digest.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

import numpy as np

from ghostexp.data.file_lists import ImagePath, file_status

DIGITS = 16  # hexadecimal


class SetDigest(TypedDict):
    """Size and digest of a set, as in result.json and checkpoints."""

    images: int
    sha256: str


DataDigest = Mapping[str, SetDigest]  # of `train` and `test`


def digest_files(paths: Sequence[ImagePath], folder: str, labels: Iterable[object]) -> str:
    """Digest files by their names in a folder, their sizes, and a label of each."""
    digest = hashlib.sha256()
    for path, size, label in zip(paths, file_status(paths)[:, 0].tolist(), labels, strict=True):
        digest.update(os.fsencode(f"{os.path.relpath(str(path), folder)}\0{size}\0{label}\n"))
    return digest.hexdigest()[:DIGITS]


def digest_arrays(*arrays: np.ndarray) -> str:
    """Digest the shapes and values of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:DIGITS]


def describe_difference(before: DataDigest, now: DataDigest, sets: Iterable[str] = ("train", "test")) -> str | None:
    """Describe the first difference of the sets, as `train: 40 images -> 41 images`; None if there is none."""
    for name in sets:
        if name in before and name in now and before[name] != now[name]:
            old, new = (f"{digest[name]['images']} images" for digest in (before, now))
            return f"{name}: {old} -> {new}" if old != new else f"{name}: {old} -> {new}, others"
    return None
