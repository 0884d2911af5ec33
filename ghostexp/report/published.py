"""Published results: reading published.yaml, and finding the rows of a variant."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ghostexp.report.variants import Variant
from ghostexp.runs.metrics import TITLES

METRIC_KEYS = ("params_m", "macs_m", "acc", "top1", "top5", "map")


@dataclass(frozen=True)
class PublishedResult:
    """One published network: its metrics (units in published.yaml), and the overrides for the same network."""

    name: str
    metrics: Mapping[str, float]
    ours: Mapping[str, Any] = field(default_factory=dict)  # group: option and path: value; empty: not in this project
    differs: Mapping[str, str] = field(default_factory=dict)  # why our count differs from the printed one, by column

    @property
    def overrides(self) -> list[str]:
        """Return the overrides for the same network."""
        return [f"{key}={value}" for key, value in self.ours.items()]


@dataclass(frozen=True)
class PublishedTable:
    """A published table."""

    title: str
    source: str
    datamodule: str
    rows: tuple[PublishedResult, ...]


@cache
def read_published_tables() -> dict[str, PublishedTable]:
    """Read all published tables, by name."""
    data = yaml.safe_load(Path(__file__).with_name("published.yaml").read_bytes())
    return {name: _table(**entry) for name, entry in data.items()}


def _table(title: str, source: str, datamodule: str, rows: dict[str, dict[str, Any]]) -> PublishedTable:
    return PublishedTable(title, source, datamodule, tuple(_row(name, entry) for name, entry in rows.items()))


def _row(name: str, entry: dict[str, Any]) -> PublishedResult:
    metrics = {key: entry[key] for key in METRIC_KEYS if key in entry}
    return PublishedResult(name, metrics, entry.get("ours", {}), entry.get("differs", {}))


# Values of published networks whose row does not state them.
PUBLISHED_DEFAULTS = {"model.ratio": 2, "model.dw_size": 3, "model.width": 1.0, "model.norm_act": "none"}
PUBLISHED_DEFAULTS |= {"model.plan": None, "model.backbone.plan": None, "model.network.width": 1.0}
PUBLISHED_DEFAULTS |= {"model.head": "mlp", "model.network.head": "mlp", "model.se_ratio": 0.25}
IMAGENET_CLASSES, SIDE = 1000, 224
# Overrides of a row that are not compared: a study keeps the recipe while it varies its values, and a backbone is known
# by its `name` and `width`.
NO_VALUES = ("experiment", "model@model.backbone")


@dataclass(frozen=True)
class PublishedMatch:
    """A published accuracy, in percent, of a variant's network and data."""

    name: str
    source: str
    accuracy: float
    macs_m: float | None
    is_replication: bool

    @property
    def who(self) -> str:
        return "replication" if self.is_replication else "paper"


def published_results(variant: Variant) -> list[PublishedMatch]:
    """Return every published accuracy or mAP of a variant's network on its data, each once; none of other metrics."""
    if variant.metric.name.removeprefix("test/") not in TITLES or not variant.runs[0].has_original_data:
        return []
    config = _as_published(variant.runs[0].values)
    found = {}
    for name, table in read_published_tables().items():
        if not _same_data(config, table):
            continue
        for row in table.rows:
            accuracy = next((row.metrics[key] for key in ("acc", "top1", "map") if key in row.metrics), None)
            if accuracy is None or not row.ours or not _same_network(config, row):
                continue
            is_replication = name.startswith("replication")
            key = (is_replication, accuracy, row.name if is_replication else "")
            found.setdefault(
                key, PublishedMatch(row.name, table.source, accuracy, row.metrics.get("macs_m"), is_replication)
            )
    return list(found.values())


def _as_published(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace a ghost network at s = 1 by its baseline, under whose name it is published."""
    name = str(values.get("model"))
    if values.get("model.ratio") != 1 or not name.startswith("ghost_"):
        return dict(values)
    own = {key: value for key, value in values.items() if not key.startswith("model.")}
    prefix = "model.network."
    inner = {f"model.{key.removeprefix(prefix)}": value for key, value in values.items() if key.startswith(prefix)}
    return own | inner | {"model": name.removeprefix("ghost_")}


def _same_data(config: Mapping[str, Any], table: PublishedTable) -> bool:
    is_whole = config.get("datamodule.train_fraction", 1.0) == 1.0
    is_imagenet = (
        config.get("datamodule.num_classes") == IMAGENET_CLASSES and config.get("datamodule.image_size", SIDE) == SIDE
    )
    is_known = table.datamodule in ("cifar10", "coco") or is_imagenet
    return config.get("datamodule") == table.datamodule and is_whole and is_known


def _same_network(config: Mapping[str, Any], row: PublishedResult) -> bool:
    """Return whether a configuration has all values of a row, and defaults elsewhere."""
    stated = {key: value for key, value in row.ours.items() if key not in NO_VALUES}
    excluded = [] if config.get("model") != "ghost_resnet50" else ["first"]
    defaults = {key: value for key, value in {**PUBLISHED_DEFAULTS, "model.exclude": excluded}.items() if key in config}
    return bool(stated) and all(config.get(key) == value for key, value in {**defaults, **stated}.items())
