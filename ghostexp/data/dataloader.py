"""DataLoader workers that keep no state: each is given whole batches as `BatchSpec`s, which carry all of their chance.

What comes out does not depend on the number of workers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, util
from multiprocessing.queues import SimpleQueue
from typing import Generic

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from ghostexp.data.base import B, ResumableLoader
from ghostexp.data.sampling import DistributedBatches, EpochSampler
from ghostexp.data.transforms import MixParams
from ghostexp.data.worker_process import end_workers, failure_of, prepare_worker, start_workers


@dataclass(frozen=True)
class BatchSpec:
    """One batch to make: which images, the seed of each (none in evaluation), and how they are mixed."""

    indices: list[int]
    seeds: list[int] | None = None
    mix: MixParams | None = None

    def images(self) -> Iterator[tuple[int, int | None]]:
        """Each image with its seed."""
        return zip(self.indices, self.seeds or [None] * len(self.indices), strict=True)


class TrainBatchSampler(Sampler[BatchSpec]):
    """The orders of an epoch from where training stands."""

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[BatchSpec]:
        epoch, done = self.sampler.progress()
        order, seeds = self.sampler.permutation(epoch), self.sampler.seeds(epoch)
        for step in range(done, len(self)):
            indices, chance = (
                self.sampler.select_micro_batch(order, step).tolist(),
                self.sampler.select_micro_batch(seeds, step).tolist(),
            )
            yield BatchSpec(indices, chance, self.sampler.mix(epoch, step))


class EvalBatchSampler(Sampler[BatchSpec]):
    """The orders of an evaluation."""

    def __init__(self, indices: Tensor, distributed_batches: DistributedBatches) -> None:
        self.indices = indices
        self.spans = distributed_batches.eval_ranges(len(indices))

    def __len__(self) -> int:
        return len(self.spans)

    def __iter__(self) -> Iterator[BatchSpec]:
        for start, stop in self.spans:
            yield BatchSpec(self.indices[start:stop].tolist())


class _BatchDataset(Dataset["B | ValueError"], Generic[B]):
    """Batches by order; or the error of an image that cannot be read, which raised here would become a page of text."""

    def __init__(self, make: Callable[[BatchSpec], B]) -> None:
        self.make = make

    def __getitem__(self, order: BatchSpec) -> B | ValueError:
        try:
            return self.make(order)
        except ValueError as error:
            return error


def _identity(batch: B) -> B:
    return batch


class MultiprocessLoader(ResumableLoader[B]):
    """A DataLoader that fetches nothing before its first batch is asked for, and raises what a worker returned.

    Its workers end when it is closed, when it is collected, or when this process ends, whichever comes first.
    make: what makes the batch that an order wants; it runs in the workers. Its ValueErrors are raised here.
    """

    def __init__(
        self,
        make: Callable[[BatchSpec], B],
        batch_sampler: TrainBatchSampler | EvalBatchSampler,
        *,
        num_workers: int,
        pin_memory: bool,
    ) -> None:
        self.made = _BatchDataset(make)
        self.batch_sampler = batch_sampler
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.loader: DataLoader[B | ValueError] | None = None
        self.failures: SimpleQueue[str] | None = None  # why workers gave up
        self.workers: _MultiProcessingDataLoaderIter | None = None
        self.finalizer: util.Finalize | None = None

    def close(self) -> None:
        """End the workers; the next iteration starts others."""
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
        # At exit multiprocessing asks workers by SIGTERM, which they ignore, to end, and waits for ever.
        self.finalizer = util.Finalize(self, end_workers, (self.workers,), exitpriority=10)
        return self.workers

    def _new_loader(self) -> DataLoader[B | ValueError]:
        self.failures = get_context().SimpleQueue() if self.num_workers else None
        return DataLoader(
            self.made,
            batch_size=None,  # an order is a batch already
            collate_fn=_identity,
            sampler=self.batch_sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self.pin_memory,
            worker_init_fn=None if self.failures is None else partial(prepare_worker, self.failures),
            generator=torch.Generator(),  # not the global one, which would then depend on when loaders start
        )

    def _failure(self, error: Exception) -> str | None:
        """What workers ran out of, in one line; None for other errors."""
        if self.num_workers == 0:
            return None
        reported = None if self.failures is None or self.failures.empty() else self.failures.get()
        exit_codes = [worker.exitcode for worker in self.workers._workers] if self.workers else []
        return failure_of(error, self.num_workers, reported, exit_codes)
