"""Training, validation and test splits."""

import numpy as np
import torch

from ghostexp.data.classification_datamodule import ClassificationDataset
from ghostexp.data.datasets.digits import Digits
from ghostexp.data.splits import stratified_split


def digits(**arguments: object) -> Digits:
    module = Digits(batch_size=32, num_classes=10, in_chans=1, image_size=8, **arguments)  # pyright: ignore[reportArgumentType]
    module.setup()
    return module


def labels_of(images: ClassificationDataset, indices: torch.Tensor) -> np.ndarray:
    return images.labels[indices].numpy()


def test_stratified_split_has_exact_size_and_proportions() -> None:
    labels = np.random.default_rng(0).choice(7, 1000, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05])
    for count in (1, 10, 123, 500, 999):
        chosen, rest = stratified_split(labels, count, seed=3)
        assert len(chosen) == count
        assert sorted([*chosen, *rest]) == list(range(1000))
        exact = np.bincount(labels) * count / 1000
        assert np.abs(np.bincount(labels[chosen], minlength=7) - exact).max() < 1


def test_digits_validates_on_its_360_test_images() -> None:
    module = digits()
    assert module.images is not None
    assert (len(module.images.train.labels), len(module.images.test.labels)) == (1437, 360)
    assert set(np.bincount(module.images.test.labels.numpy())) <= {35, 36, 37}
    for loader in (module.val_dataloader(), module.test_dataloader()):
        assert torch.equal(torch.cat([labels for _, labels in loader]), module.images.test.labels)


def test_holdout_is_a_stratified_part_of_the_training_set() -> None:
    without, holdout = digits(), digits(validate_on="holdout", holdout_fraction=0.2)
    assert holdout.val_indices is not None
    assert without.images is not None
    assert holdout.images is not None
    assert not set(holdout.val_indices.tolist()) & set(holdout.train_indices.tolist())
    assert len(holdout.val_indices) + len(holdout.train_indices) == 1437
    assert set(np.bincount(labels_of(holdout.images.train, holdout.val_indices))) <= {28, 29, 30}
    assert torch.equal(without.images.test.labels, holdout.images.test.labels)
    validated = torch.cat([labels for _, labels in holdout.val_dataloader()])
    assert torch.equal(validated, holdout.images.train.labels[holdout.val_indices])


def test_splits_depend_on_split_seed_only() -> None:
    first = digits(validate_on="holdout", train_fraction=0.1)
    same = digits(validate_on="holdout", train_fraction=0.1, seed=7)
    other = digits(validate_on="holdout", train_fraction=0.1, split_seed=7)
    assert first.val_indices is not None
    assert same.val_indices is not None
    assert first.images is not None
    assert same.images is not None
    assert other.images is not None
    assert torch.equal(first.val_indices, same.val_indices)
    assert torch.equal(first.train_indices, same.train_indices)
    assert torch.equal(first.images.test.labels, same.images.test.labels)
    assert not torch.equal(first.train_indices, other.train_indices)
    assert not torch.equal(first.images.test.labels, other.images.test.labels)


def test_train_fraction_is_stratified_and_keeps_holdout() -> None:
    full, tenth = digits(validate_on="holdout"), digits(validate_on="holdout", train_fraction=0.1)
    assert tenth.images is not None
    assert len(tenth.train_indices) == 129  # of 1437 - 144
    assert set(np.bincount(labels_of(tenth.images.train, tenth.train_indices))) <= {12, 13, 14}
    assert set(tenth.train_indices.tolist()) < set(full.train_indices.tolist())
    assert full.val_indices is not None
    assert tenth.val_indices is not None
    assert torch.equal(full.val_indices, tenth.val_indices)


def test_digits_baseline_accuracy() -> None:
    assert 97.5 < digits().baselines()["1-nearest-neighbour"] < 99.5
    assert digits(train_fraction=0.1).baselines()["1-nearest-neighbour"] < 97
