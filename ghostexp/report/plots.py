"""Plot the accuracies of a study against a varied key, against cost, and as differences to the baselines."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes

from ghostexp.report.finalists import pareto_set
from ghostexp.report.plot_style import (
    axis_key,
    axis_positions,
    describe_means,
    dots,
    group_series,
    has_numbers,
    legend_label,
    line,
    literal_text,
    new_figure,
    plain_log,
    point,
    save,
    style,
    tick_labels,
    variant_styles,
)
from ghostexp.report.published import PublishedMatch, published_results
from ghostexp.report.tables import baseline_label
from ghostexp.report.text import CLAIM, has_claim
from ghostexp.report.variants import Study, Variant, as_text

AXIS_TITLES = {"model.ratio": "ratio s", "model.dw_size": "side d of the cheap filters, pixels"}
PUBLISHED = {"paper": "*", "replication": "P"}
WIDE = 3  # ratio of largest to smallest cost from which an axis is logarithmic


@literal_text
def draw_accuracy(study: Study, title: str, path: Path) -> Path | None:
    """Plot accuracy against the key with the most values, a series per combination of the others."""
    key = axis_key(study)
    if key is None:
        return None
    positions, series = axis_positions(study, key), group_series(study)
    are_numbers = has_numbers(study, key)
    step = 0.016 * (max(positions.values()) - min(positions.values())) if are_numbers else 0.16
    figure = new_figure(7, 4.2)
    axis = figure.subplots()
    varied = {name: variants for name, variants in series.items() if len(variants) > 1} or series
    alone = [variants[0] for name, variants in series.items() if name not in varied]
    ordinary = [variant for variant in alone if variant.is_ordinary]
    ghosts = [variant for variant in alone if not variant.is_ordinary]
    styles, count = variant_styles(study), len(varied) + len(ghosts)
    for variant in ordinary:
        _level(axis, variant, styles[id(variant)])
    for number, variant in enumerate(ghosts, len(varied)):
        _level(axis, variant, style(number, count))
    for number, (name, variants) in enumerate(varied.items()):
        look = style(number, count)
        shift = step * (number - (len(varied) - 1) / 2)
        at = {id(variant): positions[as_text(variant.values[key])] + shift for variant in variants}
        if are_numbers:
            axis.plot(
                [at[id(variant)] for variant in variants], [variant.accuracy.mean for variant in variants], **line(look)
            )
        for variant in variants:
            point(axis, at[id(variant)], variant, look, name if variant is variants[0] else None)
            seeds = list(variant.by_seed.values())
            dots(axis, [at[id(variant)] - 0.45 * step] * len(seeds), seeds, look)
            _mark(axis, at[id(variant)], published_results(variant))
    axis.set(xlabel=AXIS_TITLES.get(key, key), ylabel=f"test {study.metric.label}")
    axis.set_xticks(list(positions.values()), tick_labels(study, key))
    _finish(axis)
    return save(figure, f"{title}\n{describe_means(study.variants)}; dots: seeds", path)


def _level(axis: Axes, variant: Variant, look: dict[str, Any]) -> None:
    """Plot a variant as a horizontal line with its interval as a band."""
    suffix = ", mean and 95 % interval" if variant.accuracy.interval else ", mean"
    kept = {key: look[key] for key in ("color", "linestyle")}
    axis.axhline(variant.accuracy.mean, label=legend_label(variant.label + suffix), **kept)
    if variant.accuracy.interval:
        axis.axhspan(*variant.accuracy.interval, color=look["color"], alpha=0.13, linewidth=0, zorder=0)


def _mark(axis: Axes, x: float, rows: Sequence[PublishedMatch]) -> None:
    for row in rows:
        marker = PUBLISHED[row.who]
        axis.plot(x, row.accuracy, marker, color="black", markerfacecolor="white", markersize=10, label=row.who)


def _finish(axis: Axes) -> None:
    """Add a grid and a legend with each label once."""
    axis.grid(alpha=0.3)
    handles, labels = _once(axis)
    if handles:
        axis.legend(handles, labels, fontsize=8)


def _once(axis: Axes) -> tuple[list[Artist], list[str]]:
    """Return the handles and labels of an axis, each label once and none empty."""
    handles, labels = axis.get_legend_handles_labels()
    once = {label: handle for label, handle in zip(labels, handles, strict=True) if label}
    return list(once.values()), list(once)


@literal_text
def draw_pareto(study: Study, title: str, path: Path) -> Path | None:
    """Plot accuracy against MACs and, if comparable, seconds of training; a step line is the Pareto front of the means.

    Nothing is drawn if the variants of each series have equal MACs.
    """
    if all(len({variant.median("macs") for variant in variants}) == 1 for variants in group_series(study).values()):
        return None
    timed = study.timed_variants if study.has_even_speeds else []
    columns = 1 + (len(timed) > 1)
    figure = new_figure(2 + 5 * columns, 4.4)
    left, *others = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    _against(left, study, study.variants, "macs", 1e6)
    for right in others:
        _against(right, study, timed, "train_seconds", 1)
        right.set_xlabel(f"seconds of training (bars: fastest to slowest run)\n{timed[0].runs[0].machine}")
    for variant in study.variants:
        macs = (variant.median("macs") or 0) / 1e6
        for row in published_results(variant):
            _mark(left, row.macs_m or macs, [row])
    left.set(xlabel="MACs of one image, millions", ylabel=f"test {study.metric.label}")
    for axis in (left, *others):
        axis.grid(alpha=0.3)
    handles, labels = _once(left)
    figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
    has_dots = any(variant.accuracy.n > 1 and not variant.accuracy.interval for variant in study.variants)
    seeds = "; dots: seeds" if has_dots else ""
    where = f"{describe_means(study.variants)}{seeds}; line: no other mean is better at less cost"
    return save(figure, f"{title}\n{where}", path)


def _against(axis: Axes, study: Study, variants: Sequence[Variant], key: str, unit: float) -> None:
    """Plot the accuracy of some variants against a cost in result.json."""
    known = [(value / unit, variant) for variant in variants if (value := variant.median(key)) is not None]
    styles = variant_styles(study)
    for value, variant in known:
        look = styles[id(variant)]
        runs = [run for run in variant.runs if run.result.get(key) is not None]
        spent = [run.result[key] / unit for run in runs]
        axis.plot([min(spent), max(spent)], [variant.accuracy.mean] * 2, color=look["color"], linewidth=1)
        if not variant.accuracy.interval:
            dots(axis, spent, [run.accuracy for run in runs], look)
        point(axis, value, variant, look, variant.label)
    sign = 1 if study.metric.higher_is_better else -1
    costs, means = [value for value, _ in known], [variant.accuracy.mean for _, variant in known]
    best = pareto_set({number: sign * mean for number, mean in enumerate(means)}, dict(enumerate(costs)))
    x, y = [costs[number] for number in best], [means[number] for number in best]
    axis.plot(x, y, color="0.4", linewidth=0.8, drawstyle="steps-post", zorder=0)
    if known and max(costs) > WIDE * min(costs):
        plain_log(axis, "x")
    axis.margins(x=0.12)


@literal_text
def draw_differences(study: Study, title: str, path: Path) -> Path | None:
    """Plot each variant's difference to its baseline, with the differences of single seeds."""
    variants = [variant for variant in study.variants if variant.difference][::-1]
    if not variants:
        return None
    figure = new_figure(7, 1.6 + 0.32 * len(variants))
    axis = figure.subplots()
    for number, variant in enumerate(variants):
        assert variant.difference is not None
        found, seeds = variant.difference.estimate, list(variant.difference.differences.values())
        axis.plot(seeds, [number + 0.18] * len(seeds), ".", color="0.6", markersize=4)
        spread = [[found.mean - found.interval[0]], [found.interval[1] - found.mean]] if found.interval else None
        axis.errorbar([found.mean], [number], xerr=spread, fmt="o", color="black", capsize=3, markersize=5)
    axis.axvline(0, color="black", linewidth=0.8)
    if has_claim(study):
        axis.axvline(-CLAIM, color="0.4", linestyle=":", label=f"a replication's claim for s = 10: above -{CLAIM}")
        figure.legend(loc="outside lower center", fontsize=8, frameon=False)
    has_interval = any(variant.difference and variant.difference.estimate.interval for variant in variants)
    intervals = " with 95 % intervals" if has_interval else ""
    axis.set_yticks(range(len(variants)), [variant.label for variant in variants])
    axis.set(
        xlabel=study.metric.difference_label(f"test {study.metric.title} minus that of {baseline_label(study)}"),
        ylim=(-0.6, len(variants) - 0.3),
    )
    axis.grid(alpha=0.3)
    return save(figure, f"{title}\nmeans of paired differences{intervals}; dots: seeds", path)
