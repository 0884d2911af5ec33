"""Batch arithmetic, ranges and permutations, without data."""

import pytest
import torch

from ghostexp.data.sampling import DistributedBatches, EpochSampler, mixed_seed
from ghostexp.data.transforms import MixupCutmix


def test_per_device_batch_size() -> None:
    assert DistributedBatches(64, world_size=4, accumulation_steps=2).per_device_batch_size == 8


def test_indivisible_batch_size_raises_with_nearest() -> None:
    with pytest.raises(
        ValueError, match=r"^datamodule.batch_size=64: must be divisible by 3 devices x 1 .*batch_size=63$"
    ):
        _ = DistributedBatches(64, world_size=3).per_device_batch_size


def test_batch_larger_than_training_set_raises() -> None:
    with pytest.raises(
        ValueError, match=r"^datamodule.batch_size=64: must be at most 30, the number of training images"
    ):
        DistributedBatches(64).num_micro_batches(30)


@pytest.mark.parametrize("accumulation_steps", [1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_train_ranges_tile_full_batches_of_epoch(world_size: int, accumulation_steps: int) -> None:
    ranks = [DistributedBatches(12, rank, world_size, accumulation_steps) for rank in range(world_size)]
    steps = ranks[0].num_micro_batches(59)
    assert steps == 4 * accumulation_steps
    seen = [position for step in range(steps) for rank in ranks for position in range(*rank.train_range(step))]
    assert seen == list(range(48))


@pytest.mark.parametrize("count", [4, 5, 7, 10, 31, 64, 65, 101])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [4, 8])
def test_eval_ranges_cover_each_image_once_with_equal_counts(batch_size: int, world_size: int, count: int) -> None:
    ranges = [DistributedBatches(batch_size, rank, world_size).eval_ranges(count) for rank in range(world_size)]
    assert len({len(of_rank) for of_rank in ranges}) == 1
    assert all(start < stop for of_rank in ranges for start, stop in of_rank)
    assert sorted(index for of_rank in ranges for one in of_rank for index in range(*one)) == list(range(count))
    assert max(stop - start for of_rank in ranges for start, stop in of_rank) <= batch_size


def test_fewer_eval_images_than_devices_raises() -> None:
    with pytest.raises(
        ValueError, match=r"^trainer.devices: must be at most 3, the number of images to evaluate, got 4"
    ):
        DistributedBatches(8, world_size=4).eval_ranges(3)


def test_permutation_depends_on_seed_and_epoch_only() -> None:
    indices = torch.arange(100, 200)
    sampler = EpochSampler(indices, DistributedBatches(10), seed=1, mixing=MixupCutmix(), progress=lambda: (0, 0))
    same = EpochSampler(
        indices, DistributedBatches(20), seed=1, mixing=MixupCutmix(mixup_alpha=1.0), progress=lambda: (0, 5)
    )
    other = EpochSampler(indices, DistributedBatches(10), seed=2, mixing=MixupCutmix(), progress=lambda: (0, 0))
    assert torch.equal(sampler.permutation(3).sort().values, indices)
    assert torch.equal(sampler.permutation(3), same.permutation(3))
    assert not torch.equal(sampler.permutation(3), sampler.permutation(4))
    assert not torch.equal(sampler.permutation(3), other.permutation(3))


def test_mixed_seed_has_no_collisions() -> None:
    tuples = [(s, e) for s in range(30) for e in range(30)] + [(s, e, 0) for s in range(30) for e in range(30)]
    assert len({mixed_seed(*numbers) for numbers in tuples}) == len(tuples)


def test_eval_ranges_have_one_length_but_for_the_last() -> None:
    for world_size in (1, 3):
        lengths = [stop - start for start, stop in DistributedBatches(128, 0, world_size).eval_ranges(10_000)]
        assert len(set(lengths[:-1])) == 1
    assert len(DistributedBatches(1000).eval_ranges(10_000)) == 10
