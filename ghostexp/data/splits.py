"""Split a set of images, stratified by class."""

import numpy as np


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
