"""Digest what a set of images is: names, sizes and labels, or the values themselves where there are no files.

Times, places and how a file was read change nothing.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

import numpy as np

from ghostexp.data.file_lists import file_status

DIGITS = 16  # hexadecimal


class SetDigest(TypedDict):
    """What result.json and checkpoints keep of a set."""

    images: int
    sha256: str


DataDigest = Mapping[str, SetDigest]  # of `train` and `test`


def digest_files(paths: Sequence[str], folder: str, labels: Iterable[object]) -> str:
    """Digest files by their names in a folder, their sizes, and a label of each."""
    digest = hashlib.sha256()
    for path, size, label in zip(paths, file_status(paths)[:, 0].tolist(), labels, strict=True):
        digest.update(os.fsencode(f"{os.path.relpath(path, folder)}\0{size}\0{label}\n"))
    return digest.hexdigest()[:DIGITS]


def digest_arrays(*arrays: np.ndarray) -> str:
    """Digest the shapes and values of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:DIGITS]


def describe_difference(before: DataDigest, now: DataDigest, sets: Iterable[str] = ("train", "test")) -> str | None:
    """Say in which of the sets others are now than before: `train: 40 images -> 41 images`; None if in none."""
    for name in sets:
        if name in before and name in now and before[name] != now[name]:
            old, new = (f"{digest[name]['images']} images" for digest in (before, now))
            return f"{name}: {old} -> {new}" if old != new else f"{name}: {old} -> {new}, others"
    return None
