"""A file in an uncompressed tar archive, read in any order."""

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Literal, NamedTuple

OPEN_ARCHIVES = 64  # per process


class FileStatus(NamedTuple):
    """Size and time of change, as in `os.stat_result`."""

    st_size: int
    st_mtime_ns: int


@dataclass(frozen=True, slots=True)
class TarMember:
    """A file in an uncompressed tar archive, with those methods of a Path that readers of images call."""

    archive: str
    name: str
    offset: int  # of its first byte in the archive
    size: int
    mtime_ns: int  # of the archive when it was listed

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"

    def open(self, mode: Literal["rb"] = "rb") -> BytesIO:
        """Read the file; OSError if the archive has changed since it was listed."""
        archive = _open(self.archive, self.mtime_ns)  # open while it is referred to
        data = os.pread(archive.descriptor, self.size, self.offset)
        if len(data) < self.size:
            raise _changed(self.archive)
        return BytesIO(data)

    def stat(self) -> FileStatus:
        """Return the size and the archive's time of change when it was listed."""
        return FileStatus(self.size, self.mtime_ns)

    def is_symlink(self) -> bool:
        """Return False: links in archives are not listed."""
        return False


class _OpenArchive:
    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        with suppress(AttributeError):  # it could not be opened
            os.close(self.descriptor)


@lru_cache(OPEN_ARCHIVES)
def _open(path: str, mtime_ns: int) -> _OpenArchive:
    archive = _OpenArchive(path)
    if os.fstat(archive.descriptor).st_mtime_ns != mtime_ns:
        raise _changed(path)
    return archive


def _changed(archive: str) -> OSError:
    return OSError(f"{archive} has changed since it was listed")
