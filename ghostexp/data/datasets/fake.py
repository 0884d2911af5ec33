"""Random images of any size, for smoke tests."""

from dataclasses import dataclass

import torch

from ghostexp.data.base import Channels
from ghostexp.data.classification_datamodule import ClassificationDataModule
from ghostexp.data.in_memory import InMemoryDataset
from ghostexp.data.splits import DatasetSplits
from ghostexp.validation import require_int


@dataclass(kw_only=True, eq=False, repr=False)
class Fake(ClassificationDataModule):
    """num_images training images of noise and a quarter as many test images, classes in turn; always the same."""

    num_images: int = 256

    def __post_init__(self) -> None:
        require_int("num_images", self.num_images, 4)
        super().__post_init__()

    def default_normalisation(self) -> tuple[Channels, Channels]:
        """Return values close to those of noise."""
        return (0.5,) * self.in_chans, (0.25,) * self.in_chans

    def read(self) -> DatasetSplits:
        """Generate noise with a fixed seed."""
        generator = torch.Generator().manual_seed(0)
        train, test = (self._noise(count, generator) for count in (self.num_images, self.num_images // 4))
        return DatasetSplits(train, test, class_names=tuple(f"class{label}" for label in range(self.num_classes)))

    def _noise(self, count: int, generator: torch.Generator) -> InMemoryDataset:
        shape = (count, self.in_chans, self.image_size, self.image_size)
        images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        return InMemoryDataset(images, torch.arange(count) % self.num_classes, *self.mean_std())
