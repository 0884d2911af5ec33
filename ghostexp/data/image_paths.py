"""Paths of images in arrays, which worker processes share; a list would be copied into each of them, page by page."""

from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np

from ghostexp.data.file_lists import ImagePath
from ghostexp.data.tar_member import TarMember


class ImagePaths(Sequence[ImagePath]):
    """Files, or members of tar files."""

    def __init__(self, paths: Sequence[ImagePath]) -> None:
        members = [path for path in paths if isinstance(path, TarMember)]
        assert len(members) in (0, len(paths))
        self.archives = sorted({(member.archive, member.mtime_ns) for member in members})
        numbers = {archive: number for number, (archive, _) in enumerate(self.archives)}
        places = [(numbers[member.archive], member.offset, member.size) for member in members]
        self.places = np.array(places, np.int64).reshape(-1, 3)  # archive, offset and size
        self.names = np.array([member.name for member in members] or [str(path) for path in paths])

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> ImagePath: ...

    @overload
    def __getitem__(self, index: slice | np.ndarray) -> list[ImagePath]: ...

    def __getitem__(self, index: int | slice | np.ndarray) -> ImagePath | list[ImagePath]:
        if not isinstance(index, int):
            numbers = range(*index.indices(len(self))) if isinstance(index, slice) else np.arange(len(self))[index]
            return [self[int(number)] for number in numbers]
        name = str(self.names[index])
        if not self.archives:
            return Path(name)
        archive, offset, size = self.places[index].tolist()
        path, mtime_ns = self.archives[archive]
        return TarMember(path, name, offset, size, mtime_ns)
