"""The figure by which runs are compared, in percent: top-1 accuracy of classifiers, mAP of detectors."""

from collections.abc import Mapping
from typing import Any

SCORES = {"acc1": "accuracy", "map": "mAP"}


def primary_metric(figures: Mapping[str, Any], stage: str = "test") -> str | None:
    """The name of the score among figures, such as `test/acc1`; None where there is none."""
    return next((f"{stage}/{name}" for name in SCORES if f"{stage}/{name}" in figures), None)


def metric_title(name: str) -> str:
    """What people call a score: `test/map` is mAP."""
    return SCORES[name.rpartition("/")[2]]


def format_number(value: float) -> str:
    """Write a number with four significant digits: `2.303`, `0.01234`, `1.526e+29`."""
    return f"{value:.4g}"
