"""Tabulate and plot a confusion matrix and misclassified images. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ghostexp.report.plot_style import literal_text, save

Counts = NDArray[np.integer[Any]]  # (classes, classes): rows are targets, columns predictions
Pixels = NDArray[np.floating[Any]]  # (K, H, W, 1 or 3), in [0, 1]
Rows = list[dict[str, Any]]

NUMBERED, MAPPED = 20, 100  # most classes for numbers in the cells, and for a plot
DARK = 25  # percent above which a cell's number is white
ACROSS, CELL = (3, 5), 1.5  # fewest and most images in a row, and inches from one to the next
LABEL = 0.22  # fraction of a cell's height, above its image
LETTERS = 15  # of a class name; longer ones are cut


@dataclass(frozen=True)
class Mistake:
    """A misclassified image, by its index in the test set; `file` is empty if the image is not a file."""

    image: int
    target: str
    prediction: str
    probability: float  # of the prediction
    loss: float
    file: str = ""


def confused_rows(confusion: Counts, names: Sequence[str]) -> Rows:
    """Return a row per pair of classes that occurs: confusions, most frequent first, then correct predictions."""
    pairs = [(int(target), int(prediction)) for target, prediction in np.argwhere(confusion)]
    pairs.sort(key=lambda pair: (pair[0] == pair[1], -confusion[pair]))
    return [
        {"target": names[target], "prediction": names[prediction], "images": int(confusion[target, prediction])}
        for target, prediction in pairs
    ]


def class_rows(confusion: Counts, names: Sequence[str]) -> Rows:
    """Return accuracy and precision of each class in percent, empty without images or predictions.

    Scikit-learn's scores count labels, not a matrix, and give 0 or a warning where there is no value.
    """
    correct, images, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    wrong = confusion - np.diag(correct)
    return [
        {
            "class": name,
            "images": int(images[number]),
            "accuracy": _percent(correct[number], images[number]),
            "precision": _percent(correct[number], predicted[number]),
            "most_confused_with": names[int(wrong[number].argmax())] if wrong[number].any() else "",
        }
        for number, name in enumerate(names)
    ]


def _percent(part: int, whole: int) -> float | str:
    return round(100 * float(part) / float(whole), 4) if whole else ""


@literal_text
def draw_confusion(confusion: Counts, names: Sequence[str], title: str, path: Path) -> Path | None:
    """Plot the matrix in fractions of each class's images, with counts if few classes; None for too many classes."""
    count = len(names)
    if count > MAPPED:
        return None
    percents = 100 * confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    figure, axis, beside = _square(0.42 * count if count <= NUMBERED else min(0.13 * count, 9), names)
    # A linear scale would not distinguish one percent from zero.
    drawn = axis.imshow(percents, cmap="Greys", norm=PowerNorm(0.35, 0, 100))
    if count <= NUMBERED:
        for target, prediction in np.argwhere(confusion):
            color = "white" if percents[target, prediction] > DARK else "black"
            text = str(confusion[target, prediction])
            axis.text(prediction, target, text, ha="center", va="center", color=color, fontsize=8)
    shown = list(range(0, count, 1 if count <= 50 else 2))
    labels, size = [_short(names[number]) for number in shown], 8 if count <= NUMBERED else 5
    axis.set_xticks(shown, labels, rotation=90 if max(map(len, labels)) > 2 else 0, fontsize=size)
    axis.set_yticks(shown, labels, fontsize=size)
    axis.set(xlabel="predicted class", ylabel="true class")
    bar = figure.colorbar(drawn, cax=beside, label="fraction of the true class's images, %")
    bar.set_ticks([0, 1, 5, 20, 50, 100], labels=["0", "1", "5", "20", "50", "100"])
    return save(figure, title, path)


def _square(side: float, names: Sequence[str]) -> tuple[Figure, Axes, Axes]:
    """Create a figure with a square of that side in inches, margins for the names, and a strip beside it.

    Twice as fast as matplotlib's automatic layouts, at the end of every run.
    """
    side = max(side, 2.4)
    margin = 0.55 + 0.07 * min(max(map(len, names)), LETTERS)
    width, height = side + margin + 1.2, side + margin + 0.4
    figure = Figure(figsize=(width, height))
    axis = figure.add_axes((margin / width, margin / height, side / width, side / height))
    strip = figure.add_axes(((margin + side + 0.2) / width, margin / height, 0.15 / width, side / height))
    return figure, axis, strip


@literal_text
def draw_mistakes(pixels: Pixels, mistakes: Sequence[Mistake], title: str, path: Path) -> Path | None:
    """Plot the misclassified images with target and prediction; None if there are none."""
    if not mistakes:
        return None
    across = min(max(len(mistakes), ACROSS[0]), ACROSS[1])
    sheet, rows = _sheet(pixels, across)
    width, top, bottom = CELL * across, 0.6, 0.1
    height = width * sheet.shape[0] / sheet.shape[1] + top + bottom
    figure = Figure(figsize=(width, height))
    axis = figure.add_axes((0, bottom / height, 1, 1 - (top + bottom) / height))
    axis.imshow(sheet, extent=(0, across, rows, 0), aspect="auto", cmap="gray", vmin=0, vmax=1)
    axis.axis("off")
    for number, mistake in enumerate(mistakes):
        row, column = divmod(number, across)
        text = f"{_short(mistake.target)}\n→ {_short(mistake.prediction)}, {100 * mistake.probability:.0f} %"
        axis.text(column + 0.5, row + LABEL - 0.02, text, ha="center", va="bottom", fontsize=7)
    return save(figure, f"{title}\ntarget → prediction, its probability; highest loss first", path)


def _sheet(pixels: Pixels, across: int) -> tuple[Pixels, int]:
    """Tile the images into one (height, width, 1 or 3), each in a white cell with room for a label above it."""
    count, height, width, channels = pixels.shape
    rows = -(-count // across)
    enlarged = -(-64 // height)  # or a border of whole pixels would be wide
    pixels = pixels.repeat(enlarged, 1).repeat(enlarged, 2)
    height, width = height * enlarged, width * enlarged
    top, border = round(height * LABEL / (1 - LABEL)), round(0.04 * width)
    cells = np.ones((rows * across, top + height, width + 2 * border, channels), pixels.dtype)
    cells[:count, top:, border : border + width] = pixels
    grid = cells.reshape(rows, across, *cells.shape[1:]).swapaxes(1, 2)
    return grid.reshape(rows * (top + height), across * (width + 2 * border), channels), rows


def _short(name: str) -> str:
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"
