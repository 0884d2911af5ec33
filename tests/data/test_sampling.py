"""Who sees which image, without data: batch arithmetic, spans and orders."""

import pytest
import torch

from ghostexp.data.sampling import DistributedBatches, EpochSampler, mixed_seed
from ghostexp.data.transforms import MixupCutmix


def test_a_batch_that_devices_and_accumulation_divide_is_split_among_them() -> None:
    assert DistributedBatches(64, world_size=4, accumulation_steps=2).per_device_batch_size == 8


def test_a_batch_that_devices_do_not_divide_is_refused_with_the_nearest_that_works() -> None:
    with pytest.raises(ValueError, match=r"^datamodule.batch_size=64: not divisible by 3 devices x 1 .*batch_size=63$"):
        _ = DistributedBatches(64, world_size=3).per_device_batch_size


def test_fewer_images_than_one_batch_are_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"^datamodule.batch_size=64: the training set has 30 images"):
        DistributedBatches(64).num_micro_batches(30)


@pytest.mark.parametrize("accumulation_steps", [1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_spans_of_all_devices_and_steps_tile_the_whole_batches_of_an_epoch(
    world_size: int, accumulation_steps: int
) -> None:
    shares = [DistributedBatches(12, rank, world_size, accumulation_steps) for rank in range(world_size)]
    steps = shares[0].num_micro_batches(59)
    assert steps == 4 * accumulation_steps
    seen = [
        place
        for step in range(steps)
        for distributed_batches in shares
        for place in range(*distributed_batches.train_range(step))
    ]
    assert seen == list(range(48))


@pytest.mark.parametrize("count", [4, 5, 7, 10, 31, 64, 65, 101])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [4, 8])
def test_each_image_is_evaluated_once_in_as_many_non_empty_batches_on_every_device(
    batch_size: int, world_size: int, count: int
) -> None:
    spans = [DistributedBatches(batch_size, rank, world_size).eval_ranges(count) for rank in range(world_size)]
    assert len({len(of_rank) for of_rank in spans}) == 1
    assert all(start < stop for of_rank in spans for start, stop in of_rank)
    assert sorted(place for of_rank in spans for span in of_rank for place in range(*span)) == list(range(count))
    assert max(stop - start for of_rank in spans for start, stop in of_rank) <= batch_size


def test_fewer_images_to_evaluate_than_devices_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^trainer.devices: 4 devices cannot share 3 images"):
        DistributedBatches(8, world_size=4).eval_ranges(3)


def test_an_order_is_a_permutation_that_seed_and_epoch_decide() -> None:
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


def test_seeds_of_neighbours_and_of_longer_tuples_differ() -> None:
    tuples = [(s, e) for s in range(30) for e in range(30)] + [(s, e, 0) for s in range(30) for e in range(30)]
    assert len({mixed_seed(*numbers) for numbers in tuples}) == len(tuples)
