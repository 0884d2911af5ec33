"""DataLoader workers that keep no state: each is given whole batches as `Order`s, which carry all of their chance.

What comes out does not depend on the number of workers.
"""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ghostexp.data.loader import B, Loader
from ghostexp.data.mix import Mix
from ghostexp.data.plan import Share, TrainPlan


@dataclass(frozen=True)
class Order:
    """One batch to make: which images, the seed of each (none in evaluation), and how they are mixed."""

    indices: list[int]
    seeds: list[int] | None = None
    mix: Mix | None = None

    def images(self) -> Iterator[tuple[int, int | None]]:
        """Each image with its seed."""
        return zip(self.indices, self.seeds or [None] * len(self.indices), strict=True)


class TrainOrders(Sampler[Order]):
    """The orders of an epoch from where training stands."""

    def __init__(self, plan: TrainPlan) -> None:
        self.plan = plan

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[Order]:
        epoch, done = self.plan.position()
        order, seeds = self.plan.order(epoch), self.plan.seeds(epoch)
        for step in range(done, len(self)):
            indices, chance = self.plan.take(order, step).tolist(), self.plan.take(seeds, step).tolist()
            yield Order(indices, chance, self.plan.mix(epoch, step))


class EvalOrders(Sampler[Order]):
    """The orders of an evaluation."""

    def __init__(self, indices: Tensor, share: Share) -> None:
        self.indices = indices
        self.spans = share.eval_spans(len(indices))

    def __len__(self) -> int:
        return len(self.spans)

    def __iter__(self) -> Iterator[Order]:
        for start, stop in self.spans:
            yield Order(self.indices[start:stop].tolist())


class _Made(Dataset["B | ValueError"], Generic[B]):
    """Batches by order; or the error of an image that cannot be read, which raised here would become a page of text."""

    def __init__(self, make: Callable[[Order], B]) -> None:
        self.make = make

    def __getitem__(self, order: Order) -> B | ValueError:
        try:
            return self.make(order)
        except ValueError as error:
            return error


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Let a worker outlive a signal to the whole group: the trainer, which got it too, saves first and then ends it."""
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, signal.SIG_IGN)


def _as_made(batch: B) -> B:
    return batch


class WorkerLoader(Loader[B]):
    """A DataLoader that fetches nothing before its first batch is asked for, and raises what a worker returned.

    make: what makes the batch that an order wants; it runs in the workers. Its ValueErrors are raised here.
    """

    def __init__(
        self, make: Callable[[Order], B], orders: TrainOrders | EvalOrders, *, num_workers: int, pin_memory: bool
    ) -> None:
        self.made = _Made(make)
        self.orders = orders
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.loader = self._new_loader()

    def _new_loader(self) -> DataLoader[B | ValueError]:
        return DataLoader(
            self.made,
            batch_size=None,  # an order is a batch already
            collate_fn=_as_made,
            sampler=self.orders,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self.pin_memory,
            worker_init_fn=_leave_signals_to_the_trainer,
            generator=torch.Generator(),  # not the global one, which would then depend on when loaders start
        )

    def close(self) -> None:
        """End the workers. The garbage collector takes their queues first, and then waits 5 s in vain for each."""
        self.loader = self._new_loader()

    def __len__(self) -> int:
        return len(self.orders)

    def __iter__(self) -> Iterator[B]:
        for batch in self.loader:
            if isinstance(batch, ValueError):
                raise batch
            yield batch
