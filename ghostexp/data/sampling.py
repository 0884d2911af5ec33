"""Which image comes when: the order of an epoch, every device's part of it, and all of its random numbers.

Everything here is a function of (seed, epoch, position in the epoch). There is no state to save: a resumed run sees
the batches of an unbroken one, and any number of devices sees together what one device sees at the same global batch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ghostexp.data.transforms import MixParams, MixupCutmix

PERMUTATION_STREAM, SEED_STREAM, UNIFORM_STREAM, MIX_STREAM = range(
    4
)  # each kind of chance draws from a generator of its own


def mixed_seed(*numbers: int) -> int:
    """63 bits from whole numbers >= 0 in which neighbours (seeds 0 and 1, epochs 0 and 1) have nothing in common."""
    shifted = [number + 1 for number in numbers]  # SeedSequence cannot tell (1, 2) from (1, 2, 0)
    return int(np.random.SeedSequence(shifted).generate_state(1, np.uint64)[0]) >> 1


@dataclass(frozen=True)
class DistributedBatches:
    """One device's part of every global batch; Lightning's batch is a micro-batch of one accumulation step."""

    batch_size: int  # over all devices and accumulation steps
    rank: int = 0
    world_size: int = 1
    accumulation_steps: int = 1

    @property
    def per_device_batch_size(self) -> int:
        """Images a device sees at a time; ValueError if devices and accumulation do not divide the batch."""
        parts = self.world_size * self.accumulation_steps
        if self.batch_size % parts:
            nearest = max(1, round(self.batch_size / parts)) * parts
            raise ValueError(
                f"datamodule.batch_size={self.batch_size}: not divisible by {self.world_size} devices x "
                f"{self.accumulation_steps} accumulation steps; set datamodule.batch_size={nearest}"
            )
        return self.batch_size // parts

    def num_micro_batches(self, count: int) -> int:
        """Micro-batches in an epoch of count images, the last incomplete global batch dropped."""
        if count < self.batch_size:
            raise ValueError(
                f"datamodule.batch_size={self.batch_size}: the training set has {count} images, less than one batch"
            )
        return count // self.batch_size * self.accumulation_steps

    def train_range(self, step: int) -> tuple[int, int]:
        """First and one past the last position in the epoch's order of this device's micro-batch number step."""
        batch, part = divmod(step, self.accumulation_steps)
        start = batch * self.batch_size + (part * self.world_size + self.rank) * self.per_device_batch_size
        return start, start + self.per_device_batch_size

    def eval_ranges(self, count: int) -> list[tuple[int, int]]:
        """This device's spans of count images: each image on one device, and equally many spans on all.

        DDP synchronises buffers in every forward: a device with a batch more than the others would wait for ever.
        """
        if count < self.world_size:
            raise ValueError(f"trainer.devices: {self.world_size} devices cannot share {count} images to evaluate")
        chunks = min(math.ceil(count / self.batch_size), count // self.world_size)
        spans = []
        for chunk in range(chunks):
            start, stop = _part(0, count, chunk, chunks)
            spans.append(_part(start, stop, self.rank, self.world_size))
        return spans


def _part(start: int, stop: int, number: int, parts: int) -> tuple[int, int]:
    """One of several near-equal parts of [start, stop)."""
    size = stop - start
    return start + size * number // parts, start + size * (number + 1) // parts


@dataclass(frozen=True)
class EpochSampler:
    """One device's way through training.

    Random numbers belong to a position in the epoch, are drawn on the CPU so that every device has the same, and do
    not depend on which augmentations are on.
    """

    indices: Tensor  # (N,): the images of the set that are trained on
    distributed_batches: DistributedBatches
    seed: int
    mixing: MixupCutmix
    progress: Callable[[], tuple[int, int]]  # epoch, and micro-batches of it that are done

    def __len__(self) -> int:
        return self.distributed_batches.num_micro_batches(len(self.indices))

    def permutation(self, epoch: int) -> Tensor:
        """The image at every position, (N,)."""
        return self.indices[torch.randperm(len(self.indices), generator=self._generator(epoch, PERMUTATION_STREAM))]

    def seeds(self, epoch: int) -> Tensor:
        """A seed for every position, (N,), for transforms that draw for themselves."""
        return torch.randint(2**62, (len(self.indices),), generator=self._generator(epoch, SEED_STREAM))

    def random_uniforms(self, epoch: int) -> Tensor:
        """Eight numbers in [0, 1) for every position, (N, 8), for whole-batch augmentation."""
        return torch.rand(len(self.indices), 8, generator=self._generator(epoch, UNIFORM_STREAM), dtype=torch.float64)

    def mix(self, epoch: int, step: int) -> MixParams | None:
        """How the images of a micro-batch are mixed: the same all over a global batch."""
        if not self.mixing:
            return None
        batch = step // self.distributed_batches.accumulation_steps
        return self.mixing.draw(np.random.default_rng(mixed_seed(self.seed, epoch, MIX_STREAM, batch)))

    def select_micro_batch(self, values: Tensor, step: int) -> Tensor:
        """What belongs to a micro-batch among values by position, (N, ...).

        With Mixup or CutMix there is one more in front. An image's partner is the one before it in the global batch
        (the last for the first), which may be another device's.
        """
        start, stop = self.distributed_batches.train_range(step)
        if not self.mixing:
            return values[start:stop]
        if start % self.distributed_batches.batch_size:
            return values[start - 1 : stop]
        last = start + self.distributed_batches.batch_size - 1
        return torch.cat([values[last : last + 1], values[start:stop]])

    def _generator(self, epoch: int, kind: int) -> torch.Generator:
        return torch.Generator().manual_seed(mixed_seed(self.seed, epoch, kind))


@dataclass(frozen=True)
class AspectRatioGroupedSampler(EpochSampler):
    """A plan whose global batches are each of one group, but for those made of what the groups have left over."""

    groups: Tensor  # the group of every image of the set, also of those not trained on

    def permutation(self, epoch: int) -> Tensor:
        """The image at every position, (N,): batches come when the first of their images would."""
        order, batch_size = super().permutation(epoch), self.distributed_batches.batch_size
        group_at, whole, left = self.groups[order], [], []
        for group in group_at.unique():
            positions = (group_at == group).nonzero().flatten()
            cut = len(positions) // batch_size * batch_size
            whole.append(positions[:cut].view(-1, batch_size))
            left.append(positions[cut:])
        batches = torch.cat(whole)
        batches = batches[batches[:, 0].argsort()]
        return order[torch.cat([batches.flatten(), torch.cat(left).sort().values])]
