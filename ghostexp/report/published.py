"""The published figures of an arm: those of the same network on the same data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ghostexp.report.arms import Arm
from ghostexp.report.paper import Row, Table, tables

# What a published network has where its row does not say otherwise.
UNSAID = {"model.ratio": 2, "model.dw_size": 3, "model.width": 1.0, "model.form": "plain"}
IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Published:
    """A published accuracy, in percent."""

    name: str
    source: str
    accuracy: float
    macs_m: float | None
    is_replication: bool

    @property
    def who(self) -> str:
        return "replication" if self.is_replication else "paper"


def published(arm: Arm) -> list[Published]:
    """Every published accuracy of an arm's network on its data, each once."""
    config = _as_published(arm.runs[0].values)
    found = {}
    for name, table in tables().items():
        if not _same_data(config, table):
            continue
        for row in table.rows:
            accuracy = next((row.figures[key] for key in ("acc", "top1", "map") if key in row.figures), None)
            if accuracy is None or not row.ours or not _same_network(config, row):
                continue
            is_replication = name.startswith("replication")
            key = (is_replication, accuracy, row.name if is_replication else "")
            found.setdefault(
                key, Published(row.name, table.source, accuracy, row.figures.get("macs_m"), is_replication)
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


def _same_data(config: Mapping[str, Any], table: Table) -> bool:
    is_whole = config.get("datamodule.train_fraction", 1.0) == 1.0
    is_imagenet = config.get("datamodule.num_classes") == IMAGENET_CLASSES
    is_known = table.datamodule in ("cifar10", "coco") or is_imagenet
    return config.get("datamodule") == table.datamodule and is_whole and is_known


def _same_network(config: Mapping[str, Any], row: Row) -> bool:
    """Whether a configuration has all that a row says, and elsewhere what a published network has.

    A recipe's name is no part of it: a study keeps it while it varies the recipe's values.
    """
    said = {key: value for key, value in row.ours.items() if key != "experiment"}
    keeps = [] if config.get("model") != "ghost_resnet50" else ["first"]
    unsaid = {key: value for key, value in {**UNSAID, "model.keep": keeps}.items() if key in config}
    return bool(said) and all(config.get(key) == value for key, value in {**unsaid, **said}.items())
