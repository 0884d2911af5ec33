"""Stratified splits that stay where they are: a split depends on the labels, the size and a seed, on no library."""

import numpy as np


def stratified(labels: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
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
