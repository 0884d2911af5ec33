"""Invalid sets in COCO's layout: errors of one line with the key, or the file and its entry."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.data.fake_coco import CATEGORIES, change_entry, coco, write_part, write_set
from tests.data.test_data_errors import refused


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set")


def annotations(root: Path) -> Path:
    return root / "annotations" / "instances_train2017.json"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_size", 0),
        ("max_size", 23),
        ("max_size", "none"),
        ("hflip", 1),
        ("scale_jitter", -0.1),
        ("scale_jitter", "much"),
        ("aspect_ratio_grouping", "yes"),
        ("keep_empty", None),
        ("num_workers", -1),
        ("in_chans", 1),
        ("train_file", ""),
        ("test_folder", None),
    ],
)
def test_invalid_argument_raises_in_constructor(tmp_path: Path, key: str, value: object) -> None:
    refused(lambda: coco(tmp_path, **{key: value}), f"datamodule.{key}={value}: ")


def test_missing_file_or_folder_raises_with_path(root: Path) -> None:
    refused(lambda: coco(root / "nowhere"), f"datamodule.root={root}/nowhere: no such folder")
    refused(lambda: coco(root, test_folder="val"), f"datamodule.test_folder=val: no such file or folder: {root}/val")
    annotations(root).unlink()
    refused(lambda: coco(root), "datamodule.train_file=annotations/instances_train2017.json: ", f"{annotations(root)}")


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b'{"images": [', "not valid JSON (Expecting value"),
        (b"\xff\xfe\x00", "not valid JSON ("),
        (b"[]", 'no list "images" of objects in it'),
        (b'{"images": [{"id": 1}]}', 'no list "annotations" of objects'),
        (b'{"images": [], "annotations": [], "categories": []}', "no images in it"),
        (b'{"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1}]}', "no annotations in it"),
        (
            b'{"images": [{"id": 1}], "annotations": [{"id": 1}], "categories": [{"id": 1}]}',
            'images: "height" and "width" must be numbers in every entry',
        ),
    ],
)
def test_invalid_annotation_file_raises_with_path(root: Path, content: bytes, wanted: str) -> None:
    annotations(root).write_bytes(content)
    refused(lambda: coco(root), f"{annotations(root)}: {wanted}")


@pytest.mark.parametrize(
    ("entries", "number", "values", "wanted"),
    [
        ("annotations", 8, {"bbox": [30, 6, 37.5, 10]}, "annotation 2: bbox must be [x, y, width, height] inside"),
        (
            "annotations",
            8,
            {"bbox": [30, -6, 10, 10]},
            "inside its image of 60 x 40, got [30.0, -6.0, 10.0, 10.0] (1 of 10 boxes",
        ),
        ("annotations", 8, {"bbox": [30, 6, -3, 10]}, "annotation 2: bbox must be [x, y, width, height] inside"),
        ("annotations", 8, {"bbox": [30, 6, float("nan"), 10]}, "got [30.0, 6.0, nan, 10.0]"),
        ("annotations", 8, {"bbox": [30, 6, 3]}, 'annotations: "bbox" must be 4 numbers in every entry'),
        ("annotations", 8, {"bbox": "all"}, 'annotations: "bbox" must be 4 numbers in every entry'),
        ("annotations", 8, {"iscrowd": None}, 'annotations: "iscrowd" must be numbers in every entry'),
        ("annotations", 8, {"area": "big"}, 'annotations: "area" must be numbers in every entry'),
        ("annotations", 8, {"category_id": 3}, 'annotation 2 has category_id 3, which is not in "categories"'),
        ("annotations", 8, {"image_id": 99}, 'annotation 2 has image_id 99, which is not in "images"'),
        ("annotations", 8, {"image_id": None}, 'annotations: "image_id" must be an integer in every entry'),
        ("images", 1, {"id": 100}, "images: id 100 is used 2 times"),
        ("images", 1, {"width": 0}, "image 101 is without height or width"),
        ("images", 1, {"id": "first"}, 'images: "id" must be an integer in every entry'),
        ("categories", 0, {"id": 2}, "categories: id 2 is used 2 times"),
    ],
)
def test_invalid_entry_raises_with_path(
    root: Path, entries: str, number: int, values: dict[str, Any], wanted: str
) -> None:
    change_entry(annotations(root), entries, number, **values)
    refused(lambda: coco(root), f"{annotations(root)}: ", wanted)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"bbox": [10, 10, 8, 8, 0.5]}, '"bbox" must be 4 numbers'),  # of boxes that are turned
        ({"bbox": [1, 1, 9, 1, 9, 9, 1, 9]}, '"bbox" must be 4 numbers'),
        ({"bbox": 5}, '"bbox" must be 4 numbers'),
        ({"area": [3, 4]}, '"area" must be numbers'),
        ({"iscrowd": []}, '"iscrowd" must be numbers'),
    ],
)
def test_invalid_column_raises_with_path(root: Path, values: dict[str, Any], wanted: str) -> None:
    for number in range(len(json.loads(annotations(root).read_text())["annotations"])):
        change_entry(annotations(root), "annotations", number, **values)
    refused(lambda: coco(root), f"{annotations(root)}: annotations: {wanted} in every entry, as in COCO")


def test_boxes_without_size_or_with_overhang_are_accepted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    change_entry(annotations(root), "annotations", 9, bbox=[4, 6, 20, 0])  # no height
    change_entry(annotations(root), "annotations", 7, bbox=[20, 30, 20.9, 30.5])  # of 40 x 60
    with caplog.at_level(logging.WARNING):
        module = coco(root, batch_size=4)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == f"{annotations(root)}: 1 boxes without width or height are not trained on (annotation 1)"
    assert len(module.train_indices) == 4  # the first image's other box is a crowd
    ((_, targets),) = module.train_dataloader()
    for target in targets:
        assert (target["boxes"][:, 2:] > target["boxes"][:, :2]).all()
        assert target["boxes"].max() <= 48


def test_wrong_num_classes_error_gives_right_value(root: Path) -> None:
    refused(lambda: coco(root, num_classes=80), "datamodule.num_classes=80: ", "set datamodule.num_classes=2")


def test_different_categories_of_both_files_raise(tmp_path: Path) -> None:
    write_part(tmp_path, "train")
    write_part(tmp_path, "val", categories=[CATEGORIES[1], {"id": 7, "name": "cat"}])
    refused(lambda: coco(tmp_path), f"datamodule.root={tmp_path}: category 7, cat, is in only one of ")


def test_missing_images_raise_in_setup(root: Path) -> None:
    missing = root / "train2017" / "000000000002.png"
    missing.unlink()
    refused(lambda: coco(root), f"{missing}: no such image, but {annotations(root)} lists it (1 of 7 are missing)")
    shutil.rmtree(root / "train2017")
    (root / "train2017").mkdir()
    refused(lambda: coco(root), "(7 of 7 are missing)")


def test_set_without_objects_raises(root: Path) -> None:
    content = json.loads(annotations(root).read_text())
    annotations(root).write_text(
        json.dumps(content | {"annotations": [one | {"iscrowd": 1} for one in content["annotations"]]})
    )
    refused(lambda: coco(root), f"{annotations(root)}: must have a box of a single object with a size, got none")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_corrupt_image_raises_with_path(root: Path, num_workers: int) -> None:
    corrupt = root / "train2017" / "000000000002.png"
    corrupt.write_bytes(corrupt.read_bytes()[:-500])
    module = coco(root, batch_size=5, num_workers=num_workers)
    refused(lambda: list(module.train_dataloader()), f"{corrupt}: not a readable image")
    module.teardown("fit")


def test_image_of_other_size_raises_with_path(root: Path) -> None:
    change_entry(annotations(root), "images", 0, width=61)
    module = coco(root, batch_size=5)
    refused(lambda: list(module.train_dataloader()), "000000000000.png: 60 x 40, but annotated as 61 x 40")
