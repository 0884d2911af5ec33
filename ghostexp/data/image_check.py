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
from ghostexp.data.image_files import OTHER_SIZE, READER_VERSION, REMEDY, other_size, read_image, read_image_size

log = logging.getLogger(__name__)

File = tuple[str, tuple[int, int] | None]  # the path of an image, and the width and height that it is annotated with

NAMED = 5  # of the unreadable images, in the error
ANNOUNCED = 20_000  # images, from which on a person would wonder what is going on
TAIL = 4096  # bytes that may follow the end of a JPEG
END_OF_JPEG = b"\xff\xd9"  # which the data of an image cannot contain


class UnreadableImages(ValueError):
    """All images of a set that cannot be used; the message names the first ones, the log all."""

    def __init__(self, problems: Sequence[str], count: int) -> None:
        self.problems = problems
        for problem in problems:
            log.warning("%s", problem)
        first = "; ".join(problem.removesuffix(REMEDY) for problem in problems[:NAMED])
        more = f"; and {len(problems) - NAMED} more, see run.log" if len(problems) > NAMED else ""
        use, remedy = "read", REMEDY.replace(" it", " them")
        if any(OTHER_SIZE in problem for problem in problems):
            use, remedy = "used", ""
        super().__init__(
            f"{len(problems)} of {count} images cannot be {use}: {first}{more}{remedy}"
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


def check_size(path: Path, width: int, height: int) -> None:
    """Raise ValueError unless an image has the size that it is annotated with, before or after the orientation."""
    if (width, height) not in (size := read_image_size(path), read_image_size(path, is_turned=False)):
        raise other_size(path, size, (width, height))


def find_unreadable(paths: Sequence[str], cache: Path, sizes: np.ndarray | None = None) -> list[str]:
    """Check image files; returns what is wrong with those that cannot be read, or are not those that were annotated.

    cache: the file that keeps which ones were readable, in a folder in a folder above all paths.
    sizes: the heights and widths, (N, 2), that they are annotated with.
    """
    files: list[File] = [(path, None) for path in paths]
    if sizes is not None:
        files = [(path, (width, height)) for path, (height, width) in zip(paths, sizes.tolist(), strict=True)]
    keys = _keys(files, str(cache.parent.parent))
    known = _read(cache)
    new = np.flatnonzero(~np.isin(keys, known))
    if len(new) >= ANNOUNCED:
        print(f"checking {len(new):,} image files, which is done once", file=sys.stderr, flush=True)
    problems = list(in_threads(_problem, [files[index] for index in new.tolist()]))
    readable = keys[new[[problem is None for problem in problems]]]
    if len(readable):
        _write(cache, np.union1d(known, readable))
    return [problem for problem in problems if problem is not None]


def _problem(file: File) -> str | None:
    path, size = file
    try:
        check_image(Path(path))
        if size is not None:
            check_size(Path(path), *size)
    except ValueError as error:
        return str(error)
    return None


def _keys(files: Sequence[File], root: str) -> np.ndarray:
    """Return a number, uint64 (N,), of what changes when a file, or its annotated size, does."""
    keys = np.empty(len(files), np.uint64)
    states = file_status([path for path, _ in files]).tolist()
    for index, ((path, size), status) in enumerate(zip(files, states, strict=True)):
        text = f"{READER_VERSION}\0{path.removeprefix(root)}\0{status}\0{size}"
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
