"""The training and the test set of a datamodule, and splits of a set, stratified by class."""

from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from ghostexp.data.dataloader import ResumableLoader
from ghostexp.data.sampling import DistributedBatches


class SplitDataset(Protocol):
    """Images with labels or annotations, and the loaders over them."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> Self: ...

    def digest(self) -> str: ...

    def find_unreadable(self, indices: np.ndarray) -> list[str]: ...

    def eval_loader(self, indices: Tensor, distributed_batches: DistributedBatches) -> ResumableLoader: ...


E = TypeVar("E", bound=SplitDataset)


@dataclass(frozen=True)
class DatasetSplits(Generic[E]):
    """The training and the test set of a datamodule."""

    train: E
    test: E
    class_names: tuple[str, ...]


def stratified_split(labels: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose count of the labels (N,), stratified by class; returns the chosen indices and the others, sorted.

    Quotas are rounded down; the remaining count goes to the classes with the largest fractional parts.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * count / len(labels)
    quotas = np.floor(exact).astype(int)
    largest_first = np.argsort(quotas - exact, kind="stable")
    quotas[largest_first[: count - quotas.sum()]] += 1
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for label, quota in zip(classes, quotas, strict=True):
        chosen[generator.permutation(np.flatnonzero(labels == label))[:quota]] = True
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)


def fraction_of(total: int, fraction: float) -> int:
    """Round a fraction of total to an integer, at least 1."""
    return max(1, round(total * fraction))
