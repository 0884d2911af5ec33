"""Sets in COCO's layout: annotations, and batches as a function of seed, epoch and position."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ghostexp.data.dataloader import BatchSpec
from ghostexp.data.datasets.coco import Coco
from ghostexp.data.detection_datamodule import Batch
from ghostexp.data.sampling import AspectRatioGroupedSampler, DistributedBatches, EpochSampler
from ghostexp.data.transforms import MixupCutmix
from tests.data.fake_coco import ANNOTATED, SIZES, coco, tensors_of, write_set

RANDOM: dict[str, Any] = {"hflip": True, "scale_jitter": 0.5, "keep_empty": True}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set")


def equal(first: Iterable[Batch], second: Iterable[Batch]) -> bool:
    pairs = [(tensors_of(one), tensors_of(other)) for one, other in zip(first, second, strict=True)]
    return all(len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True)) for a, b in pairs)


def ids(batches: Iterable[Batch]) -> list[int]:
    return [int(target["image_id"]) for _, targets in batches for target in targets]


def test_test_batches_have_each_image_once_with_ground_truth(root: Path) -> None:
    module = coco(root)
    batches = list(module.test_dataloader())
    assert ids(batches) == [500 + number for number in range(len(SIZES))]
    assert [len(images) for images, _ in batches] == [2, 2, 2, 1]
    (image, *_), (target, *_) = batches[0]
    ground_truth = target["ground_truth"]
    assert image.shape == (3, 24, 36)
    assert target["original_size"].tolist() == [40, 60]  # height, width
    torch.testing.assert_close(ground_truth["boxes"], torch.tensor([[40.0, 28, 60, 40], [4, 6, 34, 6 + 40 / 3]]))
    assert ground_truth["iscrowd"].tolist() == [1, 0]
    torch.testing.assert_close(ground_truth["area"], torch.tensor([120.0, 200]))
    torch.testing.assert_close(target["boxes"], ground_truth["boxes"][1:] * 0.6)  # without the crowd
    types = [tensor.dtype for tensor in tensors_of(target)]
    floats, whole = torch.float32, torch.int64
    assert types == [floats, whole, whole, whole, floats, whole, whole, floats]
    assert tensors_of(batches[-1][1][-1])[0].shape == tensors_of(batches[-1][1][-1]["ground_truth"])[0].shape == (0, 4)


def test_labels_are_categories_sorted_by_id(root: Path) -> None:
    module = coco(root)
    assert module.class_names == ("ant", "cow")
    assert module.category_ids == (2, 7)
    targets = [target for _, batch in module.test_dataloader() for target in batch]
    labels = {int(target["image_id"]): target["ground_truth"]["labels"].tolist() for target in targets}
    assert labels[500] == [0, 0]
    assert labels[501] == [0, 1]


def test_train_batches_have_objects_and_with_keep_empty_all_images(root: Path) -> None:
    default = coco(root, batch_size=ANNOTATED)
    assert default.train_indices.tolist() == list(range(ANNOTATED))
    ((_, targets),) = default.train_dataloader()
    boxes = {int(target["image_id"]): len(target["boxes"]) for target in targets}
    assert boxes == {100: 1, 101: 2, 102: 2, 103: 2, 104: 2}  # without the first image's crowd
    assert set(targets[0]) == {"boxes", "labels", "image_id"}
    kept = coco(root, batch_size=len(SIZES), keep_empty=True)
    assert len(kept.train_indices) == len(SIZES)
    ((images, targets),) = kept.train_dataloader()
    assert sorted(len(target["boxes"]) for target in targets) == [0, 0, 1, 2, 2, 2, 2]
    assert all(target["boxes"].shape[1:] == (4,) for target in targets)
    assert all(image.std() > 0 and abs(image.mean()) < 1 for image in images)  # normalised


def test_holdout_keeps_empty_images(root: Path) -> None:
    module = coco(root, validate_on="holdout", holdout_fraction=0.6)
    assert module.val_indices is not None
    seen = ids(module.val_dataloader())
    assert seen == [100 + int(index) for index in module.val_indices]
    assert set(seen) & {105, 106}
    assert not set(seen) & {100 + int(index) for index in module.train_indices}
    assert all("ground_truth" in target for _, targets in module.val_dataloader() for target in targets)


def test_batches_do_not_depend_on_num_workers(root: Path) -> None:
    without_workers, with_workers = coco(root, **RANDOM), coco(root, num_workers=2, **RANDOM)
    before = torch.get_rng_state()
    assert equal(without_workers.train_dataloader(), with_workers.train_dataloader())
    assert equal(without_workers.test_dataloader(), with_workers.test_dataloader())
    assert torch.equal(before, torch.get_rng_state())
    with_workers.teardown("fit")


def test_batches_depend_on_seed_and_epoch_and_resume_in_mid_epoch(root: Path) -> None:
    def batches(progress: tuple[int, int] = (0, 0), **changes: Any) -> list[Batch]:
        module = coco(root, **(RANDOM | {"aspect_ratio_grouping": True} | changes))
        module._progress = lambda: progress  # type: ignore[method-assign]
        return list(module.train_dataloader())

    whole = batches()
    assert len(whole) == 3
    assert equal(whole, batches())
    assert equal(whole[2:], batches((0, 2)))
    assert not equal(whole, batches(seed=4))
    assert not equal(whole, batches((1, 0)))
    assert sorted({image.shape[1] for images, _ in whole for image in images})[0] < 24  # jitter is on


@pytest.mark.parametrize("grouped", [False, True])
def test_two_devices_get_the_batches_of_one(root: Path, grouped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = coco(root, batch_size=4, aspect_ratio_grouping=grouped, **RANDOM)
    parts = []
    for rank in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(Coco, "distributed_batches", DistributedBatches(4, rank, world_size=2))
            parts.append((list(whole.train_dataloader()), list(whole.test_dataloader())))
    (first, first_test), (second, second_test) = parts
    together = [(a + c, b + d) for (a, b), (c, d) in zip(first, second, strict=True)]
    assert equal(whole.train_dataloader(), together)
    assert len(first_test) == len(second_test)
    assert sorted(ids(first_test) + ids(second_test)) == ids(whole.test_dataloader())  # seven, an odd number


def test_grouped_batches_have_one_group_and_all_images() -> None:
    groups = torch.arange(103) % 10 < 3
    indices = torch.arange(3, 103)  # 30 and 70, of which 6 and 6 are left over: a mixed batch, and 4 dropped
    arguments = (indices, DistributedBatches(8), 5, MixupCutmix(), lambda: (0, 0))
    sampler, plain = AspectRatioGroupedSampler(*arguments, groups=groups), EpochSampler(*arguments)
    order = sampler.permutation(epoch=2)
    assert order.sort().values.tolist() == indices.tolist()
    mixed = [len(set(groups[batch].tolist())) > 1 for batch in order.split(8)[: len(sampler)]]
    assert mixed == [False] * 11 + [True]
    kinds = [bool(groups[batch][0]) for batch in order.split(8)[: len(sampler) - 1]]
    assert kinds != sorted(kinds)  # tall batches come among wide ones
    assert kinds != sorted(kinds, reverse=True)
    left_over = torch.cat([sampler.permutation(epoch)[len(sampler) * 8 :] for epoch in range(5)])
    assert 0 < groups[left_over].sum() < len(left_over)  # no group is favoured
    assert not torch.equal(order, sampler.permutation(epoch=3))
    alike = AspectRatioGroupedSampler(*arguments, groups=torch.zeros(103))
    assert torch.equal(alike.permutation(2), plain.permutation(2))


def test_aspect_ratio_grouping_uses_annotated_sizes(root: Path) -> None:
    module = coco(root, batch_size=2, aspect_ratio_grouping=True, keep_empty=True)
    for images, _ in list(module.train_dataloader())[:2]:
        assert len({image.shape[1] > image.shape[2] for image in images}) == 1


def test_workers_send_targets_as_arrays(root: Path) -> None:
    module = coco(root)
    assert module.images is not None
    images, targets = module.images.test.load_batch(BatchSpec([0, 1, 6]))
    assert len(images) == len(targets) == 3
    for target in targets:
        assert "ground_truth" in target
        assert {type(value) for value in target["ground_truth"].values()} == {np.ndarray}  # a tensor needs an open file
        assert {type(value) for key, value in target.items() if key != "ground_truth"} == {np.ndarray}


def test_eval_transform_equals_test_batches(root: Path) -> None:
    module = coco(root)
    transform = module.eval_transform()
    paths = sorted((root / "val2017").glob("*.png"))
    tested = [image for images, _ in module.test_dataloader() for image in images]
    for path, image in zip(paths, tested, strict=True):
        alone = transform(Image.open(path))
        assert torch.equal(alone, image)
        assert module.denormalize(alone).shape == image.shape
    assert ids(module.test_sample(3)) == [500, 503, 506]


def test_folder_and_file_names_are_configurable(root: Path) -> None:
    (root / "val2017" / "deep").mkdir()
    (root / "val2017" / "000000000003.png").rename(root / "val2017" / "deep" / "3.png")
    path = root / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content["images"][3]["file_name"] = "deep/3.png"
    (root / "test.json").write_text(json.dumps(content))
    (root / "val2017").rename(root / "pictures")
    module = coco(root, test_folder="pictures", test_file="test.json")
    assert len(ids(module.test_dataloader())) == len(SIZES)
