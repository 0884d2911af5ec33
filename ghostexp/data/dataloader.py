"""Loaders that resume inside an epoch, and one with stateless DataLoader workers.

A `BatchSpec` holds all random parameters of its batch: the batches do not depend on the number of workers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, util
from multiprocessing.queues import SimpleQueue
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from ghostexp.data.sampling import DistributedBatches, EpochSampler
from ghostexp.data.transforms import MixParams
from ghostexp.data.worker_process import end_workers, failure_of, prepare_worker, start_workers

Batch = tuple[Tensor, Tensor]  # float32 images (N, C, H, W); classes (N,), or probabilities (N, num_classes) if mixed
B = TypeVar("B", covariant=True)  # of batches


class ResumableLoader(Generic[B]):
    """Iterable of batches that starts at the current position of the training, in mid-epoch too.

    `__iter__` is a generator and reads the position at its first `next`, because on a resume Lightning calls `iter()`
    before its loops have restored theirs. The length is always that of a full epoch.
    """

    def __len__(self) -> int:
        raise NotImplementedError

    def __iter__(self) -> Iterator[B]:
        raise NotImplementedError

    def close(self) -> None:
        """End the workers of this loader; it can be iterated again."""

    def state_dict(self) -> dict[str, object]:
        """Return an empty state: the method itself marks the loader as resumable inside an epoch for Lightning."""
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Ignore the state, which is empty."""


@dataclass(frozen=True)
class BatchSpec:
    """Specification of one batch: images, the seed of each (none in evaluation), and Mixup or CutMix parameters."""

    indices: list[int]
    seeds: list[int] | None = None
    mix: MixParams | None = None

    def images(self) -> Iterator[tuple[int, int | None]]:
        """Iterate over (index, seed)."""
        return zip(self.indices, self.seeds or [None] * len(self.indices), strict=True)


class TrainBatchSampler(Sampler[BatchSpec]):
    """Batch specs of an epoch, from the training's current position on."""

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[BatchSpec]:
        epoch, done = self.sampler.progress()
        permutation, seeds = self.sampler.permutation(epoch), self.sampler.seeds(epoch)
        for step in range(done, len(self)):
            indices, seeds_of_batch = (
                self.sampler.select_micro_batch(values, step).tolist() for values in (permutation, seeds)
            )
            yield BatchSpec(indices, seeds_of_batch, self.sampler.mix(epoch, step))


class EvalBatchSampler(Sampler[BatchSpec]):
    """Batch specs of an evaluation."""

    def __init__(self, indices: Tensor, distributed_batches: DistributedBatches) -> None:
        self.indices = indices
        self.ranges = distributed_batches.eval_ranges(len(indices))

    def __len__(self) -> int:
        return len(self.ranges)

    def __iter__(self) -> Iterator[BatchSpec]:
        for start, stop in self.ranges:
            yield BatchSpec(self.indices[start:stop].tolist())


class _BatchDataset(Dataset["B | ValueError"], Generic[B]):
    """Batches by their specs; returns the ValueError of an unreadable image, to which torch would add a traceback."""

    def __init__(self, load_batch: Callable[[BatchSpec], B]) -> None:
        self.load_batch = load_batch

    def __getitem__(self, spec: BatchSpec) -> B | ValueError:
        try:
            return self.load_batch(spec)
        except ValueError as error:
            return error


def _identity(batch: B) -> B:
    return batch


class MultiprocessLoader(ResumableLoader[B]):
    """A DataLoader that prefetches nothing before its first batch is requested, and raises the workers' ValueErrors.

    Its workers end when it is closed, when it is collected, or when this process ends, whichever comes first.
    load_batch: loads the batch of a spec, in the workers.
    """

    def __init__(
        self,
        load_batch: Callable[[BatchSpec], B],
        batch_sampler: TrainBatchSampler | EvalBatchSampler,
        *,
        num_workers: int,
        pin_memory: bool,
    ) -> None:
        self.dataset = _BatchDataset(load_batch)
        self.batch_sampler = batch_sampler
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.loader: DataLoader[B | ValueError] | None = None
        self.failures: SimpleQueue[str] | None = None  # why workers exited
        self.workers: _MultiProcessingDataLoaderIter | None = None
        self.finalizer: util.Finalize | None = None

    def close(self) -> None:
        """End the workers; the next iteration starts new ones."""
        if self.finalizer is not None:
            self.finalizer()
        self.loader = self.workers = self.finalizer = None

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[B]:
        try:
            for batch in self._start():
                if isinstance(batch, ValueError):
                    raise batch
                yield batch
        except (OSError, RuntimeError, ValueError) as error:
            failure = self._failure(error)
            if failure is None:
                raise
            raise ValueError(failure) from error

    def _start(self) -> Iterator[B | ValueError]:
        """Begin an epoch; the first one starts the workers."""
        if self.loader is None:
            self.loader = self._new_loader()
        if self.num_workers == 0 or self.workers is not None:
            return iter(self.loader)
        self.workers = start_workers(self.loader)
        # At exit multiprocessing sends SIGTERM to workers, which ignore it, and waits forever.
        self.finalizer = util.Finalize(self, end_workers, (self.workers,), exitpriority=10)
        return self.workers

    def _new_loader(self) -> DataLoader[B | ValueError]:
        self.failures = get_context().SimpleQueue() if self.num_workers else None
        return DataLoader(
            self.dataset,
            batch_size=None,  # the sampler yields whole batches
            collate_fn=_identity,
            sampler=self.batch_sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self.pin_memory,
            worker_init_fn=None if self.failures is None else partial(prepare_worker, self.failures),
            generator=torch.Generator(),  # not the global one, which would then depend on when loaders start
        )

    def _failure(self, error: Exception) -> str | None:
        """Describe in one line why the workers failed; None for other errors."""
        if self.num_workers == 0:
            return None
        reported = None if self.failures is None or self.failures.empty() else self.failures.get()
        exit_codes = [worker.exitcode for worker in self.workers._workers] if self.workers else []
        return failure_of(error, self.num_workers, reported, exit_codes)
