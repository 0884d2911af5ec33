"""Plot feature maps, filters and their statistics; every plot is readable in greyscale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ghostexp.report.plot_style import literal_text, save

Array = NDArray[np.floating[Any]]
Rows = Sequence[Mapping[str, Any]]

GREYS = {"identity": "0.15", "shift": "0.35", "blur": "0.55", "edge": "0.75", "mixed": "0.95"}
HATCHES = {"identity": "", "shift": "///", "blur": "...", "edge": "xxx", "mixed": ""}
ARROWS = {(0, 1): "→", (0, -1): "←", (1, 0): "↓", (-1, 0): "↑", (1, 1): "↘", (1, -1): "↙", (-1, 1): "↗", (-1, -1): "↖"}
DPI = 130
COLUMN, ROW = 1.08, 1.22  # distances between the squares of a sheet
FIRST = 1.3  # left side of the first map, beside the image and a label


@dataclass(frozen=True)
class MapGrid:
    """A grid of a layer's maps: for K images (K, h, w, channels), columns of maps (K, h', w') with their labels.

    columns[c][r] is the map in column c and row r; the first row has the intrinsic maps.
    """

    images: Array
    columns: list[list[Array]]
    labels: list[list[str]]
    rows: list[str]


@literal_text
def draw_maps(grid: MapGrid, title: str, path: Path) -> None:
    """Plot for each image a column per map of the first row, with the related maps below."""
    height, block = len(grid.rows), len(grid.rows) * ROW + 0.2
    figure, axis = _sheet(FIRST + COLUMN * len(grid.columns), block * len(grid.images))
    for number, image in enumerate(grid.images):
        _put(axis, image.squeeze(), 0, number * block, "", cmap="gray", vmin=0, vmax=1)
        for row in range(height):
            top = number * block + row * ROW
            axis.text(FIRST - 0.05, top + 0.5, grid.rows[row], rotation=90, ha="right", va="center", fontsize=7)
            for column, (maps, labels) in enumerate(zip(grid.columns, grid.labels, strict=True)):
                if row < len(maps):
                    left, label = FIRST + column * COLUMN, "" if number else labels[row]
                    _put(axis, maps[row][number], left, top, label, cmap="gray")
    save(figure, f"{title}\neach map on its own scale, white is high; r: over the whole sample", path, 9, DPI)


@literal_text
def draw_kernels(kernels: Array, rows: Rows, title: str, path: Path) -> None:
    """Plot filters (K, d, d) by kind, identities first; within a kind, by their largest tap."""
    order = sorted(range(len(rows)), key=lambda i: (list(GREYS).index(rows[i]["kind"]), -rows[i]["peak_fraction"]))
    across = min(12, len(order))
    figure, axis = _sheet(COLUMN * across, ROW * -(-len(order) // across))
    for position, index in enumerate(order):
        top, left = ROW * (position // across), COLUMN * (position % across)
        _put(axis, kernels[index], left, top, _label(rows[index]), cmap="cividis", norm=CenteredNorm())
    save(figure, f"{title}\nlight: positive, grey: zero, dark: negative, each on its own scale", path, 9, DPI)


def _sheet(width: float, height: float) -> tuple[Figure, Axes]:
    """Create an empty figure for squares of side 1, much faster to draw than one axis per square."""
    figure = Figure(figsize=(max(6.0, width + 0.2), height + 0.8))
    margin = 0.6 / (height + 0.8)  # for the title
    axis = figure.add_axes((0, 0, 1, 1 - margin))
    axis.axis("off")
    axis.set(xlim=(-0.1, width), ylim=(height, -0.2), aspect="equal")
    return figure, axis


def _put(axis: Axes, pixels: Array, left: float, top: float, label: str, **style: Any) -> None:
    """Draw an array as a square with its label above, without changing the limits of the sheet."""
    axis.autoscale(False)
    axis.imshow(pixels, extent=(left, left + 1, top + 1, top), interpolation="nearest", **style)
    axis.text(left + 0.5, top - 0.03, label, ha="center", va="bottom", fontsize=7)


def _label(row: Mapping[str, Any]) -> str:
    if row["kind"] != "shift":
        return str(row["kind"])
    return f"shift {ARROWS.get((row['down'], row['right']), '')}".rstrip()


@literal_text
def draw_correlations(rows: Rows, title: str, path: Path) -> None:
    """Plot r of every ghost with its intrinsic map, by layer, and medians of |r| with it and with the others."""
    by_layer, others = group(rows, "r"), group(rows, "r_others")
    figure, axis = _wide(len(by_layer))
    generator = np.random.default_rng(0)
    for position, (layer, values) in enumerate(by_layer.items()):
        spread = generator.uniform(-0.3, 0.3, len(values))
        axis.plot(position + spread, values, "o", color="0.35", markersize=3, alpha=0.6, markeredgewidth=0)
        for line, sizes in (("-", np.abs(values)), (":", others[layer])):
            if len(sizes):
                axis.hlines(
                    np.median(sizes), position - 0.4, position + 0.4, color="black", linewidth=2, linestyle=line
                )
    axis.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axis.set(ylabel="correlation r of ghost and intrinsic map", ylim=(-1.05, 1.05))
    _finish(
        figure,
        axis,
        list(by_layer),
        f"{title}\na dot: a ghost; median of |r|: line; with the other intrinsic maps: dotted",
        path,
    )


@literal_text
def draw_kinds(fractions: Mapping[str, Mapping[str, float]], title: str, path: Path) -> None:
    """Which part of a layer's filters is of each kind."""
    figure, axis = _wide(len(fractions))
    bottom = np.zeros(len(fractions))
    for kind, grey in GREYS.items():
        heights = np.array([100 * row[kind] for row in fractions.values()])
        style = {"color": grey, "hatch": HATCHES[kind], "edgecolor": "black", "linewidth": 0.5}
        axis.bar(range(len(fractions)), heights, 0.8, bottom=bottom, label=kind, **style)
        bottom += heights
    axis.set(ylabel="filters, %", ylim=(0, 100))
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    _finish(figure, axis, list(fractions), title, path)


@literal_text
def draw_fits(rows: Rows, sizes: Sequence[int], title: str, path: Path) -> None:
    """Plot the variance of a map that a filter of its partner leaves unexplained: median, quartiles, by d and layer."""
    layers = list(dict.fromkeys(str(row["layer"]) for row in rows))
    figure, axis = _wide(len(layers))
    for number, size in enumerate(sizes):
        values = group(rows, f"unexplained_{size}").values()
        low, middle, high = (np.array([np.quantile(v, q) for v in values]) for q in (0.25, 0.5, 0.75))
        positions = np.arange(len(layers)) + (number - (len(sizes) - 1) / 2) * 0.15
        axis.vlines(positions, low, high, color=f"{0.7 - 0.2 * number}", linewidth=1.5)
        axis.plot(positions, middle, "os^D"[number], color=f"{0.7 - 0.2 * number}", markersize=5, label=f"d = {size}")
    axis.set(ylabel="unexplained fraction of the variance", ylim=(0, 1.02))
    axis.legend(title="best filter\nof d x d", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    _finish(figure, axis, layers, f"{title}\na marker: the median over maps; a line: the middle half of them", path)


def group(rows: Rows, column: str) -> dict[str, list[float]]:
    """Group the finite numbers of a column by layer."""
    found: dict[str, list[float]] = {}
    for row in rows:
        values = found.setdefault(str(row["layer"]), [])
        if np.isfinite(row[column]):
            values.append(float(row[column]))
    return found


def _wide(num_layers: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(max(5.0, 0.45 * num_layers + 2.5), 4), layout="constrained")
    return figure, figure.subplots()


def _finish(figure: Figure, axis: Axes, names: Sequence[str], title: str, path: Path) -> None:
    is_crowded = sum(map(len, names)) > 40
    axis.set_xticks(range(len(names)), names, rotation=45 * is_crowded, ha="right" if is_crowded else "center")
    axis.tick_params(axis="x", labelsize=8)
    axis.set_title(title, fontsize=9)
    save(figure, None, path, dpi=DPI)
