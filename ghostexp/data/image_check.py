"""Check that image files are whole before hours of training, without decoding most of them.

Of a JPEG the header is read, and that its end is there; of a PNG the checksums of its parts. Whatever fails these, and
every other format, is decoded. What is found readable is noted beside the images, and not looked at again before its
name, size or time of change is another.
"""

import hashlib
import logging
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from ghostexp.data.file_lists import file_status, in_threads
from ghostexp.data.image_files import READER_VERSION, REMEDY, read_image

log = logging.getLogger(__name__)

NAMED = 5  # of the unreadable images, in the error
ANNOUNCED = 20_000  # images, from which on a person would wonder what is going on
TAIL = 4096  # bytes that may follow the end of a JPEG
END_OF_JPEG = b"\xff\xd9"  # which the data of an image cannot contain


class UnreadableImages(ValueError):
    """All images of a set that cannot be read; the message names the first ones, the log all."""

    def __init__(self, problems: Sequence[str], count: int) -> None:
        self.problems = problems
        for problem in problems:
            log.warning("%s", problem)
        first = "; ".join(problem.removesuffix(REMEDY) for problem in problems[:NAMED])
        more = f"; and {len(problems) - NAMED} more, see run.log" if len(problems) > NAMED else ""
        super().__init__(
            f"{len(problems)} of {count} images cannot be read: {first}{more}{REMEDY.replace(' it', ' them')}"
            if len(problems) > 1
            else problems[0]
        )


def check_image(path: Path) -> None:
    """Raise ValueError, as `read_image` would, unless a file is a whole image."""
    with suppress(Exception), path.open("rb") as file, Image.open(file) as image:  # decoding says what is wrong
        if image.format == "PNG":
            image.verify()
            return
        if image.format in ("JPEG", "MPO"):
            file.seek(-min(TAIL, file.seek(0, os.SEEK_END)), os.SEEK_END)
            if END_OF_JPEG in file.read():
                return
    read_image(path, channels=3)


def find_unreadable(paths: Sequence[str], cache: Path) -> list[str]:
    """Check image files; returns what is wrong with those that cannot be read.

    cache: the file that keeps which ones were readable, in a folder in a folder above all paths.
    """
    keys = _keys(paths, str(cache.parent.parent))
    known = _read(cache)
    new = np.flatnonzero(~np.isin(keys, known))
    if len(new) >= ANNOUNCED:
        print(f"checking {len(new):,} image files, which is done once", file=sys.stderr, flush=True)
    problems = list(in_threads(_problem, [paths[index] for index in new.tolist()]))
    readable = keys[new[[problem is None for problem in problems]]]
    if len(readable):
        _write(cache, np.union1d(known, readable))
    return [problem for problem in problems if problem is not None]


def _problem(path: str) -> str | None:
    try:
        check_image(Path(path))
    except ValueError as error:
        return str(error)
    return None


def _keys(paths: Sequence[str], root: str) -> np.ndarray:
    """Return a number, uint64 (N,), of what changes when a file does."""
    keys = np.empty(len(paths), np.uint64)
    for index, (path, status) in enumerate(zip(paths, file_status(paths).tolist(), strict=True)):
        text = f"{READER_VERSION}\0{path.removeprefix(root)}\0{status}"
        keys[index] = int.from_bytes(hashlib.blake2b(os.fsencode(text), digest_size=8).digest())
    return keys


def _read(cache: Path) -> np.ndarray:
    try:
        known = np.load(cache, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return np.empty(0, np.uint64)
    return known if known.dtype == np.uint64 else np.empty(0, np.uint64)


def _write(cache: Path, keys: np.ndarray) -> None:
    """Write beside the final name and rename, so that nobody reads half a file; warn where nothing can be written."""
    temporary = cache.with_suffix(f".{socket.gethostname()}-{os.getpid()}.tmp")
    try:
        cache.parent.mkdir(exist_ok=True)
        with temporary.open("wb") as file:
            np.save(file, keys)
        temporary.replace(cache)
    except OSError as error:
        log.warning("%s: cannot be written (%s); images will be checked again in every run", cache, error.strerror)
        with suppress(OSError):
            temporary.unlink()
