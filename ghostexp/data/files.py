"""The worker path: images too large to keep, decoded and transformed by DataLoader workers.

A worker is given whole batches as `Order`s, which carry all of their chance, and keeps no state: what comes out does
not depend on the number of workers.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from ghostexp.data.augment import Augmentation, seeded
from ghostexp.data.folder import open_image
from ghostexp.data.loader import Batch, Loader
from ghostexp.data.mix import Mix, mix_batch
from ghostexp.data.plan import Share, TrainPlan

EVAL_RESIZE = 256 / 224  # of the shorter side to the centre crop


@dataclass(frozen=True)
class Order:
    """One batch to make: which images, the seed of each (none in evaluation), and how they are mixed."""

    indices: list[int]
    seeds: list[int] | None = None
    mix: Mix | None = None


class FileImages:
    """Image files and their labels, int64 (N,); in_chans is 1 (grey) or 3, mean and std those of channels in [0, 1]."""

    def __init__(
        self,
        paths: list[Path],
        labels: Tensor,
        *,
        image_size: int,
        in_chans: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        num_workers: int,
    ) -> None:
        self.paths = np.array([str(path) for path in paths])  # a list would be copied into every worker, page by page
        self.labels = labels
        self.image_size = image_size
        self.in_chans = in_chans
        self.to_tensor = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
        self.num_workers = num_workers
        self.pin_memory = False

    def to(self, device: torch.device) -> Self:
        """Batches are made on the CPU; for a GPU, in memory from which they move fast."""
        self.pin_memory = device.type == "cuda"
        return self

    def train_transform(self, augmentation: Augmentation) -> v2.Transform:
        """A random resized crop, then whatever is on of flip, RandAugment and erasing."""
        steps: list[v2.Transform] = [v2.RandomResizedCrop(self.image_size)]
        if augmentation.flip:
            steps.append(v2.RandomHorizontalFlip())
        if augmentation.randaugment:
            steps.append(v2.RandAugment(augmentation.randaugment, augmentation.magnitude))
        steps.append(self.to_tensor)
        if augmentation.erasing:
            steps.append(v2.RandomErasing(augmentation.erasing))
        return v2.Compose(steps)

    def eval_transform(self) -> v2.Transform:
        """The centre crop of the image resized to 8/7 of it."""
        resize = v2.Resize(round(self.image_size * EVAL_RESIZE))
        return v2.Compose([resize, v2.CenterCrop(self.image_size), self.to_tensor])

    def train_loader(self, plan: TrainPlan, augmentation: Augmentation, num_classes: int) -> Loader:
        """Augmented batches along the plan."""
        batches = FileBatches(self, self.train_transform(augmentation), num_classes)
        return FileLoader(batches, TrainOrders(plan))

    def eval_loader(self, indices: Tensor, share: Share) -> Loader:
        """The images at indices, in that order, without augmentation."""
        batches = FileBatches(self, self.eval_transform(), num_classes=0)
        return FileLoader(batches, EvalOrders(indices, share))


class FileBatches(Dataset[Batch | ValueError]):
    """Makes batches from orders; runs in the workers."""

    def __init__(self, data: FileImages, transform: Callable[[Image.Image], Tensor], num_classes: int) -> None:
        self.data = data
        self.transform = transform
        self.num_classes = num_classes

    def __getitem__(self, order: Order) -> Batch | ValueError:
        """The batch; or the error of an image that cannot be read, which raised here would become a page of text."""
        seeds = order.seeds or [None] * len(order.indices)
        try:
            images = torch.stack([self._image(i, seed) for i, seed in zip(order.indices, seeds, strict=True)])
        except ValueError as error:
            return error
        labels = self.data.labels[order.indices]
        return mix_batch(images, labels, self.num_classes, order.mix)

    def _image(self, index: int, seed: int | None) -> Tensor:
        image = open_image(Path(self.data.paths[index]), self.data.in_chans)
        with nullcontext() if seed is None else seeded(seed):
            return self.transform(image)


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


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Let a worker outlive a signal to the whole group: the trainer, which got it too, saves first and then ends it."""
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, signal.SIG_IGN)


class FileLoader(Loader):
    """A DataLoader that fetches nothing before its first batch is asked for, and raises what a worker returned."""

    def __init__(self, batches: FileBatches, orders: TrainOrders | EvalOrders) -> None:
        self.batches = batches
        self.orders = orders
        self.loader = self._new_loader()

    def _new_loader(self) -> DataLoader[Batch | ValueError]:
        data = self.batches.data
        return DataLoader(
            self.batches,
            batch_size=None,  # an order is a batch already
            sampler=self.orders,
            num_workers=data.num_workers,
            persistent_workers=data.num_workers > 0,
            pin_memory=data.pin_memory,
            worker_init_fn=_leave_signals_to_the_trainer,
            generator=torch.Generator(),  # not the global one, which would then depend on when loaders start
        )

    def close(self) -> None:
        """End the workers. The garbage collector takes their queues first, and then waits 5 s in vain for each."""
        self.loader = self._new_loader()

    def __len__(self) -> int:
        return len(self.orders)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            if isinstance(batch, ValueError):
                raise batch
            yield batch
