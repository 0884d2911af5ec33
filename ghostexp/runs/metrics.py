"""Select and format the primary metric of runs: top-1 accuracy, mAP of detectors, or the one of `monitor`."""

import re
from collections.abc import Mapping
from typing import Any

TITLES = {"acc1": "accuracy", "map": "mAP"}
IN_PERCENT = re.compile(r"acc[15]|map(_\w+)?|mar_\w+")  # names of our metrics in percent


def primary_metric(result: Mapping[str, Any], stage: str = "test") -> str | None:
    """Return the name of the primary metric of a result, such as `test/acc1`; None if it has none."""
    metrics, monitor = result.get("metrics", {}).get(stage, {}), result.get("monitor")
    return next((f"{stage}/{name}" for name in (monitor, *TITLES) if f"{stage}/{name}" in metrics), None)


def metric_title(name: str) -> str:
    """Return the title of a metric: `test/map` is mAP."""
    metric = name.rpartition("/")[2]
    return TITLES.get(metric, metric)


def metric_unit(name: str) -> str:
    """Return the unit of a metric: % or, of losses and metrics of others, nothing."""
    return "%" if IN_PERCENT.fullmatch(name.rpartition("/")[2]) else ""


def format_number(value: float) -> str:
    """Format a number with four significant digits: `2.303`, `0.01234`, `1.526e+29`."""
    return f"{value:.4g}"


def format_metric(name: str, value: float) -> str:
    """Format a metric with its unit: `98.61 %`, `0.9812`."""
    return f"{value:.2f} %" if metric_unit(name) else format_number(value)
