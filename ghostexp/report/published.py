"""Published results: reading published.yaml, and finding the rows of a variant."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ghostexp.report.variants import Variant

METRIC_KEYS = ("params_m", "macs_m", "acc", "top1", "top5", "map")


@dataclass(frozen=True)
class PublishedResult:
    """One published network: its figures (see paper.yaml for units), and what to type for the same."""

    name: str
    figures: Mapping[str, float]
    ours: Mapping[str, Any] = field(default_factory=dict)  # group: option and path: value; empty: we have no such
    differs: Mapping[str, str] = field(default_factory=dict)  # why our count is not the printed one, by column

    @property
    def overrides(self) -> list[str]:
        """What to type for the same network."""
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
    """All published tables by name."""
    data = yaml.safe_load(Path(__file__).with_name("published.yaml").read_bytes())
    return {name: _table(**entry) for name, entry in data.items()}


def _table(title: str, source: str, datamodule: str, rows: dict[str, dict[str, Any]]) -> PublishedTable:
    return PublishedTable(title, source, datamodule, tuple(_row(name, entry) for name, entry in rows.items()))


def _row(name: str, entry: dict[str, Any]) -> PublishedResult:
    figures = {key: entry[key] for key in METRIC_KEYS if key in entry}
    return PublishedResult(name, figures, entry.get("ours", {}), entry.get("differs", {}))


# What a published network has where its row does not say otherwise.
PUBLISHED_DEFAULTS = {"model.ratio": 2, "model.dw_size": 3, "model.width": 1.0, "model.norm_act": "plain"}
IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class PublishedMatch:
    """A published accuracy, in percent."""

    name: str
    source: str
    accuracy: float
    macs_m: float | None
    is_replication: bool

    @property
    def who(self) -> str:
        return "replication" if self.is_replication else "paper"


def published_results(variant: Variant) -> list[PublishedMatch]:
    """Every published accuracy of an arm's network on its data, each once."""
    config = _as_published(variant.runs[0].values)
    found = {}
    for name, table in read_published_tables().items():
        if not _same_data(config, table):
            continue
        for row in table.rows:
            accuracy = next((row.figures[key] for key in ("acc", "top1", "map") if key in row.figures), None)
            if accuracy is None or not row.ours or not _same_network(config, row):
                continue
            is_replication = name.startswith("replication")
            key = (is_replication, accuracy, row.name if is_replication else "")
            found.setdefault(
                key, PublishedMatch(row.name, table.source, accuracy, row.figures.get("macs_m"), is_replication)
            )
    return list(found.values())


def _as_published(values: Mapping[str, Any]) -> dict[str, Any]:
    """A ghosted network at s = 1 is the ordinary one, and is published under its name."""
    name = str(values.get("model"))
    if values.get("model.ratio") != 1 or not name.startswith("ghost_"):
        return dict(values)
    own = {key: value for key, value in values.items() if not key.startswith("model.")}
    prefix = "model.network."
    inner = {f"model.{key.removeprefix(prefix)}": value for key, value in values.items() if key.startswith(prefix)}
    return own | inner | {"model": name.removeprefix("ghost_")}


def _same_data(config: Mapping[str, Any], table: PublishedTable) -> bool:
    is_whole = config.get("datamodule.train_fraction", 1.0) == 1.0
    is_imagenet = config.get("datamodule.num_classes") == IMAGENET_CLASSES
    is_known = table.datamodule in ("cifar10", "coco") or is_imagenet
    return config.get("datamodule") == table.datamodule and is_whole and is_known


def _same_network(config: Mapping[str, Any], row: PublishedResult) -> bool:
    """Whether a configuration has all that a row says, and elsewhere what a published network has.

    A recipe's name is no part of it: a study keeps it while it varies the recipe's values.
    """
    said = {key: value for key, value in row.ours.items() if key != "experiment"}
    keeps = [] if config.get("model") != "ghost_resnet50" else ["first"]
    unsaid = {key: value for key, value in {**PUBLISHED_DEFAULTS, "model.exclude": keeps}.items() if key in config}
    return bool(said) and all(config.get(key) == value for key, value in {**unsaid, **said}.items())
