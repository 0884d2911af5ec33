"""The image files that a path means, decoded in batches."""

import glob
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from PIL.Image import Image
from rich.console import Console
from rich.progress import track

from ghostexp.data.image_files import image_extensions, read_image

READERS = 8  # threads that decode

T = TypeVar("T")


def find_images(where: str) -> list[Path]:
    """The files that a path or a glob means, in alphabetical order; of a folder, the images in it and below.

    Raises ValueError: there are none.
    """
    start = Path(where).expanduser()
    if start.is_dir():
        found = [path for path in start.rglob("*") if path.suffix.lower() in image_extensions()]
    else:
        found = [start] if start.is_file() else [Path(name) for name in glob.glob(str(start), recursive=True)]
    found = sorted(path for path in found if path.is_file() and not path.name.startswith("."))
    if not found:
        raise ValueError(f"task.images={where}: no images there; a file, a folder or a quoted glob is needed")
    return found


def decoded(
    paths: Sequence[Path], transform: Callable[[Image], T], in_chans: int, batch_size: int
) -> Iterator[list[tuple[Path, T | ValueError]]]:
    """Batches of files as a transform gives them, or with the reason why one cannot be read; a bar on terminals."""

    def read(path: Path) -> T | ValueError:
        try:
            return transform(read_image(path, in_chans))
        except ValueError as error:
            return error

    starts = range(0, len(paths), batch_size)
    with ThreadPoolExecutor(READERS) as threads:
        for start in track(starts, "predicting", transient=True, disable=not Console().is_terminal):
            batch = paths[start : start + batch_size]
            yield list(zip(batch, threads.map(read, batch), strict=True))
