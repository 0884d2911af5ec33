"""Images in tar files, as WebDataset writes them: listed once, then read in any order.

WebDataset's own reader streams: its order depends on the number of workers, and a run cannot continue inside an epoch.
"""

import os
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch

from ghostexp.data.caches import CACHE_FOLDER, write_cache
from ghostexp.data.file_lists import file_status
from ghostexp.data.image_files import display_name, is_image_name
from ghostexp.data.image_folders import LabeledImages
from ghostexp.data.tar_member import TarMember
from ghostexp.validation import notice

INDEX_VERSION = 2  # increment when the same archives give another index
LABEL = "cls"  # extension of the member with a sample's class
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
ANNOUNCED = 2**30  # bytes, from which on listing takes long enough to be announced
LONGEST_END = 2**24  # bytes: an archive ends with two blocks of zeros, and more up to a record, of any size


def find_shards(folder: Path) -> list[Path]:
    """List the tar files of a folder, sorted by name; ValueError if one is compressed."""
    paths = [path for path in folder.glob("*.t*") if not path.name.startswith(".")]
    for path in paths:
        if path.name.endswith(COMPRESSED):
            raise ValueError(f"{path}: compressed; images are read from uncompressed .tar files only")
    return sorted((path for path in paths if path.suffix == ".tar"), key=os.fsencode)


def list_shards(folder: Path) -> LabeledImages:
    """List the images in a folder's tar files, in the order of archives and members; the list is cached.

    The class of an image NAME.jpg is the integer in NAME.cls, or else its first folder in the archive.
    Raises ValueError: there is no archive, one is damaged, or an image has no class.
    """
    archives = find_shards(folder)
    if not archives:
        raise ValueError(f"{folder}: must have .tar files, as the training set has")
    statuses = file_status(archives)
    index = _read_index(folder, archives, statuses)
    names, times = [str(path) for path in archives], statuses[:, 1].tolist()
    paths = [
        TarMember(names[archive], name, offset, size, times[archive])
        for name, (archive, offset, size) in zip(index.names, index.places.tolist(), strict=True)
    ]
    class_names = tuple(display_name(name) for name in index.class_names)
    left_out = [Path(name) for name in index.left_out]
    return LabeledImages(folder, class_names, paths, torch.from_numpy(index.labels), left_out)


class _Index(NamedTuple):
    names: Sequence[str]  # of the images in their archives
    places: np.ndarray  # int64 (N, 3): archive, offset, size
    labels: np.ndarray  # int64 (N,)
    class_names: Sequence[str]
    left_out: Sequence[str]


def _read_index(folder: Path, archives: Sequence[Path], statuses: np.ndarray) -> _Index:
    """Read the index from its cache, if archives and statuses are those of the cache; else list the archives."""
    cache = folder.parent / CACHE_FOLDER / f"{folder.name}-shards.npz"
    names = _joined(path.name for path in archives)
    key = np.concatenate([[INDEX_VERSION], statuses.ravel(), names])
    with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile), np.load(cache) as saved:
        if np.array_equal(saved["key"], key):
            texts = (_split(saved[name]) for name in ("names", "class_names", "left_out"))
            return _Index(next(texts), saved["places"], saved["labels"], *texts)
    if (size := int(statuses[:, 0].sum())) >= ANNOUNCED:
        notice(f"listing {size / 2**30:.0f} GiB of tar files in {folder} (once; the list is cached)")
    index = _index([str(path) for path in archives])
    arrays = {"key": key, "places": index.places, "labels": index.labels}
    arrays |= {name: _joined(getattr(index, name)) for name in ("names", "class_names", "left_out")}
    write_cache(cache, partial(np.savez, **arrays), "tar files will be listed again in every run")
    return index


def _joined(texts: Iterable[str]) -> np.ndarray:
    return np.frombuffer(b"".join(os.fsencode(text) + b"\0" for text in texts), np.uint8)


def _split(joined: np.ndarray) -> list[str]:
    return [os.fsdecode(text) for text in joined.tobytes().split(b"\0")[:-1]]


class _Member(NamedTuple):
    archive: int
    name: str
    offset: int
    size: int

    @property
    def sample(self) -> tuple[int, str]:
        """Archive and name up to the first dot, which the members of a sample share."""
        folder, slash, file = self.name.rpartition("/")
        return self.archive, f"{folder}{slash}{file.partition('.')[0]}"

    @property
    def extension(self) -> str:
        """What follows the first dot."""
        return self.name.rpartition("/")[2].partition(".")[2].lower()


def _index(archives: Sequence[str]) -> _Index:
    members: list[_Member] = []
    labels: dict[tuple[int, str], int] = {}
    links: list[str] = []
    for number, archive in enumerate(archives):
        members += _list_archive(number, archive, labels, links)
    images = [member for member in members if is_image_name(member.name.rpartition("/")[2])]
    if labels:
        images = [member for member in images if "." not in member.extension]  # NAME.mask.png belongs to NAME.jpg
    else:
        images = list({(member.archive, member.name): member for member in images}.values())  # as tar extracts them
    if not images:
        raise ValueError(f"{Path(archives[0]).parent}: must have images in its tar files, got none")
    class_names, classes = _classes_of_labels(images, labels, archives) if labels else _folders(images, archives)
    samples = {member.sample for member in images}
    left_out = [member.name for member in members if member.sample not in samples] + links
    places = np.array([(member.archive, member.offset, member.size) for member in images], np.int64)
    return _Index([member.name for member in images], places, np.array(classes, np.int64), class_names, left_out)


def _list_archive(number: int, archive: str, labels: dict[tuple[int, str], int], links: list[str]) -> Iterator[_Member]:
    """List the files of an archive; labels are added to `labels` by sample, symbolic links and the like to `links`.

    A hard link is the earlier member that it names.
    """
    files: dict[str, tarfile.TarInfo] = {}
    try:
        with tarfile.TarFile(archive, encoding="utf-8") as tar:
            for info in tar:
                name = os.path.normpath(info.name)
                file = files.get(os.path.normpath(info.linkname)) if info.islnk() else info if info.isfile() else None
                if file is not None:
                    files[name] = file
                if name.startswith(("../", "/")):
                    raise ValueError(f"{archive}: must have files of its own folder, got {name}")
                if info.isdir() or os.path.basename(name).startswith("."):
                    continue
                if file is None:
                    links.append(name)
                    continue
                member = _Member(number, name, file.offset_data, file.size)
                if member.extension == LABEL:
                    labels[member.sample] = _label(f"{archive}/{name}", tar.extractfile(file))
                else:
                    yield member
            _check_end(tar)
    except tarfile.TarError as error:
        raise ValueError(f"{archive}: not a readable tar file ({error}); replace or delete it") from None


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise ReadError unless zeros follow the last member: `tarfile` ends at a damaged header as at the archive's end.

    Writers end an archive with zeros, up to a whole record; an unfinished download may have more. Behind two blocks of
    zeros, only another archive is an error.
    """
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    end = tar.fileobj.read(LONGEST_END + 1)
    if any(end[: 2 * tarfile.BLOCKSIZE]):
        raise tarfile.ReadError(f"damaged at byte {tar.offset}")
    if rest := end.lstrip(b"\0"):
        first = (len(end) - len(rest)) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        with suppress(tarfile.HeaderError):
            tarfile.TarInfo.frombuf(end[first : first + tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
            raise tarfile.ReadError(f"another archive begins at byte {tar.offset + first}")
        return
    if len(end) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"cut off at byte {tar.offset}")
    if len(end) > LONGEST_END:
        raise tarfile.ReadError(f"nothing but zeros from byte {tar.offset} on")


def _label(name: str, file: IO[bytes] | None) -> int:
    text = (file.read(32) if file else b"").decode("ascii", "replace").strip()
    if not text.isdecimal():
        raise ValueError(f"{name}: must be the number of a class, from 0, got {text!r}")
    return int(text)


def _classes_of_labels(
    images: Sequence[_Member], labels: Mapping[tuple[int, str], int], archives: Sequence[str]
) -> tuple[list[str], list[int]]:
    """Return class names, which are numbers, and the class of each image."""
    counts = Counter(member.sample for member in images)
    for member in images:
        where = f"{archives[member.archive]}/{member.name}"
        if member.sample not in labels:
            raise ValueError(f"{where}: has no class; other images have one in NAME.{LABEL}")
        if counts[member.sample] > 1:
            raise ValueError(f"{where}: one of {counts[member.sample]} images with that name; must be one")
    classes = [labels[member.sample] for member in images]
    count = max(classes) + 1
    if absent := set(range(count)) - set(classes):
        raise ValueError(f"{Path(archives[0]).parent}: has no images of class {min(absent)}, of 0 to {count - 1}")
    return [str(number) for number in range(count)], classes


def _folders(images: Sequence[_Member], archives: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return class names, the first folders in the archives, and the class of each image."""
    for member in images:
        if "/" not in member.name:
            where = f"{archives[member.archive]}/{member.name}"
            raise ValueError(f"{where}: has no class; must be CLASS/{member.name}, or have its number in NAME.{LABEL}")
    folders = [member.name.partition("/")[0] for member in images]
    names = sorted(set(folders), key=os.fsencode)
    numbers = {name: number for number, name in enumerate(names)}
    return names, [numbers[name] for name in folders]
