"""Provide the axes, series and styles of plots, distinguishable in greyscale too."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from ghostexp.report.statistics import FEWEST
from ghostexp.report.variants import RATIO, Study, Variant, as_text, symbol

MARKERS = "osD^vP*Xph"
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
DPI = 120
Series = dict[str, list[Variant]]  # variants by their values of all keys but the axis's


def axis_key(study: Study) -> str | None:
    """Return the key with the most values; None if none is varied."""
    return max(study.keys, key=lambda key: len(study.levels(key)), default=None)


def group_series(study: Study) -> Series:
    """Group variants by their values of all keys but the axis's and those that follow from it."""
    key, found = axis_key(study), {}
    for variant in study.variants:
        found.setdefault(variant.label_without(key, *(following_keys(study, key) if key else ())), []).append(variant)
    return found


def following_keys(study: Study, key: str) -> list[str]:
    """Return the varied keys, other than s, that have one value for each option of the axis: rates of schedules."""
    if has_numbers(study, key):
        return []
    count = len(study.levels(key))
    others = [other for other in study.keys if other not in (key, RATIO) and len(study.levels(other)) > 1]
    return [other for other in others if len({_texts(variant, key, other) for variant in study.variants}) == count]


def _texts(variant: Variant, *keys: str) -> tuple[str, ...]:
    return tuple(as_text(variant.values[key]) for key in keys)


def has_numbers(study: Study, key: str) -> bool:
    """Return whether all values of a key are numbers."""
    return all(type(level) in (int, float) for level in study.levels(key))


def tick_labels(study: Study, key: str) -> list[str]:
    """Return the labels of a key's values on an axis, each with the values that follow from it on further lines."""
    first = {as_text(variant.values[key]): variant for variant in reversed(study.variants)}
    following = following_keys(study, key)
    return [
        "\n".join([text, *(f"{symbol(other)} = {as_text(first[text].values[other])}" for other in following)])
        for text in axis_positions(study, key)
    ]


def axis_positions(study: Study, key: str) -> dict[str, float]:
    """Return the positions of a key's values on an axis, by their text: numbers to scale, others equidistant."""
    levels = study.levels(key)
    if has_numbers(study, key):
        return {as_text(level): float(level) for level in levels}
    return {as_text(level): float(number) for number, level in enumerate(levels)}


def style(number: int, count: int) -> dict[str, Any]:
    """Return the style of one of several lines: colours differ in brightness, and so do markers and dashes."""
    shade = 0.8 * number / max(1, count - 1)
    return {
        "color": matplotlib.colormaps["cividis"](shade),
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINES[number % len(LINES)],
    }


def variant_styles(study: Study) -> dict[int, dict[str, Any]]:
    """Return the style of each variant by its id: networks without ghosts are hollow and of other colours."""
    ordinary = [variant for variant in study.variants if variant.is_ordinary]
    ghosts = [variant for variant in study.variants if not variant.is_ordinary]
    found = {id(variant): style(number, len(ghosts)) for number, variant in enumerate(ghosts)}
    for number, variant in enumerate(ordinary):
        colour = matplotlib.colormaps["OrRd"](0.55 + 0.4 * number / max(1, len(ordinary) - 1))
        found[id(variant)] = style(number, len(ordinary)) | {"color": colour, "markerfacecolor": "white"}
    return found


def line(look: dict[str, Any]) -> dict[str, Any]:
    """Return a style without its marker."""
    return look | {"marker": ""}


# Decorates every function that draws: names may contain dollar signs, which are not mathematics.
literal_text = matplotlib.rc_context({"text.parse_math": False})


def legend_label(text: str) -> str:
    """Return a label that legends show: matplotlib omits those that begin with an underscore."""
    return f"\N{ZERO WIDTH SPACE}{text}" if text.startswith("_") else text


def new_figure(width: float, height: float) -> Figure:
    """Create an empty figure of that size in inches, with constrained layout."""
    return Figure(figsize=(width, height), layout="constrained")


def point(axis: Axes, x: float, variant: Variant, look: dict[str, Any], label: str | None = None) -> None:
    """Plot a variant's mean with its interval."""
    found = variant.accuracy
    size = {"markersize": 6.5, "capsize": 3, "elinewidth": 1.2, "zorder": 3}
    spread = [[found.mean - found.interval[0]], [found.interval[1] - found.mean]] if found.interval else None
    kept = {key: value for key, value in look.items() if key != "linestyle"}
    label = None if label is None else legend_label(label)
    axis.errorbar([x], [found.mean], spread, linestyle="", label=label, **kept, **size)


def dots(axis: Axes, x: Sequence[float], y: Sequence[float], look: dict[str, Any]) -> None:
    """Plot the values of single seeds."""
    axis.plot(x, y, ".", color=look["color"], alpha=0.6, markersize=4, zorder=1)


def plain_log(axis: Axes, which: Literal["x", "y"]) -> None:
    """Set a logarithmic scale with plain numbers: 0.5, 20, 300."""
    axis.set(**{f"{which}scale": "log"})
    scale = axis.xaxis if which == "x" else axis.yaxis
    scale.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    scale.set_major_formatter("{x:g}")
    scale.set_minor_formatter(NullFormatter())


def save(figure: Figure, title: str | None, path: Path, size: int = 10, dpi: int = DPI) -> Path:
    """Write a figure with its title; every figure is written here, where `literal_text` is checked."""
    assert not matplotlib.rcParams["text.parse_math"], "functions that draw must be decorated by literal_text"
    if title is not None:
        figure.suptitle(title, fontsize=size)
    figure.savefig(path, dpi=dpi)
    return path


def describe_means(variants: Sequence[Variant]) -> str:
    """Describe the markers of a plot: `means with 95 % intervals (n = 3 to 5)`."""
    counts = sorted({variant.accuracy.n for variant in variants})
    if counts == [1]:
        return "single runs (n = 1), without intervals"
    numbers = f"n = {' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))}"
    if counts[-1] < FEWEST:
        return f"means ({numbers}), without intervals"
    return f"means with 95 % intervals ({numbers}" + (f"; from n = {FEWEST} on)" if counts[0] < FEWEST else ")")
