"""Find the image files of a path or glob, and decode them in batches."""

import glob
import itertools
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from PIL.Image import Image
from rich.console import Console
from rich.progress import track

from ghostexp.data.file_lists import count_extensions, list_files, list_folders
from ghostexp.data.image_files import display_name, is_image_name, read_image

READERS = 8  # threads that decode

T = TypeVar("T")


class ImageFiles(NamedTuple):
    """The images of a path or a glob, the folder where the search started, and the files that were left out."""

    paths: list[Path]
    start: Path
    left_out: list[Path]

    def label(self, path: Path, class_names: Collection[str]) -> str | None:
        """Return the class whose folder contains a file, as in training: the outermost below the start.

        If none of these is a class, the start itself may be a class folder.
        """
        below = path.parent.relative_to(self.start).parts if path.is_relative_to(self.start) else ()
        names = (display_name(name) for name in (*below, self.start.absolute().name, path.absolute().parent.name))
        return next((name for name in names if name in class_names), None)


def find_images(where: str) -> ImageFiles:
    """Find the files of a path or a glob in alphabetical order; of a folder, all images in it and below.

    Links are followed; a file behind several links is found once.
    Raises ValueError: there are none.
    """
    start = Path(where).expanduser()
    if start.exists():
        matches, start = [start], start if start.is_dir() else start.parent
    else:
        matches = [Path(name) for name in sorted(_matches(str(start)), key=os.fsencode)]
        start = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), start.parts))
    files: dict[tuple[str, str], Path] = {}
    left_out: dict[tuple[str, str], Path] = {}
    for match in matches:
        for path in list_files(match) if match.is_dir() else [match]:
            is_wanted = not match.is_dir() or is_image_name(path.name)
            (files if is_wanted else left_out).setdefault((os.path.realpath(path.parent), path.name), path)
    if not files:
        others = f", but {count_extensions(left_out.values())}" if left_out else ""
        raise ValueError(f"task.input={where}: must be an image file, a folder or a quoted glob, got no images{others}")
    others = [path for key, path in left_out.items() if key not in files]
    return ImageFiles(sorted(files.values(), key=os.fsencode), start, others)


def _matches(pattern: str) -> Iterator[str]:
    """Expand a glob; `**` follows links, and visits each folder once."""
    head, is_recursive, tail = _split(pattern)
    if not is_recursive:
        yield from glob.iglob(pattern)
        return
    for start in glob.iglob(head):
        for folder in list_folders(Path(start)):
            yield from _matches(os.path.join(glob.escape(str(folder)), tail or "*"))


def _split(pattern: str) -> tuple[str, bool, str]:
    """Split a glob at its first `**`."""
    parts = Path(pattern).parts
    if "**" not in parts:
        return pattern, False, ""
    cut = parts.index("**")
    return str(Path(*parts[:cut])), True, str(Path(*parts[cut + 1 :])) if parts[cut + 1 :] else ""


def decode_batches(
    paths: Sequence[Path], transform: Callable[[Image], T], in_chans: int, batch_size: int
) -> Iterator[list[tuple[Path, T | ValueError]]]:
    """Yield batches of transformed images, or of the error where a file is unreadable; shows a bar on a terminal."""

    def read(path: Path) -> T | ValueError:
        try:
            return transform(read_image(path, in_chans))
        except ValueError as error:
            return error

    starts = range(0, len(paths), batch_size)
    with ThreadPoolExecutor(READERS) as threads:
        for start in track(starts, "predicting", transient=True, disable=not Console().file.isatty()):
            batch = paths[start : start + batch_size]
            yield list(zip(batch, threads.map(read, batch), strict=True))
