"""Base of all datamodules: splits, loaders that resume inside an epoch, arguments and their checks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from ghostexp.data.digest import DataDigest, describe_difference
from ghostexp.data.image_check import UnreadableImages
from ghostexp.data.sampling import DistributedBatches
from ghostexp.validation import require, require_channels, require_fraction, require_int


def stratified_split(labels: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose count of the labels (N,), each class in proportion; returns the indices chosen and the rest, sorted.

    Each class gives the whole part of its due; what is missing comes from those with the largest fractions.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    due = sizes * count / len(labels)
    quotas = np.floor(due).astype(int)
    largest_first = np.argsort(quotas - due, kind="stable")
    quotas[largest_first[: count - quotas.sum()]] += 1
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for label, quota in zip(classes, quotas, strict=True):
        chosen[generator.permutation(np.flatnonzero(labels == label))[:quota]] = True
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)


def fraction_of(total: int, fraction: float) -> int:
    """The nearest whole number of images, at least one."""
    return max(1, round(total * fraction))


Batch = tuple[Tensor, Tensor]  # float32 images (N, C, H, W); classes (N,), or probabilities (N, num_classes) if mixed
B = TypeVar("B", covariant=True)  # of batches


class ResumableLoader(Generic[B]):
    """An iterable of batches that begins, each time, where its plan says training stands.

    `__iter__` is a generator: it asks at its first `next`, because on a resume Lightning calls `iter()` before its
    loops have settled where they stand. The length is always that of a whole epoch.
    """

    def __len__(self) -> int:
        raise NotImplementedError

    def __iter__(self) -> Iterator[B]:
        raise NotImplementedError

    def close(self) -> None:
        """End what works for this loader; it can be iterated again."""

    def state_dict(self) -> dict[str, object]:
        """Empty. That the method is there tells Lightning that this loader can resume inside an epoch."""
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Nothing to load."""


Channels = tuple[float, ...]  # a number for each channel


class SplitDataset(Protocol):
    """Images with what is known about them, that make loaders of themselves."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> Self: ...

    def digest(self) -> str: ...

    def find_unreadable(self, indices: np.ndarray) -> list[str]: ...

    def eval_loader(self, indices: Tensor, distributed_batches: DistributedBatches) -> ResumableLoader: ...


E = TypeVar("E", bound=SplitDataset)


@dataclass(frozen=True)
class DatasetSplits(Generic[E]):
    """What a datamodule reads."""

    train: E
    test: E
    class_names: tuple[str, ...]


@dataclass(kw_only=True, eq=False, repr=False)
class DataModule(LightningDataModule, Generic[E]):
    """Base of the datamodules of every task: a subclass says what to `read` and how it is trained on.

    Loaders begin where the trainer stands, in mid-epoch too. ValueError for wrong values at once, for what only the
    data can contradict in `setup`.
    """

    batch_size: int  # over all devices, nodes and accumulation steps
    num_classes: int
    in_chans: int
    image_size: int
    seed: int = 0  # of orders and augmentation
    validate_on: str = "test"  # what validation is: the test set, or val: a part cut from the training set
    split_seed: int = 0
    holdout_fraction: float = 0.1
    train_fraction: float = 1.0  # of what is left for training
    mean: Sequence[float] | None = None  # of each channel, in [0, 1]; None: the datamodule's own
    std: Sequence[float] | None = None

    def __post_init__(self) -> None:
        super().__init__()
        for key in ("batch_size", "num_classes", "in_chans", "image_size"):
            require_int(key, getattr(self, key), 1)
        require_int("seed", self.seed, 0)
        require_int("split_seed", self.split_seed, 0)
        require(self.validate_on in ("test", "holdout"), "validate_on", self.validate_on, "test or holdout")
        require_fraction("holdout_fraction", self.holdout_fraction)
        require(self.holdout_fraction < 1, "holdout_fraction", self.holdout_fraction, "nothing is left to train on")
        require_fraction("train_fraction", self.train_fraction)
        for key in ("mean", "std"):
            require_channels(key, getattr(self, key), self.in_chans)
        require(self.std is None or 0 not in self.std, "std", self.std, "must be numbers above 0")
        self.class_names: tuple[str, ...] = ()
        self.images: DatasetSplits[E] | None = None
        self.loaders: list[ResumableLoader] = []
        self._digest: DataDigest | None = None

    def read(self) -> DatasetSplits[E]:
        """The images of train and test set; ValueError in one line for what is wrong with them."""
        raise NotImplementedError

    def mean_std(self) -> tuple[Channels, Channels]:
        """Mean and std of the channels in [0, 1], known before anything is read."""
        mean, std = self.default_normalisation()
        return mean if self.mean is None else tuple(self.mean), std if self.std is None else tuple(self.std)

    def default_normalisation(self) -> tuple[Channels, Channels]:
        """Mean and std where the configuration sets none."""
        raise NotImplementedError

    def stratify_labels(self, train: E) -> np.ndarray:
        """A number for every image of the training set, (N,), that splits keep in proportion."""
        raise NotImplementedError

    def filter_train_indices(self, train: E, indices: np.ndarray) -> np.ndarray:
        """Those of the training set's indices that training can use."""
        return indices

    def build_train_loader(self, train: E) -> ResumableLoader:
        """Augmented batches of `train_indices`."""
        raise NotImplementedError

    def denormalize(self, images: Tensor) -> Tensor:
        """Normalised images ([N,] C, H, W) as they are seen, in [0, 1]."""
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in self.mean_std())
        return (images * std + mean).clamp(0, 1)

    def setup(self, stage: str | None = None) -> None:
        """Read and check the data, and settle what is trained and validated on."""
        if stage == "fit":
            _ = self.distributed_batches.per_device_batch_size  # before a long reading
        images = self._load()
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        images.train.to(device)
        images.test.to(device)
        stratify_labels = self.stratify_labels(images.train)
        train, self.val_indices = np.arange(len(stratify_labels)), None
        if self.validate_on == "holdout":
            val, train = stratified_split(
                stratify_labels, fraction_of(len(stratify_labels), self.holdout_fraction), self.split_seed
            )
            self.val_indices = torch.from_numpy(val)
        train = self.filter_train_indices(images.train, train)
        if self.train_fraction < 1:
            train = train[
                stratified_split(stratify_labels[train], fraction_of(len(train), self.train_fraction), self.split_seed)[
                    0
                ]
            ]
        self.train_indices = torch.from_numpy(train)
        if stage == "fit":
            self.distributed_batches.num_micro_batches(len(train))
        self._check_files(stage)

    def _check_files(self, stage: str | None) -> None:
        """Check all files that this stage and a test will read, in one process of each machine.

        Raises UnreadableImages: some cannot be read.
        """
        if self.trainer is None or self.trainer.local_rank != 0:
            return
        images = self._load()
        test = np.arange(len(images.test))
        problems, count = images.test.find_unreadable(test), len(test)
        if stage == "fit":
            val = [] if self.val_indices is None else self.val_indices.numpy()
            train = np.union1d(self.train_indices.numpy(), val).astype(int)
            problems, count = images.train.find_unreadable(train) + problems, count + len(train)
        if problems:
            raise UnreadableImages(problems, count)
        if stage == "fit" and self.trainer.is_global_zero:
            self.digest()  # now: somebody may change the files during the training

    def digest(self) -> DataDigest:
        """What both sets are, in a few digits: the same wherever they are, another if an image or a label is."""
        if self._digest is None:
            sets = {"train": self._load().train, "test": self._load().test}
            self._digest = {name: {"images": len(part), "sha256": part.digest()} for name, part in sets.items()}
        return self._digest

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the data: their digest."""
        is_written = self.trainer is None or self.trainer.is_global_zero
        return {"digest": self.digest()} if is_written else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raise ValueError if a checkpoint was trained on other images than these."""
        if self.trainer is not None and not self.trainer.is_global_zero:
            return
        difference = describe_difference(state_dict.get("digest", {}), self.digest(), ("train",))
        if difference is not None:
            place = f"datamodule.root={root}: " if (root := getattr(self, "root", None)) else "datamodule: "
            raise ValueError(f"{place}not what this run was trained on ({difference}); start a new run for it")

    def _load(self) -> DatasetSplits[E]:
        if self.images is None:
            self.images = self.read()
            self.class_names = self.images.class_names
        return self.images

    def train_dataloader(self) -> ResumableLoader:
        """Augmented batches of the training set, the last incomplete global batch of an epoch dropped."""
        return self._register_loader(self.build_train_loader(self._load().train))

    def val_dataloader(self) -> ResumableLoader:
        """Batches of the validation set, which with validate_on=test is the test set."""
        if self.val_indices is None:
            return self.test_dataloader()
        return self._register_loader(self._load().train.eval_loader(self.val_indices, self.distributed_batches))

    def test_dataloader(self) -> ResumableLoader:
        """Batches of the test set."""
        return self._register_loader(
            self._load().test.eval_loader(torch.arange(self.test_images), self.distributed_batches)
        )

    @property
    def test_images(self) -> int:
        """How many there are."""
        return len(self._load().test)

    def test_sample(self, count: int) -> ResumableLoader:
        """Batches of `count` test images, or of all if there are fewer, from all over the test set; on every device."""
        indices = torch.linspace(0, self.test_images - 1, min(count, self.test_images)).round().long()
        return self._register_loader(self._load().test.eval_loader(indices, DistributedBatches(self.batch_size)))

    def _register_loader(self, loader: ResumableLoader) -> ResumableLoader:
        self.loaders.append(loader)
        return loader

    def teardown(self, stage: str) -> None:
        """Close the loaders."""
        for loader in self.loaders:
            loader.close()

    @property
    def distributed_batches(self) -> DistributedBatches:
        """This process's part of the global batch."""
        trainer = self.trainer
        if trainer is None:
            return DistributedBatches(self.batch_size)
        return DistributedBatches(
            self.batch_size, trainer.global_rank, trainer.world_size, trainer.accumulate_grad_batches
        )

    def _progress(self) -> tuple[int, int]:
        """The epoch, and how many of its batches are done, by Lightning's own count.

        With overfit_batches the epoch stays the first, so that training sees the same few images again and again.
        """
        if self.trainer is None:
            return 0, 0
        loop = self.trainer.fit_loop
        if self.trainer.overfit_batches:  # pyright: ignore[reportAttributeAccessIssue]
            return 0, loop.epoch_loop.batch_progress.current.ready
        epoch = loop.epoch_progress.current.processed  # pyright: ignore[reportAttributeAccessIssue]
        return epoch, loop.epoch_loop.batch_progress.current.ready

    def check_matches_config(self, key: str, found: int, where: str) -> None:
        """Raise ValueError unless the data has what the config says, which models are built from."""
        require(getattr(self, key) == found, key, getattr(self, key), f"{where}; set datamodule.{key}={found}")
