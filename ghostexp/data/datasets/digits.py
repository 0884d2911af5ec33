"""Digits: the 1797 real 8 x 8 images that come with scikit-learn, for runs in seconds without a download."""

from dataclasses import dataclass, field

import numpy as np
import torch

from ghostexp.data.base import Channels
from ghostexp.data.classification_datamodule import ClassificationDataModule
from ghostexp.data.in_memory import InMemoryDataset
from ghostexp.data.splits import DatasetSplits, stratified_split
from ghostexp.validation import require_int

TEST_IMAGES = 360
MEAN, STD = (0.305,), (0.376,)


@dataclass(kw_only=True, eq=False, repr=False)
class Digits(ClassificationDataModule):
    """1437 training and 360 test images, a stratified split by split_seed; values of 0 ... 16 scaled to 0 ... 255."""

    shift: int = 0  # pixels, in every direction
    crop_padding: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        require_int("shift", self.shift, 0)
        self.crop_padding = self.shift  # a shift is a random crop after zero-padding
        super().__post_init__()
        self.check_matches_config("num_classes", 10, "digits has 10 classes")
        self.check_matches_config("in_chans", 1, "digits is grey")
        self.check_matches_config("image_size", 8, "digits has images of 8 x 8")

    def default_normalisation(self) -> tuple[Channels, Channels]:
        """Return mean and std of all digits."""
        return MEAN, STD

    def read(self) -> DatasetSplits:
        """Read scikit-learn's images, split into training and test set."""
        from sklearn.datasets import load_digits  # takes a second, and a configuration is checked without images

        images, labels = (np.asarray(array) for array in load_digits(return_X_y=True))
        images = np.rint(images * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
        test, train = stratified_split(labels, TEST_IMAGES, self.split_seed)
        parts = [
            InMemoryDataset(torch.from_numpy(images[part]), torch.from_numpy(labels[part]).long(), *self.mean_std())
            for part in (train, test)
        ]
        return DatasetSplits(*parts, class_names=tuple("0123456789"))

    def baselines(self) -> dict[str, float]:
        """Compute test accuracies in percent without a network, from the training images of this configuration."""
        from sklearn.neighbors import KNeighborsClassifier

        data = self._load()
        assert isinstance(data.train, InMemoryDataset)
        assert isinstance(data.test, InMemoryDataset)
        chosen = self.train_indices.to(data.train.images.device)
        neighbour = KNeighborsClassifier(n_neighbors=1)
        neighbour.fit(data.train.images[chosen].flatten(1).cpu().numpy(), data.train.labels[chosen].cpu().numpy())
        accuracy = neighbour.score(data.test.images.flatten(1).cpu().numpy(), data.test.labels.cpu().numpy())
        return {"1-nearest-neighbour": 100 * float(accuracy)}
