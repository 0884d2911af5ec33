"""Annotation files as other programs write them: their ids, units, overhanging boxes and turned images."""

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

TURNED_RIGHT = 6  # in EXIF: shown, the image is turned by 90 degrees to the right


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set")


def annotations(root: Path, part: str = "train") -> Path:
    return root / "annotations" / f"instances_{part}2017.json"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("convert", [lambda number: f"{number}.jpg", float, lambda number: -number])
def test_detections_have_the_ids_of_the_annotation_file(root: Path, convert: Any) -> None:
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
    COCO(str(annotations(root, "val"))).loadRes(str(results))  # it refuses ids that it does not know


@pytest.mark.parametrize(
    ("entries", "values", "wanted"),
    [
        ("annotations", {"image_id": 100.5}, "annotations: image_id must be a whole number or a text, got 100.5"),
        ("annotations", {"image_id": "100"}, 'annotations: not every one has "image_id" with numbers, as COCO'),
        ("images", {"id": 9.5}, "images: id must be a whole number or a text, got 9.5"),
        ("images", {"id": True}, 'images: not every one has "id" with numbers'),
        ("images", {"id": 2**70}, 'images: not every one has "id" with numbers'),
        ("categories", {"id": 7.25}, "categories: id must be a whole number or a text, got 7.25"),
    ],
)
def test_ids_that_would_become_others_are_refused(
    root: Path, entries: str, values: dict[str, Any], wanted: str
) -> None:
    change_entry(annotations(root), entries, 0, **values)
    refused(lambda: coco(root), f"{annotations(root)}: {wanted}")


def test_text_ids_do_not_name_numbers(root: Path) -> None:
    map_ids(annotations(root), str, "image_id")
    content = json.loads(annotations(root).read_text())
    for number, image in enumerate(content["images"]):
        change_entry(annotations(root), "images", number, id=int(image["id"]))
    refused(lambda: coco(root), 'annotation 10 has image_id "104", which is not in "images"')


@pytest.mark.parametrize(("value", "problem"), [(0, "has the id 0"), (1, "two annotations have"), (None, "has no id")])
def test_annotation_ids_that_pycocotools_misreads_are_mentioned_for_the_test_set(
    root: Path, value: int | None, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    for part in ("train", "val"):
        change_entry(annotations(root, part), "annotations", 0, id=value)
    coco(root)
    (message,) = warnings(caplog)
    assert message.startswith(f"{annotations(root, 'val')}: ")
    assert problem in message
    assert "pycocotools' own metrics on this file fail or are lower" in message


def test_boxes_in_fractions_of_the_image_are_recognised(root: Path) -> None:
    map_boxes(annotations(root), lambda box, width, height: [box[0] / width, box[1] / height, box[2] / width, 0.3])
    refused(lambda: coco(root), "boxes must be in pixels, got fractions of the image in 10 of 10, as [0.", "multiply x")


def test_boxes_as_corners_are_recognised(root: Path) -> None:
    map_boxes(annotations(root), lambda box, *_: [box[0], box[1], box[0] + box[2], box[1] + box[3]])
    wanted = "boxes must be [x, y, width, height], got what seems to be [x1, y1, x2, y2]: 5 of 10 reach outside"
    refused(lambda: coco(root), f"{annotations(root)}: {wanted}", "read as corners 10 are inside")


def test_boxes_a_few_pixels_outside_are_clipped_in_training_only(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for part in ("train", "val"):
        change_entry(annotations(root, part), "annotations", 9, bbox=[-3, 6, 30, 37])  # of 60 x 40
    module = coco(root, image_size=40, max_size=60, batch_size=5, hflip=False)
    expected = "1 boxes that reach outside their images are clipped in training, not in evaluation (annotation 1)"
    assert warnings(caplog) == [f"{annotations(root, part)}: {expected}" for part in ("train", "val")]
    ((_, targets),) = module.train_dataloader()
    (target,) = (target for target in targets if target["image_id"] == 100)
    assert target["boxes"].tolist() == [[0, 6, 27, 40]]
    truth = next(iter(module.test_dataloader()))[1][0]["truth"]
    assert truth["boxes"].tolist()[1] == [-3, 6, 27, 43]


def test_boxes_that_scaling_makes_too_small_are_counted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
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
    """Store an image turned to the left, as cameras do, with an orientation that turns it back; returns its pixels."""
    image = Image.open(path).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    return np.asarray(image)


def test_a_turned_image_has_the_size_that_it_is_annotated_with(root: Path) -> None:
    shown = turn(root / "train2017" / "000000000000.png", TURNED_RIGHT)  # annotated as it is shown
    stored = turn(root / "train2017" / "000000000001.png", TURNED_RIGHT).transpose(1, 0, 2)[::-1]
    change_entry(annotations(root), "images", 1, width=60, height=40)  # as it is stored
    change_entry(annotations(root), "annotations", 6, bbox=[20, 10, 20, 12])
    module = coco(root)
    assert module.images is not None
    pictures = module.images.train.pictures
    assert np.array_equal(np.asarray(pictures[0]), shown)
    assert np.array_equal(np.asarray(pictures[1]), stored)
    assert pictures.find_unreadable(np.arange(7)) == []


def test_images_that_are_not_the_annotated_ones_are_listed_before_training(root: Path) -> None:
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
    change_entry(annotations(root), "images", 0, width=40, height=60)  # what was found good is known by its size, too
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
