"""Who sees which image, without data: batch arithmetic, spans and orders."""

import pytest
import torch

from ghostexp.data.mix import Mixing
from ghostexp.data.plan import Share, TrainPlan, mixed_seed


def test_a_batch_that_devices_and_accumulation_divide_is_split_among_them() -> None:
    assert Share(64, world_size=4, accumulate=2).micro_batch == 8


def test_a_batch_that_devices_do_not_divide_is_refused_with_the_nearest_that_works() -> None:
    with pytest.raises(ValueError, match=r"^datamodule.batch_size=64: not divisible by 3 devices x 1 .*batch_size=63$"):
        _ = Share(64, world_size=3).micro_batch


def test_fewer_images_than_one_batch_are_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"^datamodule.batch_size=64: the training set has 30 images"):
        Share(64).train_steps(30)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_spans_of_all_devices_and_steps_tile_the_whole_batches_of_an_epoch(
    world_size: int, accumulate: int
) -> None:
    shares = [Share(12, rank, world_size, accumulate) for rank in range(world_size)]
    steps = shares[0].train_steps(59)
    assert steps == 4 * accumulate
    seen = [place for step in range(steps) for share in shares for place in range(*share.train_span(step))]
    assert seen == list(range(48))


@pytest.mark.parametrize("count", [4, 5, 7, 10, 31, 64, 65, 101])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [4, 8])
def test_each_image_is_evaluated_once_in_as_many_non_empty_batches_on_every_device(
    batch_size: int, world_size: int, count: int
) -> None:
    spans = [Share(batch_size, rank, world_size).eval_spans(count) for rank in range(world_size)]
    assert len({len(of_rank) for of_rank in spans}) == 1
    assert all(start < stop for of_rank in spans for start, stop in of_rank)
    assert sorted(place for of_rank in spans for span in of_rank for place in range(*span)) == list(range(count))
    assert max(stop - start for of_rank in spans for start, stop in of_rank) <= batch_size


def test_fewer_images_to_evaluate_than_devices_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^trainer.devices: 4 devices cannot share 3 images"):
        Share(8, world_size=4).eval_spans(3)


def test_an_order_is_a_permutation_that_seed_and_epoch_decide() -> None:
    indices = torch.arange(100, 200)
    plan = TrainPlan(indices, Share(10), seed=1, mixing=Mixing(), position=lambda: (0, 0))
    same = TrainPlan(indices, Share(20), seed=1, mixing=Mixing(mixup=1.0), position=lambda: (0, 5))
    other = TrainPlan(indices, Share(10), seed=2, mixing=Mixing(), position=lambda: (0, 0))
    assert torch.equal(plan.order(3).sort().values, indices)
    assert torch.equal(plan.order(3), same.order(3))
    assert not torch.equal(plan.order(3), plan.order(4))
    assert not torch.equal(plan.order(3), other.order(3))


def test_seeds_of_neighbours_and_of_longer_tuples_differ() -> None:
    tuples = [(s, e) for s in range(30) for e in range(30)] + [(s, e, 0) for s in range(30) for e in range(30)]
    assert len({mixed_seed(*numbers) for numbers in tuples}) == len(tuples)
