"""Annotation files of other programs: ids, units, overhanging boxes and rotated images."""

import json
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from ghostexp.data.datasets.coco import Coco
from ghostexp.data.image_check import UnreadableImages
from ghostexp.tasks.common.detection_outputs import coco_results
from tests.data.fake_coco import change_entry, coco, map_boxes, map_ids, unread_coco, write_set
from tests.data.test_data_errors import refused

TURNED_RIGHT = 6  # EXIF orientation: rotate by 90 degrees clockwise for display


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set")


def annotations(root: Path, part: str = "train") -> Path:
    return root / "annotations" / f"instances_{part}2017.json"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("convert", [lambda number: f"{number}.jpg", float, lambda number: -number])
def test_detections_have_ids_of_annotation_file(root: Path, convert: Any) -> None:
    for part in ("train", "val"):
        map_ids(annotations(root, part), convert, "image_id", "category_id")
    module = coco(root)
    seen = [target for _, targets in module.test_dataloader() for target in targets]
    one = {"boxes": torch.tensor([[1.0, 2, 5, 9]]), "labels": torch.tensor([1]), "scores": torch.tensor([0.5])}
    rows = coco_results({int(target["image_id"]): one for target in seen}, module.category_ids, module.text_ids)
    content = json.loads(annotations(root, "val").read_text())
    assert sorted(row["image_id"] for row in rows) == sorted(image["id"] for image in content["images"])
    assert {row["category_id"] for row in rows} == {sorted(entry["id"] for entry in content["categories"])[1]}
    results = root / "found.json"
    results.write_text(json.dumps(rows))
    COCO(str(annotations(root, "val"))).loadRes(str(results))  # raises for unknown ids


@pytest.mark.parametrize(
    ("entries", "values", "wanted"),
    [
        ("annotations", {"image_id": 100.5}, "annotations: image_id must be an integer or a string, got 100.5"),
        ("annotations", {"image_id": "100"}, 'annotations: "image_id" must be an integer in every entry, as in COCO'),
        ("images", {"id": 9.5}, "images: id must be an integer or a string, got 9.5"),
        ("images", {"id": True}, 'images: "id" must be an integer in every entry'),
        ("images", {"id": 2**70}, 'images: "id" must be an integer in every entry'),
        ("categories", {"id": 7.25}, "categories: id must be an integer or a string, got 7.25"),
    ],
)
def test_ids_that_would_be_converted_raise(root: Path, entries: str, values: dict[str, Any], wanted: str) -> None:
    change_entry(annotations(root), entries, 0, **values)
    refused(lambda: coco(root), f"{annotations(root)}: {wanted}")


def test_string_ids_do_not_match_integers(root: Path) -> None:
    map_ids(annotations(root), str, "image_id")
    content = json.loads(annotations(root).read_text())
    for number, image in enumerate(content["images"]):
        change_entry(annotations(root), "images", number, id=int(image["id"]))
    refused(lambda: coco(root), 'annotation 10 has image_id "104", which is not in "images"')


@pytest.mark.parametrize(("value", "problem"), [(0, "has the id 0"), (1, "two annotations have"), (None, "has no id")])
def test_annotation_ids_pycocotools_misreads_warn(
    root: Path, value: int | None, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    for part in ("train", "val"):
        change_entry(annotations(root, part), "annotations", 0, id=value)
    coco(root)
    (message,) = warnings(caplog)
    assert message.startswith(f"{annotations(root, 'val')}: ")
    assert problem in message
    assert "pycocotools' own metrics on this file fail or are lower" in message


@pytest.mark.parametrize("area", [0, -3, float("nan")])
def test_areas_that_torchmetrics_replaces_warn(root: Path, area: float, caplog: pytest.LogCaptureFixture) -> None:
    for part in ("train", "val"):
        change_entry(annotations(root, part), "annotations", 0, area=area)
        change_entry(annotations(root, part), "annotations", 1, bbox=[4, 6, 20, 0], area=0)  # in both the same
    coco(root)
    (message,) = [text for text in warnings(caplog) if "have an area" in text]
    wanted = f"{annotations(root, 'val')}: 1 boxes have an area that is not a number > 0: metrics here use that of the "
    assert message == f"{wanted}box, pycocotools' own use it as it is (annotation 10)"


def test_relative_boxes_raise(root: Path) -> None:
    map_boxes(annotations(root), lambda box, width, height: [box[0] / width, box[1] / height, box[2] / width, 0.3])
    refused(lambda: coco(root), "boxes must be in pixels, got fractions of the image in 10 of 10, as [0.", "multiply x")


def test_corner_boxes_raise(root: Path) -> None:
    map_boxes(annotations(root), lambda box, *_: [box[0], box[1], box[0] + box[2], box[1] + box[3]])
    wanted = "boxes must be [x, y, width, height], got what seems to be [x1, y1, x2, y2]: 5 of 10 reach outside"
    refused(lambda: coco(root), f"{annotations(root)}: {wanted}", "read as corners 10 are inside")


def test_overhanging_boxes_are_clipped_in_training_only(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for part in ("train", "val"):
        change_entry(annotations(root, part), "annotations", 9, bbox=[-3, 6, 30, 37])  # of 60 x 40
    module = coco(root, image_size=40, max_size=60, batch_size=5, hflip=False)
    expected = "1 boxes that reach outside their images are clipped in training, not in evaluation (annotation 1)"
    assert warnings(caplog) == [f"{annotations(root, part)}: {expected}" for part in ("train", "val")]
    ((_, targets),) = module.train_dataloader()
    (target,) = (target for target in targets if target["image_id"] == 100)
    assert target["boxes"].tolist() == [[0, 6, 27, 40]]
    ground_truth = next(iter(module.test_dataloader()))[1][0]["ground_truth"]
    assert ground_truth["boxes"].tolist()[1] == [-3, 6, 27, 43]


def test_boxes_too_small_after_scaling_warn(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    change_entry(annotations(root), "annotations", 9, bbox=[4, 6, 1.6, 20])  # of 60 x 40, scaled by 0.6
    module = coco(root)
    (message,) = warnings(caplog)
    counted = "1 of 10 boxes are not trained on: their sides are below 1 pixel once images are scaled to"
    assert message == f"{annotations(root)}: {counted} datamodule.image_size=24"
    assert module.train_indices.tolist() == [1, 2, 3, 4]  # the first image's other box is a crowd
    caplog.clear()
    assert coco(root, image_size=40, max_size=60).train_indices.tolist() == [0, 1, 2, 3, 4]
    assert warnings(caplog) == []


def turn(path: Path, orientation: int) -> np.ndarray:
    """Store an image rotated counterclockwise, with an EXIF orientation; returns its original pixels."""
    image = Image.open(path).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    return np.asarray(image)


def test_rotated_image_has_annotated_size(root: Path) -> None:
    shown = turn(root / "train2017" / "000000000000.png", TURNED_RIGHT)  # annotated as it is shown
    stored = turn(root / "train2017" / "000000000001.png", TURNED_RIGHT).transpose(1, 0, 2)[::-1]
    change_entry(annotations(root), "images", 1, width=60, height=40)  # as it is stored
    change_entry(annotations(root), "annotations", 6, bbox=[20, 10, 20, 12])
    module = coco(root)
    assert module.images is not None
    source = module.images.train.source
    assert np.array_equal(np.asarray(source[0]), shown)
    assert np.array_equal(np.asarray(source[1]), stored)
    assert source.find_unreadable(np.arange(7)) == []


def test_images_of_other_size_are_listed_in_setup(root: Path) -> None:
    folder = root / "train2017"
    for number in (0, 1):
        turn(folder / f"00000000000{number}.png", orientation=1)
    test = root / "val2017" / "000000000002.png"
    Image.new("RGB", (51, 50)).save(test)
    module = unread_coco(root, keep_empty=True)
    module.trainer = cast("pl.Trainer", pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))
    with pytest.raises(UnreadableImages) as caught:
        module.setup("fit")
    first = f"{folder}/000000000000.png: 40 x 60, but annotated as 60 x 40"
    second = f"{folder}/000000000001.png: 60 x 40, but annotated as 40 x 60"
    third = f"{test}: 51 x 50, but annotated as 50 x 50"
    assert str(caught.value) == f"3 of 14 images cannot be used: {first}; {second}; {third}"
    change_entry(annotations(root), "images", 0, width=40, height=60)  # the cache is by annotated size, too
    change_entry(annotations(root), "annotations", 8, bbox=[10, 10, 20, 12])
    change_entry(annotations(root), "images", 2, width=49)
    again: Coco = unread_coco(root, keep_empty=True)
    again.setup()
    assert again.images is not None
    found = again.images.train.find_unreadable(np.arange(7))
    assert [problem.split("/")[-1] for problem in found] == [
        "000000000001.png: 60 x 40, but annotated as 40 x 60",
        "000000000002.png: 50 x 50, but annotated as 49 x 50",
    ]
