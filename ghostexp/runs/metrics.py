"""Select and format the primary metric of runs, in percent: top-1 accuracy, or mAP of detectors."""

from collections.abc import Mapping
from typing import Any

TITLES = {"acc1": "accuracy", "map": "mAP"}


def primary_metric(metrics: Mapping[str, Any], stage: str = "test") -> str | None:
    """Return the name of the primary metric, such as `test/acc1`; None if there is none."""
    return next((f"{stage}/{name}" for name in TITLES if f"{stage}/{name}" in metrics), None)


def metric_title(name: str) -> str:
    """Return the title of a metric: `test/map` is mAP."""
    return TITLES[name.rpartition("/")[2]]


def format_number(value: float) -> str:
    """Format a number with four significant digits: `2.303`, `0.01234`, `1.526e+29`."""
    return f"{value:.4g}"
