"""Transform boxes with their images."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from ghostexp.data.coco_annotations import Annotations, GroundTruth, ResizeShortestEdge, transform_with_boxes


def ground_truth_of(boxes: list[list[float]], iscrowd: int = 0) -> GroundTruth:
    count = len(boxes)
    return GroundTruth(
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.arange(count),
        iscrowd=np.full(count, iscrowd),
        area=np.ones(count, dtype=np.float32),
    )


def extent(image: Image.Image) -> list[int]:
    """Return left, top, right and bottom of the bright pixels."""
    rows, columns = np.nonzero(np.asarray(image)[:, :, 0] > 127)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize(
    ("transform", "size"),
    [
        (ResizeShortestEdge(80, 80, None), (120, 80)),
        (ResizeShortestEdge(160, 160, None), (240, 160)),
        (ResizeShortestEdge(80, 80, 90), (90, 60)),
        (v2.RandomHorizontalFlip(1.0), (120, 80)),
        (v2.Compose([ResizeShortestEdge(27, 27, 200), v2.RandomHorizontalFlip(1.0)]), (40, 27)),
        (v2.Compose([ResizeShortestEdge(40, 160, None), v2.RandomHorizontalFlip()]), None),
    ],
)
def test_transformed_box_encloses_its_object(transform: v2.Transform, size: tuple[int, int] | None) -> None:
    image = Image.new("RGB", (120, 80))
    image.paste((255, 255, 255), (15, 20, 81, 68))
    image, boxes, labels = transform_with_boxes(image, ground_truth_of([[15, 20, 81, 68]]), transform)
    assert size is None or image.size == size
    assert labels.tolist() == [0]
    assert np.abs(boxes[0] - extent(image)).max() <= 1, (boxes, extent(image))
    assert boxes.dtype == np.float32


def test_resize_shortest_edge_is_exact() -> None:
    for side in range(20, 400):
        assert min(ResizeShortestEdge(32, 32, None)(Image.new("L", (side, 401))).size) == 32
    assert ResizeShortestEdge(320, 320, 400)(Image.new("L", (5000, 2))).size == (400, 1)


def test_resize_shortest_edge_samples_whole_range() -> None:
    torch.manual_seed(0)
    image = Image.new("L", (64, 128))
    assert {ResizeShortestEdge(30, 34, None)(image).width for _ in range(100)} == {30, 31, 32, 33, 34}


def test_untrainable_boxes_are_left_out() -> None:
    image, identity = Image.new("RGB", (100, 100)), ResizeShortestEdge(100, 100, None)
    boxes = [[10, 10, 50, 50], [10, 10, 10, 50], [10, 10, 50, 10], [-0.5, 0, 100.4, 100]]
    _, kept, labels = transform_with_boxes(image, ground_truth_of(boxes), identity)
    assert labels.tolist() == [0, 3]
    assert kept.tolist() == [[10, 10, 50, 50], [0, 0, 100, 100]]  # an overhang is cut off
    assert transform_with_boxes(image, ground_truth_of(boxes, iscrowd=1), identity)[1].shape == (0, 4)
    assert transform_with_boxes(image, ground_truth_of([]), identity)[1].shape == (0, 4)
    _, kept, labels = transform_with_boxes(
        image, ground_truth_of([[0, 0, 9, 40], [0, 0, 40, 40]]), ResizeShortestEdge(10, 10, None)
    )
    assert labels.tolist() == [1]  # the other is narrower than a pixel after scaling


def test_annotations_are_grouped_by_image() -> None:
    image_index = np.array([3, 0, 3, 1])
    ground_truth = ground_truth_of([[0, 0, 5, 5], [1, 1, 5, 5], [2, 2, 5, 5], [3, 3, 3, 5]])
    all_of = Annotations.of_images(range(10, 14), np.full((4, 2), 9), image_index, ground_truth, (1,))
    assert [all_of.of(image)["boxes"][:, 0].tolist() for image in range(4)] == [[1], [3], [], [0, 2]]
    assert [all_of.of(image)["labels"].tolist() for image in range(4)] == [[1], [3], [], [0, 2]]
    assert all_of.has_objects().tolist() == [True, False, False, True]  # the box of image 1 has no width
