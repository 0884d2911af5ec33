"""What the figures of a study share: axes, series and styles that can be told apart in greyscale too."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from ghostexp.report.statistics import FEWEST
from ghostexp.report.variants import Study, Variant, as_text

MARKERS = "osD^vP*Xph"
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
DPI = 120
Series = dict[str, list[Variant]]  # arms by what they have beside the key of the axis


def axis_key(study: Study) -> str | None:
    """The key that a study varies most; None where it varies none."""
    return max(study.keys, key=lambda key: len(study.levels(key)), default=None)


def group_series(study: Study) -> Series:
    """The arms by their values of all keys but the axis's."""
    key, found = axis_key(study), {}
    for variant in study.variants:
        found.setdefault(variant.label_without(key), []).append(variant)
    return found


def axis_positions(study: Study, key: str) -> dict[str, float]:
    """Where the values of a key are on an axis, by their text: numbers at their places, others side by side."""
    levels = study.levels(key)
    if all(type(level) in (int, float) for level in levels):
        return {as_text(level): float(level) for level in levels}
    return {as_text(level): float(number) for number, level in enumerate(levels)}


def style(number: int, count: int) -> dict[str, Any]:
    """The look of one of several lines: colours differ in brightness, and markers and dashes beside them."""
    shade = 0.8 * number / max(1, count - 1)
    return {
        "color": matplotlib.colormaps["cividis"](shade),
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINES[number % len(LINES)],
    }


def line(look: dict[str, Any]) -> dict[str, Any]:
    """A look without its marker."""
    return look | {"marker": ""}


# Decorates every function that draws: names come from outside, where a dollar is a dollar.
literal_text = matplotlib.rc_context({"text.parse_math": False})


def legend_label(text: str) -> str:
    """A label that a legend shows: matplotlib leaves out those that begin with an underscore."""
    return f"\N{ZERO WIDTH SPACE}{text}" if text.startswith("_") else text


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, whose parts keep clear of each other."""
    return Figure(figsize=(width, height), layout="constrained")


def error_bar(variant: Variant) -> tuple[float, float] | None:
    """How far the interval of an arm's accuracy reaches down and up from its mean."""
    found = variant.accuracy
    return None if found.interval is None else (found.mean - found.interval[0], found.interval[1] - found.mean)


def point(axis: Axes, place: float, variant: Variant, look: dict[str, Any], label: str | None = None) -> None:
    """An arm's mean with its interval."""
    error = error_bar(variant)
    size = {"markersize": 6.5, "capsize": 3, "elinewidth": 1.2, "zorder": 3}
    spread = None if error is None else [[error[0]], [error[1]]]
    kept = {key: value for key, value in look.items() if key != "linestyle"}
    label = None if label is None else legend_label(label)
    axis.errorbar([place], [variant.accuracy.mean], spread, linestyle="", label=label, **kept, **size)


def plain_log(axis: Axes, which: Literal["x", "y"]) -> None:
    """A logarithmic scale with numbers as people write them: 0.5, 20, 300."""
    axis.set(**{f"{which}scale": "log"})
    scale = axis.xaxis if which == "x" else axis.yaxis
    scale.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    scale.set_major_formatter("{x:g}")
    scale.set_minor_formatter(NullFormatter())


def save(figure: Figure, title: str | None, path: Path, size: int = 10, dpi: int = DPI) -> Path:
    """Write a figure under its title; the one place that writes figures, so that none has mathematics for names."""
    assert not matplotlib.rcParams["text.parse_math"], "a function that draws is to be decorated by literal_text"
    if title is not None:
        figure.suptitle(title, fontsize=size)
    figure.savefig(path, dpi=dpi)
    return path


def describe_means(variants: Sequence[Variant]) -> str:
    """What the markers of a figure are: `means with 95 % intervals (n = 3 to 5)`."""
    counts = sorted({variant.accuracy.n for variant in variants})
    if counts == [1]:
        return "single runs (n = 1), without intervals"
    numbers = f"n = {' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))}"
    if counts[-1] < FEWEST:
        return f"means ({numbers}), without intervals"
    return f"means with 95 % intervals ({numbers}" + (f"; from n = {FEWEST} on)" if counts[0] < FEWEST else ")")
