"""Sets in COCO's layout: what is read, and that order and chance are functions of seed, epoch and position."""

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

CHANCE: dict[str, Any] = {"hflip": True, "scale_jitter": 0.5, "keep_empty": True}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set")


def equal(first: Iterable[Batch], second: Iterable[Batch]) -> bool:
    pairs = [(tensors_of(one), tensors_of(other)) for one, other in zip(first, second, strict=True)]
    return all(len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True)) for a, b in pairs)


def ids(batches: Iterable[Batch]) -> list[int]:
    return [int(target["image_id"]) for _, targets in batches for target in targets]


def test_evaluation_has_each_image_once_with_all_that_was_annotated(root: Path) -> None:
    module = coco(root)
    batches = list(module.test_dataloader())
    assert ids(batches) == [500 + number for number in range(len(SIZES))]
    assert [len(images) for images, _ in batches] == [1, 2, 2, 2]
    (image, *_), (target, *_) = batches[0]
    truth = target["truth"]
    assert image.shape == (3, 24, 36)
    assert target["original"].tolist() == [40, 60]  # height, width
    torch.testing.assert_close(truth["boxes"], torch.tensor([[40.0, 28, 60, 40], [4, 6, 34, 6 + 40 / 3]]))
    assert truth["iscrowd"].tolist() == [1, 0]
    torch.testing.assert_close(truth["area"], torch.tensor([120.0, 200]))
    torch.testing.assert_close(target["boxes"], truth["boxes"][1:] * 0.6)  # without the crowd
    types = [tensor.dtype for tensor in tensors_of(target)]
    floats, whole = torch.float32, torch.int64
    assert types == [floats, whole, whole, whole, floats, whole, whole, floats]
    assert tensors_of(batches[-1][1][1])[0].shape == tensors_of(batches[-1][1][1]["truth"])[0].shape == (0, 4)


def test_labels_are_the_categories_in_the_order_of_their_ids(root: Path) -> None:
    module = coco(root)
    assert module.class_names == ("ant", "cow")
    assert module.category_ids == (2, 7)
    labels = {int(t["image_id"]): t["truth"]["labels"].tolist() for _, batch in module.test_dataloader() for t in batch}
    assert labels[500] == [0, 0]
    assert labels[501] == [0, 1]


def test_training_shows_objects_only_and_empty_images_if_wanted(root: Path) -> None:
    plain = coco(root, batch_size=ANNOTATED)
    assert plain.train_indices.tolist() == list(range(ANNOTATED))
    ((_, targets),) = plain.train_dataloader()
    boxes = {int(target["image_id"]): len(target["boxes"]) for target in targets}
    assert boxes == {100: 1, 101: 2, 102: 2, 103: 2, 104: 2}  # the crowd of the first is not there
    assert set(targets[0]) == {"boxes", "labels", "image_id"}
    kept = coco(root, batch_size=len(SIZES), keep_empty=True)
    assert len(kept.train_indices) == len(SIZES)
    ((images, targets),) = kept.train_dataloader()
    assert sorted(len(target["boxes"]) for target in targets) == [0, 0, 1, 2, 2, 2, 2]
    assert all(target["boxes"].shape[1:] == (4,) for target in targets)
    assert all(image.std() > 0 and abs(image.mean()) < 1 for image in images)  # normalised


def test_a_validation_set_cut_from_training_keeps_its_empty_images(root: Path) -> None:
    module = coco(root, validate_on="holdout", holdout_fraction=0.6)
    assert module.val_indices is not None
    seen = ids(module.val_dataloader())
    assert seen == [100 + int(index) for index in module.val_indices]
    assert set(seen) & {105, 106}
    assert not set(seen) & {100 + int(index) for index in module.train_indices}
    assert all("truth" in target for _, targets in module.val_dataloader() for target in targets)


def test_batches_do_not_depend_on_the_number_of_workers_nor_touch_the_random_state(root: Path) -> None:
    alone, helped = coco(root, **CHANCE), coco(root, num_workers=2, **CHANCE)
    before = torch.get_rng_state()
    assert equal(alone.train_dataloader(), helped.train_dataloader())
    assert equal(alone.test_dataloader(), helped.test_dataloader())
    assert torch.equal(before, torch.get_rng_state())
    helped.teardown("fit")


def test_seed_and_epoch_decide_the_batches_and_a_start_in_mid_epoch_sees_the_rest(root: Path) -> None:
    def batches(progress: tuple[int, int] = (0, 0), **changes: Any) -> list[Batch]:
        module = coco(root, **(CHANCE | {"aspect_ratio_grouping": True} | changes))
        module._progress = lambda: progress  # type: ignore[method-assign]
        return list(module.train_dataloader())

    whole = batches()
    assert len(whole) == 3
    assert equal(whole, batches())
    assert equal(whole[2:], batches((0, 2)))
    assert not equal(whole, batches(seed=4))
    assert not equal(whole, batches((1, 0)))
    assert sorted({image.shape[1] for images, _ in whole for image in images})[0] < 24  # chance is at work


@pytest.mark.parametrize("grouped", [False, True])
def test_two_devices_see_together_what_one_device_sees(
    root: Path, grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = coco(root, batch_size=4, aspect_ratio_grouping=grouped, **CHANCE)
    parts = []
    for rank in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(Coco, "share", DistributedBatches(4, rank, world_size=2))
            parts.append((list(whole.train_dataloader()), list(whole.test_dataloader())))
    (first, first_test), (second, second_test) = parts
    together = [(a + c, b + d) for (a, b), (c, d) in zip(first, second, strict=True)]
    assert equal(whole.train_dataloader(), together)
    assert len(first_test) == len(second_test)
    assert sorted(ids(first_test) + ids(second_test)) == ids(whole.test_dataloader())  # seven, an odd number


def test_grouped_batches_are_all_wide_or_all_tall_and_every_image_is_there() -> None:
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


def test_wide_and_tall_come_from_the_annotations(root: Path) -> None:
    module = coco(root, batch_size=2, aspect_ratio_grouping=True, keep_empty=True)
    for images, _ in list(module.train_dataloader())[:2]:
        assert len({image.shape[1] > image.shape[2] for image in images}) == 1


def test_workers_send_no_tensors_but_the_images(root: Path) -> None:
    module = coco(root)
    assert module.images is not None
    images, targets = module.images.test.make(BatchSpec([0, 1, 6]))
    assert len(images) == len(targets) == 3
    for target in targets:
        assert "truth" in target
        assert {type(value) for value in target["truth"].values()} == {np.ndarray}  # a tensor takes an open file
        assert {type(value) for key, value in target.items() if key != "truth"} == {np.ndarray}


def test_a_single_image_is_prepared_as_in_the_test_set(root: Path) -> None:
    module = coco(root)
    transform = module.eval_transform()
    paths = sorted((root / "val2017").glob("*.png"))
    tested = [image for images, _ in module.test_dataloader() for image in images]
    for path, image in zip(paths, tested, strict=True):
        alone = transform(Image.open(path))
        assert torch.equal(alone, image)
        assert module.denormalize(alone).shape == image.shape
    assert ids(module.test_sample(3)) == [500, 503, 506]


def test_folders_and_files_may_have_other_names(root: Path) -> None:
    (root / "val2017" / "deep").mkdir()
    (root / "val2017" / "000000000003.png").rename(root / "val2017" / "deep" / "3.png")
    path = root / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content["images"][3]["file_name"] = "deep/3.png"
    (root / "test.json").write_text(json.dumps(content))
    (root / "val2017").rename(root / "pictures")
    module = coco(root, test_folder="pictures", test_file="test.json")
    assert len(ids(module.test_dataloader())) == len(SIZES)
