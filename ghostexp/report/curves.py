"""Plot learning curves with bands over seeds, and the learning rates below them if they differ."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ghostexp.report.plot_style import (
    group_series,
    legend_label,
    line,
    literal_text,
    new_figure,
    plain_log,
    save,
    style,
    variant_styles,
)
from ghostexp.report.variants import Study, Variant

LOWEST = 0.1  # percent: lower end of the logarithmic error axis
RATES = 1e-4  # of the highest learning rate: lower end of its axis
MANY = 25  # epochs; longer curves have no markers
Curve = dict[int, list[float]]  # values of the seeds by epoch


@literal_text
def draw_curves(study: Study, title: str, path: Path) -> Path | None:
    """Plot the validation error, or another metric, by epoch: a panel per series, series of one variant in each."""
    panels = curve_panels(study)
    metric = study.metric
    is_error, column = metric.name == "test/acc1", metric.name.replace("test/", "val/")
    values = {id(variant): curve(variant, column) for variant in study.variants}
    errors = {key: _errors(found) for key, found in values.items()} if is_error else values
    rates = {id(variant): curve(variant, "lr") for variant in study.variants}
    if not any(errors.values()):
        return None
    differ = has_different_means(list(rates.values()))
    figure = new_figure(1.2 + 5.3 * len(panels), 6.4 if differ else 4.2)
    rows = figure.subplots(
        1 + differ, len(panels), squeeze=False, sharex=True, sharey="row", height_ratios=[2, 1][: 1 + differ]
    )
    styles = variant_styles(study)
    for number, (name, variants) in enumerate(panels.items()):
        for variant in variants:
            look = styles[id(variant)] if len(panels) == 1 else style(variants.index(variant), len(variants))
            _draw_curve(rows[0][number], errors[id(variant)], look, variant.label)
            if differ:
                epochs = list(rates[id(variant)])
                values = [fmean(values) for values in rates[id(variant)].values()]
                rows[1][number].plot(epochs, values, **line(look))
        if is_error:
            plain_log(rows[0][number], "y")
        rows[0][number].set_title(name, fontsize=10)
        rows[0][number].legend(fontsize=7)
        rows[-1][number].set(xlabel="epoch")
        rows[-1][number].xaxis.set_major_locator(MaxNLocator(integer=True))
    rows[0][0].set(ylabel="validation error, %" if is_error else f"validation {metric.label}")
    if differ:
        highest = max(max(values) for found in rates.values() for values in found.values())
        rows[1][0].set(ylabel="learning rate", yscale="log", ylim=(RATES * highest, 2 * highest))
        rows[1][0].yaxis.set_major_formatter("{x:g}")  # matplotlib's own writes powers as mathematics
    for axis in figure.axes:
        axis.grid(alpha=0.3, which="both")
    return save(figure, f"{title}\nmeans over seeds; bands: from the lowest to the highest seed", path)


def curve_panels(study: Study) -> dict[str, list[Variant]]:
    """Return the variants of each panel by its title; the only panel has none."""
    series = group_series(study)
    several = {name: variants for name, variants in series.items() if len(variants) > 1}
    if not several:
        return {"": study.variants}
    alone = [variant for variants in series.values() if len(variants) == 1 for variant in variants]
    panels = {name: variants + alone for name, variants in several.items()}
    return panels if len(panels) > 1 else {"": next(iter(panels.values()))}


def curve(variant: Variant, column: str) -> Curve:
    """Return a column of metrics.csv by epoch, a value for each seed that has one."""
    values: Curve = {}
    for run in variant.runs:
        for row in run.curve:
            if row.get(column) and row.get("epoch"):
                values.setdefault(int(row["epoch"]), []).append(float(row[column]))
    return dict(sorted(values.items()))


def has_different_means(curves: Sequence[Curve]) -> bool:
    """Return whether the means over seeds of some curves differ by more than rounding, curves without values aside."""
    means = [{epoch: f"{fmean(values):.6g}" for epoch, values in found.items()} for found in curves if found]
    return any(other != means[0] for other in means[1:])


def _draw_curve(axis: Axes, by_epoch: Curve, look: dict[str, Any], label: str) -> None:
    epochs, errors = list(by_epoch), list(by_epoch.values())
    marker = {"marker": look["marker"] if len(epochs) <= MANY else "", "markersize": 4}
    axis.plot(epochs, [fmean(values) for values in errors], label=legend_label(label), **look | marker)
    axis.fill_between(epochs, [*map(min, errors)], [*map(max, errors)], color=look["color"], alpha=0.13, linewidth=0)


def _errors(accuracies: Curve) -> Curve:
    return {epoch: [max(LOWEST, 100 - value) for value in values] for epoch, values in accuracies.items()}
