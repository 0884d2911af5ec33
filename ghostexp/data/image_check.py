"""Check that image files are complete before hours of training, without decoding most of them.

For a JPEG, the header and the end marker are checked; for a PNG, the checksums of its chunks. A file that fails, and
every other format, is decoded. A cache beside the images lists the readable files, which are checked again only after
their name, size or time of change has changed.
"""

import hashlib
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ghostexp.data.caches import write_cache
from ghostexp.data.file_lists import ImagePath, file_status, in_threads
from ghostexp.data.image_files import OTHER_SIZE, READER_VERSION, REMEDY, other_size, read_image, read_image_size

log = logging.getLogger(__name__)

File = tuple[ImagePath, tuple[int, int] | None]  # the path of an image, and its annotated width and height

MAX_LISTED = 5  # unreadable images in the error message
ANNOUNCED = 20_000  # images, from which on a check takes long enough to be announced
TAIL = 4096  # bytes that may follow the end of a JPEG
END_OF_JPEG = b"\xff\xd9"  # marker that image data cannot contain


class UnreadableImages(ValueError):
    """Images of a set that cannot be used; the message lists the first ones, the log all."""

    def __init__(self, problems: Sequence[str], count: int) -> None:
        self.problems = problems
        for problem in problems:
            log.warning("%s", problem)
        first = "; ".join(problem.removesuffix(REMEDY) for problem in problems[:MAX_LISTED])
        more = f"; and {len(problems) - MAX_LISTED} more, see run.log" if len(problems) > MAX_LISTED else ""
        verb, remedy = "read", REMEDY.replace(" it", " them")
        if any(OTHER_SIZE in problem for problem in problems):
            verb, remedy = "used", ""
        super().__init__(
            f"{len(problems)} of {count} images cannot be {verb}: {first}{more}{remedy}"
            if len(problems) > 1
            else problems[0]
        )


def check_image(path: ImagePath) -> None:
    """Raise ValueError, as `read_image` would, unless a file is a complete image."""
    with suppress(Exception), path.open("rb") as file, Image.open(file) as image:  # decoding finds the reason
        if image.format == "PNG":
            image.verify()
            return
        if image.format in ("JPEG", "MPO"):
            file.seek(-min(TAIL, file.seek(0, os.SEEK_END)), os.SEEK_END)
            if END_OF_JPEG in file.read():
                return
    read_image(path, channels=3)


def check_size(path: ImagePath, width: int, height: int) -> None:
    """Raise ValueError unless an image has its annotated size, before or after EXIF orientation."""
    if (width, height) not in (size := read_image_size(path), read_image_size(path, is_turned=False)):
        raise other_size(path, size, (width, height))


def find_unreadable(paths: Sequence[ImagePath], cache: Path, sizes: np.ndarray | None = None) -> list[str]:
    """Check image files; returns a message for each that cannot be read, or does not have its annotated size.

    cache: the list of readable files, in a subfolder of a parent of all paths.
    sizes: the annotated heights and widths, (N, 2).
    """
    files: list[File] = [(path, None) for path in paths]
    if sizes is not None:
        files = [(path, (width, height)) for path, (height, width) in zip(paths, sizes.tolist(), strict=True)]
    keys = _keys(files, str(cache.parent.parent))
    known = _read(cache)
    new = np.flatnonzero(~np.isin(keys, known))
    if len(new) >= ANNOUNCED:
        print(f"checking {len(new):,} image files (once; the result is cached)", file=sys.stderr, flush=True)
    problems = list(in_threads(_problem, [files[index] for index in new.tolist()]))
    readable = keys[new[[problem is None for problem in problems]]]
    if len(readable):
        readable = np.union1d(known, readable)
        write_cache(cache, partial(np.save, arr=readable), "images will be checked again in every run")
    return [problem for problem in problems if problem is not None]


def _problem(file: File) -> str | None:
    path, size = file
    try:
        check_image(path)
        if size is not None:
            check_size(path, *size)
    except ValueError as error:
        return str(error)
    return None


def _keys(files: Sequence[File], root: str) -> np.ndarray:
    """Hash the name, status and annotated size of each file, uint64 (N,)."""
    keys = np.empty(len(files), np.uint64)
    states = file_status([path for path, _ in files]).tolist()
    for index, ((path, size), status) in enumerate(zip(files, states, strict=True)):
        text = f"{READER_VERSION}\0{str(path).removeprefix(root)}\0{status}\0{size}"
        keys[index] = int.from_bytes(hashlib.blake2b(os.fsencode(text), digest_size=8).digest())
    return keys


def _read(cache: Path) -> np.ndarray:
    try:
        known = np.load(cache, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return np.empty(0, np.uint64)
    return known if known.dtype == np.uint64 else np.empty(0, np.uint64)
