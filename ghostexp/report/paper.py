"""The published figures, from paper.yaml."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FIGURES = ("params_m", "macs_m", "acc", "top1", "top5", "map")


@dataclass(frozen=True)
class Row:
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
class Table:
    """A published table."""

    title: str
    source: str
    datamodule: str
    rows: tuple[Row, ...]


@cache
def tables() -> dict[str, Table]:
    """All published tables by name."""
    data = yaml.safe_load(Path(__file__).with_name("paper.yaml").read_bytes())
    return {name: _table(**entry) for name, entry in data.items()}


def _table(title: str, source: str, datamodule: str, rows: dict[str, dict[str, Any]]) -> Table:
    return Table(title, source, datamodule, tuple(_row(name, entry) for name, entry in rows.items()))


def _row(name: str, entry: dict[str, Any]) -> Row:
    figures = {key: entry[key] for key in FIGURES if key in entry}
    return Row(name, figures, entry.get("ours", {}), entry.get("differs", {}))
