"""Sample epochs: the permutation of an epoch, its division among devices, and all of its random numbers.

Everything here is a function of (seed, epoch, position in the epoch). There is no state to save: a resumed run gets
the batches of an uninterrupted run, and at the same global batch size all devices together get those of one device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ghostexp.data.transforms import MixParams, MixupCutmix

# One random stream, with its own generator, for each kind of random numbers.
PERMUTATION_STREAM, SEED_STREAM, UNIFORM_STREAM, MIX_STREAM = range(4)


def mixed_seed(*numbers: int) -> int:
    """Hash integers >= 0 to 63 bits; neighbours (seeds 0 and 1, epochs 0 and 1) give unrelated streams."""
    shifted = [number + 1 for number in numbers]  # SeedSequence gives (1, 2) and (1, 2, 0) the same state
    return int(np.random.SeedSequence(shifted).generate_state(1, np.uint64)[0]) >> 1


@dataclass(frozen=True)
class DistributedBatches:
    """One device's part of every global batch; Lightning's batch is the micro-batch of one accumulation step."""

    batch_size: int  # over all devices and accumulation steps
    rank: int = 0
    world_size: int = 1
    accumulation_steps: int = 1

    @property
    def per_device_batch_size(self) -> int:
        """Compute the micro-batch size; ValueError if devices and accumulation do not divide the batch."""
        parts = self.world_size * self.accumulation_steps
        if self.batch_size % parts:
            nearest = max(1, round(self.batch_size / parts)) * parts
            raise ValueError(
                f"datamodule.batch_size={self.batch_size}: must be divisible by {self.world_size} devices x "
                f"{self.accumulation_steps} accumulation steps; set datamodule.batch_size={nearest}"
            )
        return self.batch_size // parts

    def num_micro_batches(self, count: int) -> int:
        """Count the micro-batches in an epoch of count images; the last incomplete global batch is dropped."""
        if count < self.batch_size:
            raise ValueError(
                f"datamodule.batch_size={self.batch_size}: must be at most {count}, the number of training images"
            )
        return count // self.batch_size * self.accumulation_steps

    def train_range(self, step: int) -> tuple[int, int]:
        """Return start and stop, in positions of the epoch, of this device's micro-batch number step."""
        batch, part = divmod(step, self.accumulation_steps)
        start = batch * self.batch_size + (part * self.world_size + self.rank) * self.per_device_batch_size
        return start, start + self.per_device_batch_size

    def eval_ranges(self, count: int) -> list[tuple[int, int]]:
        """Divide count images into this device's ranges: each image on one device, equally many ranges on all.

        All ranges but the last have one length, so that a compiled network sees few.
        """
        if count < self.world_size:
            raise ValueError(
                f"trainer.devices: must be at most {count}, the number of images to evaluate, got {self.world_size}"
            )
        size = max(self.batch_size, self.world_size)
        starts = list(range(0, count, size))
        if count - starts[-1] < self.world_size:  # too few for all devices: a part of the range before
            starts.pop()
        return [_part(start, stop, self.rank, self.world_size) for start, stop in pairwise([*starts, count])]


def _part(start: int, stop: int, number: int, parts: int) -> tuple[int, int]:
    """Return one of several near-equal parts of [start, stop)."""
    size = stop - start
    return start + size * number // parts, start + size * (number + 1) // parts


@dataclass(frozen=True)
class EpochSampler:
    """One device's stateless sampler of training epochs.

    Random numbers are indexed by the position in the epoch, generated on the CPU so that every device has the same,
    and independent of which augmentations are on.
    """

    indices: Tensor  # (N,): the images that are trained on
    distributed_batches: DistributedBatches
    seed: int
    mixing: MixupCutmix
    progress: Callable[[], tuple[int, int]]  # epoch, and number of its finished micro-batches

    def __len__(self) -> int:
        return self.distributed_batches.num_micro_batches(len(self.indices))

    def permutation(self, epoch: int) -> Tensor:
        """Return the image at each position, (N,)."""
        return self.indices[torch.randperm(len(self.indices), generator=self._generator(epoch, PERMUTATION_STREAM))]

    def seeds(self, epoch: int) -> Tensor:
        """Return a seed for each position, (N,), for transforms with their own random numbers."""
        return torch.randint(2**62, (len(self.indices),), generator=self._generator(epoch, SEED_STREAM))

    def random_uniforms(self, epoch: int) -> Tensor:
        """Return eight numbers in [0, 1) for each position, (N, 8), for whole-batch augmentation."""
        return torch.rand(len(self.indices), 8, generator=self._generator(epoch, UNIFORM_STREAM), dtype=torch.float64)

    def mix(self, epoch: int, step: int) -> MixParams | None:
        """Return the Mixup or CutMix parameters of a micro-batch: the same in all of a global batch."""
        if not self.mixing:
            return None
        batch = step // self.distributed_batches.accumulation_steps
        return self.mixing.sample(np.random.default_rng(mixed_seed(self.seed, epoch, MIX_STREAM, batch)))

    def select_micro_batch(self, values: Tensor, step: int) -> Tensor:
        """Select a micro-batch of values by position, (N, ...).

        With Mixup or CutMix one more value precedes it: an image is mixed with the one before it in the global batch
        (the first with the last), which may be on another device.
        """
        start, stop = self.distributed_batches.train_range(step)
        if not self.mixing:
            return values[start:stop]
        if start % self.distributed_batches.batch_size:
            return values[start - 1 : stop]
        last = start + self.distributed_batches.batch_size - 1
        return torch.cat([values[last : last + 1], values[start:stop]])

    def _generator(self, epoch: int, stream: int) -> torch.Generator:
        return torch.Generator().manual_seed(mixed_seed(self.seed, epoch, stream))


@dataclass(frozen=True)
class AspectRatioGroupedSampler(EpochSampler):
    """A sampler whose global batches are each of one group, apart from those of the groups' remainders."""

    groups: Tensor  # the group of every image of the set, also of those not trained on

    def permutation(self, epoch: int) -> Tensor:
        """Return the image at each position, (N,): batches are sorted by the original position of their first image."""
        order, batch_size = super().permutation(epoch), self.distributed_batches.batch_size
        group_at, full, remainders = self.groups[order], [], []
        for group in group_at.unique():
            positions = (group_at == group).nonzero().flatten()
            cut = len(positions) // batch_size * batch_size
            full.append(positions[:cut].view(-1, batch_size))
            remainders.append(positions[cut:])
        batches = torch.cat(full)
        batches = batches[batches[:, 0].argsort()]
        return order[torch.cat([batches.flatten(), torch.cat(remainders).sort().values])]
