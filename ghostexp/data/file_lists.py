"""List the files of a folder, and their sizes and times of change."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import numpy as np

THREADS = 16  # bound by disks and networks more than by the CPU
CHUNK = 256  # files per call of a thread

S = TypeVar("S")
T = TypeVar("T")


class ImagePath(Protocol):
    """A file that an image is read from: a Path, or a member of a tar file."""

    def open(self, mode: Any = "rb") -> IO[Any]: ...

    def stat(self) -> Any: ...

    def is_symlink(self) -> bool: ...


def list_files(folder: Path) -> list[Path]:
    """List the files in a folder and below it, sorted by name; hidden files and folders are left out.

    Links are followed; a folder reached by several paths, or by a cycle, is listed once.
    Raises ValueError: a folder cannot be read.
    """
    names = [os.path.join(where, name) for where, files in _walk(folder) for name in files]
    return [Path(name) for name in sorted(names, key=os.fsencode)]  # in the order of code points, in any locale


def list_folders(folder: Path) -> list[Path]:
    """List a folder and those below it, as `list_files` does."""
    return [Path(where) for where, _ in _walk(folder)]


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder with the names of the files in it."""
    seen: set[tuple[int, int]] = set()
    for where, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        status = os.stat(where)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=os.fsencode)
        yield where, [name for name in files if not name.startswith(".")]


def _refuse(error: OSError) -> None:
    raise ValueError(f"{error.filename}: cannot be read ({error.strerror})")


def count_extensions(paths: Iterable[Path]) -> str:
    """Count files by their extensions: `9 .txt, 1 without extension`."""
    counts = Counter(path.suffix.lower() or "without extension" for path in paths)
    return ", ".join(f"{count} {extension}" for extension, count in counts.most_common())


def file_status(paths: Sequence[ImagePath]) -> np.ndarray:
    """Return size and time of change (in ns) of files, int64 (N, 2); -1 for those that do not exist."""
    return np.array(list(in_threads(_status, paths)), np.int64).reshape(-1, 2)


def _status(path: ImagePath) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def in_threads(function: Callable[[S], T], files: Sequence[S]) -> Iterable[T]:
    """Apply a function to files in threads, in order."""
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    with ThreadPoolExecutor(THREADS) as threads:
        for results in threads.map(lambda chunk: [function(file) for file in chunk], chunks):
            yield from results
