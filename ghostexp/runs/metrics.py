"""Select and format the primary metric of runs: top-1 accuracy, mAP of detectors, or the one of `monitor`."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Metric:
    """The metric that compares runs, such as `test/acc1`: its unit, format, range and direction."""

    name: str
    higher_is_better: bool = True

    @property
    def title(self) -> str:
        """Return its title: accuracy, mAP, or its name."""
        return metric_title(self.name)

    @property
    def unit(self) -> str:
        """Return % or nothing."""
        return metric_unit(self.name)

    @property
    def label(self) -> str:
        """Return its title with its unit, if it has one."""
        return ", ".join(filter(None, (self.title, self.unit)))

    @property
    def range(self) -> tuple[float, float]:
        """Return its possible values, unlimited without a unit."""
        return (0.0, 100.0) if self.unit else (-math.inf, math.inf)

    @property
    def difference_range(self) -> tuple[float, float]:
        """Return the possible values of a difference of two."""
        return (-100.0, 100.0) if self.unit else (-math.inf, math.inf)

    def difference_label(self, title: str) -> str:
        """Return a title of differences with their unit, if they have one: `difference to s = 1, points`."""
        return f"{title}, points" if self.unit else title

    def number(self, value: float) -> str:
        """Format a value without its unit: `98.61`, `0.9812`."""
        return f"{value:.2f}" if self.unit else format_number(value)

    def text(self, value: float) -> str:
        """Format a value with its unit, if it has one."""
        return f"{self.number(value)} {self.unit}".rstrip()

    def signed(self, difference: float) -> str:
        """Format a difference with a sign, `+0.22`, or as `0.00` if it rounds to zero."""
        text = f"{difference:+.2f}" if self.unit else f"{difference:+.4g}"
        return text[1:] if float(text) == 0 else text


def metric_of(result: Mapping[str, Any]) -> Metric:
    """Return the metric that compares a run with others; without one, `test/acc1`."""
    name = primary_metric(result) or "test/acc1"
    monitor = result.get("monitor")
    mode = result.get("monitor_mode", "min" if monitor == "loss" else "max")  # earlier versions did not record it
    return Metric(name, not (name == f"test/{monitor}" and mode == "min"))


def format_number(value: float) -> str:
    """Format a number with four significant digits: `2.303`, `0.01234`, `1.526e+29`."""
    return f"{value:.4g}"


def format_metric(name: str, value: float | None) -> str:
    """Format a metric with its unit: `98.61 %`, `0.9812`; nan for None, which is how JSON has it."""
    if value is None:
        return "nan"
    return f"{value:.2f} %" if metric_unit(name) else format_number(value)
