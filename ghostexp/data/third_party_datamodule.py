"""Give a LightningDataModule of another package what tasks need of a datamodule of classification, and check it."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler, Subset
from torchvision.transforms.v2.functional import pil_to_tensor

from ghostexp.data.dataloader import Batch
from ghostexp.data.image_folders import square
from ghostexp.data.transforms import Normalize

NEEDED = ("num_classes", "in_chans", "image_size", "batch_size")
Base = LightningDataModule if TYPE_CHECKING else object


class ThirdPartyDataModule(Base):
    """A LightningDataModule of another package: `as_datamodule` mixes this class in.

    Its batches are float images (N, in_chans, image_size, image_size) and int64 classes (N,). Without val_dataloader,
    validation is on the test set. A method of the same name of its own is used instead of one of these.
    """

    num_classes: int
    in_chans: int
    image_size: int
    batch_size: int  # of a device
    class_names: tuple[str, ...]
    validate_on: str
    given: Mapping[str, Any]
    has_teardown: bool
    stages_set_up: set[str | None]

    def setup(self, stage: str | None = None) -> None:
        """Set up a stage, then check the first images of each loader.

        The test's own stage follows where there is no test loader without it, and only then: it may draw other splits.
        """
        self._set_up(stage)
        if stage == "fit":
            self._check("train_dataloader", self.train_dataloader())
        if not self._has_test_loader():
            self._set_up("test")
        self._check("test_dataloader", self.test_dataloader())

    def _has_test_loader(self) -> bool:
        try:
            return getattr(self.test_dataloader(), "dataset", None) is not None
        except Exception:  # of any kind, as its data are not there yet
            return False

    def _set_up(self, stage: str | None) -> None:
        """Call its own setup, once for a stage; stage None is all of them."""
        if not self.stages_set_up & {stage, None}:
            super().setup(stage)  # pyright: ignore[reportArgumentType]
            self.stages_set_up.add(stage)

    def teardown(self, stage: str) -> None:
        """Call its own teardown, after which each stage is set up anew; without one, all stay set up."""
        super().teardown(stage)
        if self.has_teardown:
            self.stages_set_up.clear()

    def val_dataloader(self) -> Iterable[Batch]:
        """Return its loader of the validation set; without one, that of the test set."""
        return super().val_dataloader() if self.validate_on == "holdout" else self.test_dataloader()

    def _check(self, name: str, loader: object) -> None:
        """Raise ValueError unless a loader has images and classes as the configuration says."""
        what = f"datamodule: {name} of {type(self).__name__}"
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            raise ValueError(f"{what} must return a DataLoader of a map-style Dataset, got {type(loader).__name__}")
        if len(loader) == 0:
            raise ValueError(f"{what} must have at least one batch")
        is_in_order = loader.batch_size is not None and isinstance(loader.sampler, SequentialSampler)
        if name == "test_dataloader" and not is_in_order:
            raise ValueError(f"{what} must have a batch_size and shuffle=False, without a sampler")
        assert loader.collate_fn is not None
        batch = loader.collate_fn([loader.dataset[index] for index in range(min(2, len(loader.dataset)))])  # pyright: ignore
        shape = (self.in_chans, self.image_size, self.image_size)
        images, labels = batch if isinstance(batch, list | tuple) and len(batch) == 2 else (None, None)
        if not (isinstance(images, Tensor) and images.is_floating_point() and tuple(images.shape[1:]) == shape):
            raise ValueError(
                f"{what}: batches must be float images (N, {shape[0]}, {shape[1]}, {shape[2]}) and classes, "
                f"got {_describe(images)}"
            )
        is_integer = isinstance(labels, Tensor) and labels.ndim == 1 and not labels.is_floating_point()
        classes = labels.tolist() if isinstance(labels, Tensor) and is_integer else [-1]
        if not all(0 <= label < self.num_classes for label in classes):
            raise ValueError(
                f"{what}: classes must be integers (N,) below datamodule.num_classes={self.num_classes}, "
                f"got {_describe(labels)}"
            )

    @property
    def test_images(self) -> int:
        """Count the test images."""
        return len(self._test_set())

    def _test_set(self) -> Any:
        loader: Any = self.test_dataloader()
        return loader.dataset

    def test_sample(self, count: int) -> Iterable[Batch]:
        """Build a loader of up to `count` test images, evenly spaced over the test set."""
        indices = torch.linspace(0, self.test_images - 1, min(count, self.test_images)).round().long().tolist()
        loader: Any = self.test_dataloader()
        return self._loader(loader, indices)

    def train_sample(self, count: int) -> Iterable[Batch]:
        """Build a loader of up to `count` training images, evenly spaced, as its training loader prepares them."""
        self._set_up("fit")
        loader: Any = self.train_dataloader()
        total = len(loader.dataset)
        indices = torch.linspace(0, total - 1, min(count, total)).round().long().tolist()
        return self._loader(loader, indices)

    def _loader(self, loader: Any, indices: list[int]) -> Iterable[Batch]:
        size = loader.batch_size or self.batch_size  # none with a batch_sampler
        return DataLoader(Subset(loader.dataset, indices), size, collate_fn=loader.collate_fn)

    def test_index(self, rank: int, batch: int, position: int) -> int:
        """Return the index in the test set of an image of a test, by process, batch and position in the batch."""
        loader: Any = self.test_dataloader()
        processes = self.trainer.world_size if self.trainer else 1
        return ((batch * loader.batch_size + position) * processes + rank) % self.test_images

    def test_file(self, index: int) -> str:
        """Return no file."""
        return ""

    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return `datamodule.mean` and `datamodule.std`.

        Raises ValueError: they are not set.
        """
        mean, std = self.given["mean"], self.given["std"]
        if mean is None or std is None:
            raise ValueError(
                f"datamodule.mean and datamodule.std: must be set to what {type(self).__name__} normalises its images "
                "with, of values in [0, 1]"
            )
        return tuple(mean), tuple(std)

    def denormalize(self, images: Tensor) -> Tensor:
        """Undo the normalisation of images ([N,] C, H, W); where it is unknown, stretch them to [0, 1]."""
        if self.given["mean"] is None or self.given["std"] is None:
            low, high = images.amin(), images.amax()
            return (images - low) / (high - low).clamp(min=1e-9)
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in self.mean_std())
        return (images * std + mean).clamp(0, 1)

    def eval_transform(self) -> Callable[[Image.Image], Tensor]:
        """Build the transform of a decoded image to the network's input: square, and normalised by mean and std."""
        normalize = Normalize(*self.mean_std(), torch.device("cpu"))
        return lambda image: normalize(pil_to_tensor(square(image, self.image_size)))


def as_datamodule(datamodule: LightningDataModule, given: Mapping[str, Any]) -> ThirdPartyDataModule:
    """Make a LightningDataModule, in place, a `ThirdPartyDataModule`; given: values of the keys
    that the rest of the configuration refers to: those of NEEDED, and mean, std and class_names.

    Raises ValueError: it lacks a loader, a value is missing, or contradicts the datamodule's own.
    """
    kind, name = type(datamodule), type(datamodule).__name__
    for key in NEEDED:
        if given.get(key) is None:
            raise ValueError(f"datamodule.{key}: must be set for {name}: datamodule.{key}=...")
    for key in NEEDED[:3]:
        own = getattr(datamodule, key, None)
        if own is not None and own != given[key]:
            raise ValueError(f"datamodule.{key}={given[key]}: {name} has {own}; set datamodule.{key}={own}")
    lacking = [
        loader
        for loader in ("train_dataloader", "test_dataloader")
        if not is_overridden(loader, datamodule, LightningDataModule)
    ]
    if lacking:
        raise ValueError(f"datamodule: {name} must define train_dataloader and test_dataloader; it lacks {lacking[0]}")
    has_val, has_teardown = (
        is_overridden(method, datamodule, LightningDataModule) for method in ("val_dataloader", "teardown")
    )
    own = {method: getattr(kind, method) for method in METHODS if hasattr(kind, method)}
    datamodule.__class__ = type(kind.__name__, (ThirdPartyDataModule, kind), own)  # pyright: ignore
    assert isinstance(datamodule, ThirdPartyDataModule)
    datamodule.given = given
    datamodule.validate_on = "holdout" if has_val else "test"
    datamodule.has_teardown = has_teardown
    datamodule.stages_set_up = set()
    for key in NEEDED:
        if getattr(datamodule, key, None) is None:
            setattr(datamodule, key, given[key])
    names = given.get("class_names") or getattr(datamodule, "class_names", None) or range(given["num_classes"])
    datamodule.class_names = tuple(str(one) for one in names)
    if len(datamodule.class_names) != given["num_classes"]:
        raise ValueError(
            f"datamodule.class_names: must be {given['num_classes']} names, got {len(datamodule.class_names)}"
        )
    return datamodule


METHODS = ("eval_transform", "denormalize", "mean_std", "test_file")  # that a datamodule may define itself


def _describe(value: object) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
