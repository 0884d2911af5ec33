"""What all datamodules share: arguments and their checks, splits, and loaders that know where training stands."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from ghostexp.data.augment import Augmentation, Normalise
from ghostexp.data.checks import require, require_fraction, require_whole
from ghostexp.data.folder import square
from ghostexp.data.loader import Loader
from ghostexp.data.mix import Mixing
from ghostexp.data.plan import Share, TrainPlan
from ghostexp.data.split import fraction_of, stratified

Channels = tuple[float, ...]  # a number for each channel


class ImageSet(Protocol):
    """Images with labels that make loaders of themselves: `ArrayImages` or `FileImages`."""

    labels: Tensor

    def to(self, device: torch.device) -> Self: ...

    def train_loader(self, plan: TrainPlan, augmentation: Augmentation, num_classes: int) -> Loader: ...

    def eval_loader(self, indices: Tensor, share: Share) -> Loader: ...


@dataclass(frozen=True)
class Images:
    """What a datamodule reads."""

    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]


@dataclass(kw_only=True, eq=False, repr=False)
class ImageDataModule(LightningDataModule):
    """Base of the datamodules: a subclass says what to `read`.

    Batches are float32 normalised images (N, in_chans, image_size, image_size) and int64 classes (N,), or with Mixup
    or CutMix float probabilities (N, num_classes). Loaders begin where the trainer stands, in mid-epoch too.
    ValueError for wrong values at once, for what only the data can contradict in `setup`.
    """

    batch_size: int  # over all devices, nodes and accumulation steps
    num_classes: int
    in_chans: int
    image_size: int
    seed: int = 0  # of orders and augmentation
    split: str = "test"  # what validation is: the test set, or val: a part cut from the training set
    split_seed: int = 0
    val_fraction: float = 0.1
    train_fraction: float = 1.0  # of what is left for training
    crop: int = 0  # pixels of zero-padding
    flip: bool = False
    erasing: float = 0.0  # probability
    randaugment: int = 0  # operations
    magnitude: int = 9
    mixup: float = 0.0  # alpha
    cutmix: float = 0.0  # alpha

    def __post_init__(self) -> None:
        super().__init__()
        for key in ("batch_size", "num_classes", "in_chans", "image_size"):
            require_whole(key, getattr(self, key), 1)
        require_whole("seed", self.seed, 0)
        require_whole("split_seed", self.split_seed, 0)
        require(self.split in ("test", "val"), "split", self.split, "test or val")
        require_fraction("val_fraction", self.val_fraction)
        require(self.val_fraction < 1, "val_fraction", self.val_fraction, "nothing is left to train on")
        require_fraction("train_fraction", self.train_fraction)
        self.augmentation = Augmentation(self.crop, self.flip, self.erasing, self.randaugment, self.magnitude)
        self.mixing = Mixing(self.mixup, self.cutmix)
        self.class_names: tuple[str, ...] = ()
        self.images: Images | None = None
        self.loaders: list[Loader] = []

    def read(self) -> Images:
        """The images of train and test set; ValueError in one line for what is wrong with them."""
        raise NotImplementedError

    def normalisation(self) -> tuple[Channels, Channels]:
        """Mean and std of the channels in [0, 1], known before anything is read."""
        raise NotImplementedError

    def eval_transform(self) -> Callable[[Image.Image], Tensor]:
        """What makes of a decoded image (L or RGB) what it would be in the test set: float32 (in_chans, H, W)."""
        normalise = Normalise(*self.normalisation(), torch.device("cpu"))
        return lambda image: normalise(pil_to_tensor(square(image, self.image_size)))

    def denormalised(self, images: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) as they are seen, in [0, 1]."""
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in self.normalisation())
        return (images * std + mean).clamp(0, 1)

    def setup(self, stage: str | None = None) -> None:
        """Read and check the data, and settle what is trained and validated on."""
        if stage == "fit":
            _ = self.share.micro_batch  # before a long reading
        images = self._load()
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        images.train.to(device)
        images.test.to(device)
        labels = images.train.labels.cpu().numpy()
        train, self.val_indices = np.arange(len(labels)), None
        if self.split == "val":
            val, train = stratified(labels, fraction_of(len(labels), self.val_fraction), self.split_seed)
            self.val_indices = torch.from_numpy(val)
        if self.train_fraction < 1:
            train = train[stratified(labels[train], fraction_of(len(train), self.train_fraction), self.split_seed)[0]]
        self.train_indices = torch.from_numpy(train)
        if stage == "fit":
            self.share.train_steps(len(train))

    def _load(self) -> Images:
        if self.images is None:
            self.images = self.read()
            self.class_names = self.images.class_names
        return self.images

    def train_dataloader(self) -> Loader:
        """Augmented batches of the training set, the last incomplete global batch of an epoch dropped."""
        plan = TrainPlan(self.train_indices, self.share, self.seed, self.mixing, self._position)
        return self._opened(self._load().train.train_loader(plan, self.augmentation, self.num_classes))

    def val_dataloader(self) -> Loader:
        """Batches of the validation set, which with split=test is the test set."""
        if self.val_indices is None:
            return self.test_dataloader()
        return self._opened(self._load().train.eval_loader(self.val_indices, self.share))

    def test_dataloader(self) -> Loader:
        """Batches of the test set."""
        test = self._load().test
        return self._opened(test.eval_loader(torch.arange(len(test.labels)), self.share))

    @property
    def test_images(self) -> int:
        """How many there are."""
        return len(self._load().test.labels)

    def test_sample(self, count: int) -> Loader:
        """Batches of `count` test images, or of all if there are fewer, from all over the test set."""
        indices = torch.linspace(0, self.test_images - 1, min(count, self.test_images)).round().long()
        return self._opened(self._load().test.eval_loader(indices, self.share))

    def _opened(self, loader: Loader) -> Loader:
        self.loaders.append(loader)
        return loader

    def teardown(self, stage: str) -> None:
        """Close the loaders."""
        for loader in self.loaders:
            loader.close()

    @property
    def share(self) -> Share:
        """This process's part of the global batch."""
        trainer = self.trainer
        if trainer is None:
            return Share(self.batch_size)
        return Share(self.batch_size, trainer.global_rank, trainer.world_size, trainer.accumulate_grad_batches)

    def _position(self) -> tuple[int, int]:
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

    def expect(self, key: str, found: int, where: str) -> None:
        """Raise ValueError unless the data has what the config says, which models are built from."""
        require(getattr(self, key) == found, key, getattr(self, key), f"{where}; set datamodule.{key}={found}")
