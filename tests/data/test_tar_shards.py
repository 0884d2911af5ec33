"""Images in tar files: listed with their classes, and read in the order of a folder's files."""

import io
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from ghostexp.data import tar_member
from ghostexp.data.datasets.image_folder import ImageFolder
from ghostexp.data.file_lists import ImagePath
from ghostexp.data.image_files import read_image
from ghostexp.data.image_paths import ImagePaths
from ghostexp.data.tar_member import OPEN_ARCHIVES
from ghostexp.data.tar_shards import list_shards
from tests.data.fake_image_folders import MakeTree, image_folder


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write a tar file of files by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def sharded(tree: Path, target: Path, shards: int, is_labelled: bool) -> Path:
    """Write class folders as tar files, with classes as integers or as folders; returns their root."""
    for part in ("train", "val"):
        paths = sorted((tree / part).glob("*/*"))
        classes = sorted({path.parent.name for path in paths})
        for number, chosen in enumerate(np.array_split(np.array(paths, object), shards)):
            files = {}
            for path in chosen:
                key = f"{path.parent.name}-{path.stem}" if is_labelled else f"./{path.parent.name}/{path.stem}"
                files[f"{key}{path.suffix}"] = path.read_bytes()
                if is_labelled:
                    files[f"{key}.json"] = b"{}"
                    files[f"{key}.cls"] = str(classes.index(path.parent.name)).encode()
            write_tar(target / part / f"{part}-{number:03}.tar", files)
    return target


def folder(root: Path, image_size: int = 72) -> ImageFolder:
    module = image_folder(root, image_size=image_size, num_workers=0, batch_size=4, hflip=True)
    module.setup()
    return module


@pytest.mark.parametrize("is_labelled", [True, False])
def test_batches_of_tar_files_are_those_of_folders(make_tree: MakeTree, tmp_path: Path, is_labelled: bool) -> None:
    tree = make_tree({"train": 4, "val": 2}, size=80, extension="jpg")
    shards = sharded(tree, tmp_path / "shards", 2, is_labelled)
    for image_size in (72, 16):
        files, members = folder(tree, image_size), folder(shards, image_size)
        for loaders in ("train_dataloader", "test_dataloader"):
            pairs = zip(getattr(files, loaders)(), getattr(members, loaders)(), strict=True)
            for (images, labels), (others, other_labels) in pairs:
                assert torch.equal(images, others)
                assert torch.equal(labels, other_labels)
    assert members.class_names == (("0", "1", "2") if is_labelled else ("ant", "bee", "cow"))


def test_test_file_names_archive_and_member(make_tree: MakeTree, tmp_path: Path) -> None:
    root = sharded(make_tree({"train": 1, "val": 1}, size=80), tmp_path / "shards", 1, is_labelled=True)
    assert folder(root).test_file(2) == f"{root}/val/val-000.tar/cow-0000.png"


def test_webdataset_writes_what_is_read(make_tree: MakeTree, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    tree = make_tree({"train": 3, "val": 1}, size=80, extension="jpg")
    paths = sorted((tree / "train").glob("*/*"))
    target = tmp_path / "shards" / "train"
    target.mkdir(parents=True)
    with webdataset.ShardWriter(str(target / "%06d.tar"), maxcount=4, verbose=0) as writer:
        for number, path in enumerate(paths):
            writer.write({"__key__": f"{number:04}", "jpg": path.read_bytes(), "cls": number // 3})
    listed = list_shards(target)
    assert [path.open().read() for path in listed.paths] == [path.read_bytes() for path in paths]
    assert listed.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    streamed = webdataset.WebDataset([str(path) for path in sorted(target.glob("*.tar"))], shardshuffle=False)
    assert [(sample["jpg"], int(sample["cls"])) for sample in streamed] == [
        (path.open().read(), label) for path, label in zip(listed.paths, listed.labels.tolist(), strict=True)
    ]


def test_list_is_cached_until_an_archive_changes(
    make_tree: MakeTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = sharded(make_tree({"train": 2, "val": 1}), tmp_path / "shards", 2, is_labelled=False)
    first = list_shards(root / "train")
    with monkeypatch.context() as patch:
        patch.delattr(tarfile, "TarFile")
        again = list_shards(root / "train")
    assert (again.paths, again.class_names, again.digest()) == (first.paths, first.class_names, first.digest())
    image = first.paths[0].open().read()
    write_tar(root / "train" / "train-002.tar", {"fly/1.png": image})
    assert list_shards(root / "train").class_names == ("ant", "bee", "cow", "fly")


def test_image_paths_are_what_they_were_made_of(make_tree: MakeTree, tmp_path: Path) -> None:
    tree = make_tree({"train": 2, "val": 1})
    members = list_shards(sharded(tree, tmp_path / "shards", 2, is_labelled=True) / "train").paths
    files: Sequence[ImagePath] = sorted(tree.glob("train/*/*"))
    for paths in (members, files):
        packed = ImagePaths(paths)
        assert list(packed) == list(paths)
        assert packed[np.array([3, 1])] == [paths[3], paths[1]]


def test_unreadable_members_are_listed(make_tree: MakeTree, tmp_path: Path) -> None:
    root = sharded(make_tree({"train": 2, "val": 1}, size=80), tmp_path / "shards", 1, is_labelled=False)
    archive = write_tar(root / "train" / "x.tar", {"ant/broken.jpg": b"no image", "ant/notes.txt": b"left out"})
    tree = list_shards(root / "train")
    (broken,) = (path for path in tree.paths if str(path) == f"{archive}/ant/broken.jpg")
    with pytest.raises(ValueError, match=f"{archive}/ant/broken.jpg: not a readable image"):
        read_image(broken, 3)
    assert [str(path) for path in tree.left_out] == ["ant/notes.txt"]
    module = folder(root)
    assert module.images is not None
    (problem,) = module.images.train.find_unreadable(np.arange(len(tree.paths)))
    assert problem.startswith(f"{archive}/ant/broken.jpg: not a readable image")


IMAGE = b"content is read later"


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"a/1.txt": b""}, "train: must have images in its tar files, got none"),
        ({"1.jpg": IMAGE}, "s.tar/1.jpg: has no class; must be CLASS/1.jpg, or have its number in NAME.cls"),
        ({"1.jpg": IMAGE, "1.cls": b"0", "2.jpg": IMAGE}, "s.tar/2.jpg: has no class; other images have one"),
        ({"1.jpg": IMAGE, "1.cls": b"cat"}, "s.tar/1.cls: must be the number of a class, from 0, got 'cat'"),
        ({"1.jpg": IMAGE, "1.cls": b"-1"}, "s.tar/1.cls: must be the number of a class, from 0, got '-1'"),
        ({"1.jpg": IMAGE, "1.cls": b"2"}, "train: has no images of class 0, of 0 to 2"),
        ({"1.jpg": IMAGE, "1.png": IMAGE, "1.cls": b"0"}, "s.tar/1.jpg: one of 2 images with that name; must be one"),
    ],
)
def test_images_without_a_class_raise(tmp_path: Path, files: dict[str, bytes], problem: str) -> None:
    write_tar(tmp_path / "train" / "s.tar", files)
    with pytest.raises(ValueError, match=re.escape(problem)):
        list_shards(tmp_path / "train")


def test_masks_belong_to_their_image(tmp_path: Path) -> None:
    files = {"a.jpg": IMAGE, "a.mask.png": IMAGE, "a.cls": b"0", "b.jpg": IMAGE, "b.cls": b"1"}
    write_tar(tmp_path / "train" / "s.tar", files)
    tree = list_shards(tmp_path / "train")
    assert [Path(str(path)).name for path in tree.paths] == ["a.jpg", "b.jpg"]
    assert tree.left_out == []


def test_replaced_archive_raises_and_is_read_anew_once_listed(make_tree: MakeTree, tmp_path: Path) -> None:
    root = sharded(make_tree({"train": 2, "val": 1}), tmp_path / "shards", 1, is_labelled=False)
    before, archive = list_shards(root / "train").paths, root / "train" / "train-000.tar"
    contents = [path.open().read() for path in before]
    os.utime(write_tar(tmp_path / "new.tar", {"ant/1.png": contents[-1]}), ns=(0, 0))
    (tmp_path / "new.tar").replace(archive)
    (after,) = list_shards(root / "train").paths
    assert after.open().read() == contents[-1]
    for number in range(OPEN_ARCHIVES):
        list_shards(write_tar(tmp_path / str(number) / "x.tar", {"a/1.png": b"x"}).parent).paths[0].open()
    with pytest.raises(OSError, match="has changed since it was listed"):
        before[0].open()


def test_test_set_is_of_the_same_kind_as_the_training_set(make_tree: MakeTree, tmp_path: Path) -> None:
    folders = make_tree({"train": 2, "val": 1}, size=80)
    write_tar(folders / "test" / "unlabelled.tar", {"1.jpg": IMAGE})
    shards = sharded(folders, tmp_path / "shards", 1, is_labelled=False)
    (shards / "test" / "ant").mkdir(parents=True)
    for root in (folders, shards):
        assert folder(root).test_images == 3


def test_damaged_and_compressed_archives_raise(make_tree: MakeTree, tmp_path: Path) -> None:
    root = sharded(make_tree({"train": 2, "val": 1}), tmp_path / "shards", 1, is_labelled=False)
    archive = root / "train" / "train-000.tar"
    content = archive.read_bytes()
    paths = list_shards(root / "train").paths
    archive.write_bytes(content[: content.rindex(b"PNG") + 10])
    with pytest.raises(ValueError, match=f"{archive}: not a readable tar file"):
        list_shards(root / "train")
    os.utime(archive, ns=(0, paths[-1].stat().st_mtime_ns))
    with pytest.raises(ValueError, match=r"train-000\.tar has changed since it was listed"):
        read_image(paths[-1], 3)
    archive.write_bytes(b"no tar file")
    with pytest.raises(ValueError, match=f"{archive}: not a readable tar file"):
        list_shards(root / "train")
    archive.rename(root / "train" / "train.tar.gz")
    with pytest.raises(ValueError, match=r"train.tar.gz: compressed; .* uncompressed .tar files only"):
        image_folder(root).setup()


def header_of(archive: Path, name: str) -> int:
    """Return where a member's header begins."""
    with tarfile.open(archive) as tar:
        return tar.getmember(name).offset


@pytest.mark.parametrize(
    ("end", "problem"),
    [
        ("flipped", "damaged at byte {header}"),
        ("zeroed", "damaged at byte {header}"),
        ("in a header", "damaged at byte {header}"),
        ("at a header", "cut off at byte {header}"),
        ("unfinished", "nothing but zeros from byte {header} on"),
        ("twice", "another archive begins at byte {end}"),
    ],
)
def test_archive_that_does_not_end_as_written_raises(tmp_path: Path, end: str, problem: str) -> None:
    archive = write_tar(tmp_path / "train" / "s.tar", {"a/1.jpg": IMAGE, "b/1.jpg": IMAGE, "b/2.jpg": IMAGE})
    assert len(list_shards(tmp_path / "train").paths) == 3
    content, header = archive.read_bytes(), header_of(archive, "b/1.jpg")
    changed = {
        "flipped": content[:header] + bytes([content[header] ^ 1]) + content[header + 1 :],
        "zeroed": content[:header] + bytes(512) + content[header + 512 :],
        "in a header": content[: header + 200],
        "at a header": content[:header],
        "unfinished": content[:header] + bytes(2**24 + 1024),
        "twice": content * 2,
    }
    archive.write_bytes(changed[end])
    text = problem.format(header=header, end=len(content))
    with pytest.raises(ValueError, match=re.escape(f"{archive}: not a readable tar file ({text}); replace or delete")):
        list_shards(tmp_path / "train")


@pytest.mark.parametrize("zeros", [512, 1024, 20 * 512, 2**20])
def test_end_of_an_archive_may_be_of_any_record(tmp_path: Path, zeros: int) -> None:
    archive = write_tar(tmp_path / "train" / "s.tar", {"a/1.jpg": IMAGE, "b/1.jpg": IMAGE})
    archive.write_bytes(archive.read_bytes()[: header_of(archive, "b/1.jpg") + 1024] + bytes(zeros))
    assert len(list_shards(tmp_path / "train").paths) == 2
    with archive.open("ab") as file:
        file.write(b"rest of a record")
    if zeros >= 1024:
        assert len(list_shards(tmp_path / "train").paths) == 2


def test_test_folder_without_archives_raises(make_tree: MakeTree, tmp_path: Path) -> None:
    root = sharded(make_tree({"train": 2, "val": 1}), tmp_path / "shards", 1, is_labelled=False)
    (root / "val" / "val-000.tar").unlink()
    with pytest.raises(ValueError, match=f"^{root}/val: must have .tar files, as the training set has$"):
        folder(root)


def test_classes_in_another_order_raise(tmp_path: Path) -> None:
    labelled = {f"{number}.{kind}": str(number).encode() for number in range(11) for kind in ("jpg", "cls")}
    write_tar(tmp_path / "train" / "s.tar", labelled)
    write_tar(tmp_path / "val" / "s.tar", {f"{number}/1.jpg": IMAGE for number in range(11)})
    problem = f"{tmp_path}/train and {tmp_path}/val number their classes differently: class number 2 is 2 and 10"
    with pytest.raises(ValueError, match=problem):
        image_folder(tmp_path, num_classes=11).setup()


def test_hard_links_are_what_they_name_and_other_links_are_left_out(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "train" / "s.tar", {"1.jpg": b"one", "1.cls": b"0", "2.jpg": b"two", "2.cls": b"1"})
    links = [("3.jpg", "./2.jpg", tarfile.LNKTYPE), ("3.cls", "2.cls", tarfile.LNKTYPE)]
    links += [("4.jpg", "1.jpg", tarfile.SYMTYPE), ("5.jpg", "none.jpg", tarfile.LNKTYPE)]
    with tarfile.open(path, "a") as tar:
        for name, target, kind in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    tree = list_shards(tmp_path / "train")
    assert [path.open().read() for path in tree.paths] == [b"one", b"two", b"two"]
    assert tree.labels.tolist() == [0, 1, 1]
    assert tree.left_out == [Path("4.jpg"), Path("5.jpg")]


def test_last_of_members_with_one_name_is_read(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "train" / "s.tar", {"a/1.jpg": b"old", "b/1.jpg": b"other"})
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo("./a/1.jpg")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"new"))
    tree = list_shards(tmp_path / "train")
    assert [path.open().read() for path in tree.paths] == [b"new", b"other"]
    assert tree.labels.tolist() == [0, 1]


def test_archive_stays_open_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "train" / "s.tar", {"a/1.jpg": IMAGE})
    (path,) = list_shards(tmp_path / "train").paths
    read = os.pread

    def read_after_others(*where: int) -> bytes:
        tar_member._open.cache_clear()  # as after many other archives, opened by other threads
        return read(*where)

    monkeypatch.setattr(os, "pread", read_after_others)
    assert path.open().read() == IMAGE


@pytest.mark.parametrize("name", ["../cat/1.jpg", "a/../../1.jpg", "/cat/1.jpg"])
def test_member_outside_of_its_folder_is_refused(name: str, make_tree: MakeTree, tmp_path: Path) -> None:
    shards = sharded(make_tree({"train": 4, "val": 2}, size=80, extension="jpg"), tmp_path / "shards", 2, False)
    write_tar(next((shards / "train").glob("*.tar")), {name: b""})
    with pytest.raises(ValueError, match="must have files of its own folder, got"):
        folder(shards)
