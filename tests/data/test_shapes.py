"""The generated detection set."""

import hashlib
from typing import Any

import numpy as np
import pytest
import torch

from ghostexp.data.datasets.shapes import CLASSES, SIDE, Shapes, generate_image, shape
from tests.data.test_data_errors import refused

DIGEST = "9edfa17f75dbe344fe6d8d8a97baed3368704fbabc4217af88bea6539da18d87"


def shapes(**changes: Any) -> Shapes:
    arguments: dict[str, Any] = {"batch_size": 4, "num_classes": 4, "in_chans": 3, "image_size": 128, "num_images": 20}
    module = Shapes(**(arguments | changes))
    module.setup()
    return module


@pytest.mark.parametrize("label", range(len(CLASSES)))
def test_shape_touches_all_sides_of_its_box(label: int) -> None:
    generator = np.random.default_rng(label)
    for _ in range(300):
        height, width = generator.integers(6, 65, 2)
        mask = shape(label, height, width, apex=int(generator.integers(width)), upside_down=bool(generator.integers(2)))
        assert mask.shape == (height, width)
        assert mask[0].any()
        assert mask[-1].any()
        assert mask[:, 0].any()
        assert mask[:, -1].any()


def test_set_is_reproducible_with_documented_sizes() -> None:
    generated = [generate_image(part, number) for part, count in ((0, 600), (1, 150)) for number in range(count)]
    digest = hashlib.sha256()
    for one in generated:
        digest.update(one.image.tobytes())
        digest.update(np.hstack([one.boxes, one.labels[:, None], one.areas[:, None]]).astype("<i8").tobytes())
    assert digest.hexdigest() == DIGEST
    assert {len(one.boxes) for one in generated} == {1, 2, 3, 4, 5}
    boxes = np.concatenate([one.boxes for one in generated])
    sides = boxes[:, 2:] - boxes[:, :2]
    assert (sides.min(), sides.max()) == (12, 64)
    assert (boxes.min(), boxes.max()) == (0, SIDE)
    assert np.bincount(np.concatenate([one.labels for one in generated])).min() > 500


def test_visible_part_is_in_its_box_and_at_least_a_third() -> None:
    hidden = 0
    for number in range(200):
        scene = generate_image(0, number)
        for item, (left, top, right, bottom) in enumerate(scene.boxes):
            mine = scene.object_map == item
            assert mine[top:bottom, left:right].sum() == mine.sum() >= scene.areas[item] / 3
            hidden += mine.sum() < scene.areas[item]
        left, top, right, bottom = scene.boxes[-1]  # in front of all
        rows, columns = np.nonzero(scene.object_map == len(scene.boxes) - 1)
        extent = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert extent == (left, top, right, bottom)
    assert hidden > 50


def test_object_map_matches_colours() -> None:
    for number in range(50):
        scene = generate_image(0, number)
        for item in range(len(scene.boxes)):
            colours = scene.image[scene.object_map == item].astype(int)
            assert colours.std(0).max() < 20  # one colour and noise
            near = np.abs(scene.image - np.median(colours, 0)).sum(2) < 40
            assert (near & (scene.object_map != item)).mean() < 0.05


def test_batches_have_generated_images_and_boxes() -> None:
    module = shapes(hflip=False)
    assert (len(module.train_indices), module.test_images) == (20, 5)
    assert module.category_ids == (1, 2, 3, 4)
    images, targets = next(iter(module.test_dataloader()))
    scene = generate_image(1, 0)
    seen = (module.denormalize(images[0]) * 255).round().byte().permute(1, 2, 0)
    assert torch.equal(seen, torch.from_numpy(scene.image))
    assert targets[0]["boxes"].tolist() == targets[0]["ground_truth"]["boxes"].tolist() == scene.boxes.tolist()
    assert targets[0]["labels"].tolist() == scene.labels.tolist()
    assert targets[0]["ground_truth"]["area"].tolist() == scene.areas.tolist()
    assert len(list(module.train_dataloader())) == 5


def test_invalid_argument_raises() -> None:
    refused(lambda: shapes(num_classes=80), "datamodule.num_classes=80: shapes has 4 classes")
    refused(lambda: shapes(num_images=3), "datamodule.num_images=3: ")
    refused(lambda: shapes(in_chans=1), "datamodule.in_chans=1: ")
