"""Base of all datamodules: arguments and their checks, the sets that are used, and their loaders."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from lightning.fabric.utilities.distributed import _InfiniteBarrier
from lightning.pytorch import LightningDataModule
from torch import Tensor

from ghostexp.data.dataloader import ResumableLoader
from ghostexp.data.digest import DataDigest, describe_difference
from ghostexp.data.image_check import UnreadableImages
from ghostexp.data.sampling import DistributedBatches
from ghostexp.data.splits import DatasetSplits, SplitDataset, fraction_of, stratified_split
from ghostexp.validation import require, require_channels, require_fraction, require_int

Channels = tuple[float, ...]  # a value for each channel
E = TypeVar("E", bound=SplitDataset)


@dataclass(kw_only=True, eq=False, repr=False)
class DataModule(LightningDataModule, Generic[E]):
    """Base of all datamodules: a subclass implements `read`, `stratify_labels` and `build_train_loader`.

    Loaders start at the trainer's position, in mid-epoch too. Wrong values raise ValueError in the constructor, values
    that contradict the data in `setup`.
    """

    batch_size: int  # over all devices, nodes and accumulation steps
    eval_batch_size: int | None = None  # over all devices and nodes; None: batch_size
    num_classes: int
    in_chans: int
    image_size: int
    seed: int = 0  # of shuffling and augmentation
    validate_on: str = "test"  # test: the test set; holdout: a part of the training set
    split_seed: int = 0
    holdout_fraction: float = 0.1
    train_fraction: float = 1.0  # of the images left after the holdout
    mean: Sequence[float] | None = None  # of each channel, in [0, 1]; None: the datamodule's default
    std: Sequence[float] | None = None

    def __post_init__(self) -> None:
        super().__init__()
        for key in ("batch_size", "num_classes", "in_chans", "image_size"):
            require_int(key, getattr(self, key), 1)
        if self.eval_batch_size is not None:
            require_int("eval_batch_size", self.eval_batch_size, 1)
        require_int("seed", self.seed, 0)
        require_int("split_seed", self.split_seed, 0)
        require(
            self.validate_on in ("test", "holdout"), "validate_on", self.validate_on, "must be one of test, holdout"
        )
        require_fraction("holdout_fraction", self.holdout_fraction)
        require(self.holdout_fraction < 1, "holdout_fraction", self.holdout_fraction, "must be a number in (0, 1)")
        require_fraction("train_fraction", self.train_fraction)
        for key in ("mean", "std"):
            require_channels(key, getattr(self, key), self.in_chans)
        require(self.std is None or 0 not in self.std, "std", self.std, "must be numbers > 0")
        self.class_names: tuple[str, ...] = ()
        self.images: DatasetSplits[E] | None = None
        self.loaders: list[ResumableLoader] = []
        self._digest: DataDigest | None = None

    def read(self) -> DatasetSplits[E]:
        """Read the training and the test set; ValueError in one line if they cannot be used."""
        raise NotImplementedError

    def mean_std(self) -> tuple[Channels, Channels]:
        """Return mean and std of the channels, in [0, 1]; available before the data is read."""
        mean, std = self.default_normalisation()
        return mean if self.mean is None else tuple(self.mean), std if self.std is None else tuple(self.std)

    def default_normalisation(self) -> tuple[Channels, Channels]:
        """Return the mean and std used where the configuration sets none."""
        raise NotImplementedError

    def stratify_labels(self, train: E) -> np.ndarray:
        """Return the label of each training image, (N,), by which splits are stratified."""
        raise NotImplementedError

    def filter_train_indices(self, train: E, indices: np.ndarray) -> np.ndarray:
        """Select the indices of the training set that are trained on."""
        return indices

    def build_train_loader(self, train: E) -> ResumableLoader:
        """Build the loader of augmented batches of `train_indices`."""
        raise NotImplementedError

    def denormalize(self, images: Tensor) -> Tensor:
        """Undo the normalisation of images ([N,] C, H, W); returns values in [0, 1]."""
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in self.mean_std())
        return (images * std + mean).clamp(0, 1)

    def setup(self, stage: str | None = None) -> None:
        """Read and check the data, and choose the training and validation images."""
        if stage == "fit":
            _ = self.distributed_batches.per_device_batch_size  # checked before a long read
        images = self._load()
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        images.train.to(device)
        images.test.to(device)
        labels = self.stratify_labels(images.train)
        train, self.val_indices = np.arange(len(labels)), None
        if self.validate_on == "holdout":
            val, train = stratified_split(labels, fraction_of(len(labels), self.holdout_fraction), self.split_seed)
            self.val_indices = torch.from_numpy(val)
        train = self.filter_train_indices(images.train, train)
        if self.train_fraction < 1:
            count = fraction_of(len(train), self.train_fraction)
            train = train[stratified_split(labels[train], count, self.split_seed)[0]]
        self.train_indices = torch.from_numpy(train)
        if stage == "fit":
            self.distributed_batches.num_micro_batches(len(train))
        with _InfiniteBarrier():  # other ranks would wait in a barrier with the limit of collectives
            self._check_files(stage)

    def _check_files(self, stage: str | None) -> None:
        """Check all files that this stage and a test will read, in one process per machine.

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
            self.digest()  # before the training, during which files may change

    def digest(self) -> DataDigest:
        """Digest both sets: independent of where they are, changed by any other image or label."""
        if self._digest is None:
            sets = {"train": self._load().train, "test": self._load().test}
            self._digest = {name: {"images": len(part), "sha256": part.digest()} for name, part in sets.items()}
        return self._digest

    def state_dict(self) -> dict[str, Any]:
        """Return the digest of the data, for checkpoints."""
        is_written = self.trainer is None or self.trainer.is_global_zero
        return {"digest": self.digest()} if is_written else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raise ValueError if a checkpoint was trained on other images."""
        if self.trainer is not None and not self.trainer.is_global_zero:
            return
        difference = describe_difference(state_dict.get("digest", {}), self.digest(), ("train",))
        if difference is not None:
            key = f"datamodule.root={root}: " if (root := getattr(self, "root", None)) else "datamodule: "
            raise ValueError(f"{key}not what this run was trained on ({difference}); start a new run for it")

    def _load(self) -> DatasetSplits[E]:
        if self.images is None:
            self.images = self.read()
            self.class_names = self.images.class_names
        return self.images

    def train_dataloader(self) -> ResumableLoader:
        """Build the loader of the training set; the last incomplete global batch of an epoch is dropped."""
        return self._register_loader(self.build_train_loader(self._load().train))

    def val_dataloader(self) -> ResumableLoader:
        """Build the loader of the validation set: with validate_on=test, the test set."""
        if self.val_indices is None:
            return self.test_dataloader()
        return self._register_loader(self._load().train.eval_loader(self.val_indices, self.eval_batches))

    def test_dataloader(self) -> ResumableLoader:
        """Build the loader of the test set."""
        return self._register_loader(self._load().test.eval_loader(torch.arange(self.test_images), self.eval_batches))

    @property
    def test_images(self) -> int:
        """Count the test images."""
        return len(self._load().test)

    def test_index(self, rank: int, batch: int, position: int) -> int:
        """Return the index in the test set of an image of a test, by process, batch and position in the batch."""
        start, _ = replace(self.eval_batches, rank=rank).eval_ranges(self.test_images)[batch]
        return start + position

    def test_file(self, index: int) -> str:
        """Return the file of a test image; empty where there is none."""
        files = getattr(self._load().test, "paths", None)
        return "" if files is None else str(files[index])

    def test_sample(self, count: int) -> ResumableLoader:
        """Build a loader of up to `count` test images, evenly spaced over the test set; the same on every device."""
        indices = torch.linspace(0, self.test_images - 1, min(count, self.test_images)).round().long()
        return self._register_loader(self._load().test.eval_loader(indices, DistributedBatches(self.batch_size)))

    def train_sample(self, count: int) -> ResumableLoader:
        """Build a loader of up to `count` training images, evenly spaced and prepared like test images."""
        order = torch.linspace(0, len(self.train_indices) - 1, min(count, len(self.train_indices))).round().long()
        loader = self._load().train.eval_loader(self.train_indices[order], DistributedBatches(self.batch_size))
        return self._register_loader(loader)

    def _register_loader(self, loader: ResumableLoader) -> ResumableLoader:
        self.loaders.append(loader)
        return loader

    def teardown(self, stage: str) -> None:
        """Close the loaders."""
        for loader in self.loaders:
            loader.close()

    @property
    def distributed_batches(self) -> DistributedBatches:
        """Return this process's part of the global batches."""
        trainer = self.trainer
        if trainer is None:
            return DistributedBatches(self.batch_size)
        return DistributedBatches(
            self.batch_size, trainer.global_rank, trainer.world_size, trainer.accumulate_grad_batches
        )

    @property
    def eval_batches(self) -> DistributedBatches:
        """Return this process's part of the global batches of an evaluation."""
        return replace(self.distributed_batches, batch_size=self.eval_batch_size or self.batch_size)

    def _progress(self) -> tuple[int, int]:
        """Return the epoch and the number of its finished batches, as Lightning counts them.

        With overfit_batches the epoch stays 0, so that each epoch trains on the same few images.
        """
        if self.trainer is None:
            return 0, 0
        loop = self.trainer.fit_loop
        if self.trainer.overfit_batches:  # pyright: ignore[reportAttributeAccessIssue]
            return 0, loop.epoch_loop.batch_progress.current.ready
        epoch = loop.epoch_progress.current.processed  # pyright: ignore[reportAttributeAccessIssue]
        return epoch, loop.epoch_loop.batch_progress.current.ready

    def check_matches_config(self, key: str, found: int, reason: str) -> None:
        """Raise ValueError unless the data matches the config, from which models are built."""
        require(getattr(self, key) == found, key, getattr(self, key), f"{reason}; set datamodule.{key}={found}")
