"""Build the panels of a W&B workspace and report, of a study or a search, with wandb-workspaces."""

from collections.abc import Mapping, Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr
from wandb_workspaces.reports.v2.interface import ParallelCoordinatesPlotColumn

from ghostexp.report.plot_style import axis_key
from ghostexp.report.plots import AXIS_TITLES
from ghostexp.report.published import published_results
from ghostexp.report.search_plots import is_log, is_numeric
from ghostexp.report.search_runs import Group
from ghostexp.report.variants import Study, Variant
from ghostexp.runs.text_files import markdown_table

Panels = list[Any]  # the library's union type of panels is private
PUBLISHED = ("variant", "published", "%", "MACs, M", "source")
MOST = 200  # runs in a plot; W&B's default is ten
LOSSES = {"val/loss": "validation loss", "train/loss": "training loss", "lr": "learning rate"}


def build_panels(study: Study) -> dict[str, Panels]:
    """Build the panels by section. Every metric in them is logged by a run; a test compares."""
    return {
        "Results": _results(study),
        "Learning curves": _curves(study),
        "Classes and mistakes": [
            wr.MediaBrowser(title="confusion matrices", media_keys=["test/confusion"], num_columns=2),
            wr.MediaBrowser(title="worst mistakes", media_keys=["test/misclassified"], num_columns=2),
        ],
    }


def _results(study: Study) -> Panels:
    """Build panels of accuracy by the varied key, against it if numeric, MACs and speed, and published values."""
    key, metric = axis_key(study), study.metric.name
    unit = f"test {study.metric.label}"
    panels: Panels = []
    if key is not None:
        symbol = AXIS_TITLES.get(key, key)
        if all(type(level) in (int, float) for level in study.levels(key)):
            x = wr.Config(_path(study, key))
            panels.append(wr.ScatterPlot(title=f"{unit}, against {symbol}", x=x, y=wr.SummaryMetric(metric)))
        panels.append(
            wr.BarPlot(
                title=f"{unit}: means and standard errors by {symbol}",
                metrics=[metric],
                groupby=wr.Config(_path(study, key)),
                groupby_aggfunc="mean",
                groupby_rangefunc="stderr",
            )
        )
    for cost, name in {"macs": "MACs of one image", "images_per_second": "training speed, images per second"}.items():
        x, y = wr.SummaryMetric(cost), wr.SummaryMetric(metric)
        panels.append(wr.ScatterPlot(title=f"{unit}, against {name}", x=x, y=y))
    if rows := published_rows(study.variants):
        panels.append(wr.MarkdownPanel(markdown_table(PUBLISHED, rows)))
    return panels


def published_rows(variants: Sequence[Variant]) -> list[Sequence[object]]:
    """Return published values as rows of a table; scatter plots of W&B have only runs."""
    return [
        (variant.label, row.who, f"{row.accuracy:.2f}", row.macs_m or "", f"{row.name}, {row.source}")
        for variant in variants
        for row in published_results(variant)
    ]


def _curves(study: Study) -> Panels:
    """Build panels by epoch: mean over seeds per value of the varied key, with lowest and highest."""
    key = axis_key(study)
    grouped: dict[str, Any] = {}
    if key is not None:
        group = wr.Config(_path(study, key))
        grouped = {"groupby": group, "groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
    metric = study.metric
    titles = {metric.name.replace("test/", "val/"): f"validation {metric.label}"}
    return [_curve(name, title, **grouped) for name, title in (titles | LOSSES).items()]


def _curve(metric: str, title: str, **grouped: Any) -> Any:
    return wr.LinePlot(title=title, x="epoch", y=[metric], title_x="epoch", max_runs_to_show=MOST, **grouped)


def _path(study: Study, key: str) -> str:
    """Return the path of a varied key in the configuration; the option of a group is under `choices`."""
    is_group = any(key in run.config.get("choices", {}) for run in study.runs)
    return f"choices.{key}" if is_group else key


def build_search_panels(groups: Sequence[Group], choices: Mapping[str, Any]) -> dict[str, Panels]:
    """Build the panels of a search by section. choices: the options of a trial, by group of conf/."""
    record = groups[0].record
    metric, title = record.metric, f"{record.metric} of each trial"
    grid = dict.fromkeys(text.partition("=")[0] for text in groups[0].overrides)
    keys = {key: wr.Config(f"choices.{key}" if key in choices else key) for key in (*grid, *record.space)}
    costs = [wr.SummaryMetric(record.cost)] if record.cost else []
    columns = [
        ParallelCoordinatesPlotColumn(keys[key], display_name=key, log=is_log(groups[0], key) or None) for key in keys
    ]
    columns += [ParallelCoordinatesPlotColumn(found) for found in (*costs, wr.SummaryMetric(metric))]
    panels: Panels = [
        wr.ParallelCoordinatesPlot(title=title, columns=columns),
        wr.ParameterImportancePlot(with_respect_to=metric),
    ]
    axes = {key: keys[key] for key in record.space if is_numeric(groups[0], key)}
    for name, x in (axes | {found.name: found for found in costs}).items():
        y, is_scaled = wr.SummaryMetric(metric), is_log(groups[0], name)
        panels.append(wr.ScatterPlot(title=f"{title}, against {name}", x=x, y=y, log_x=is_scaled or None))
    curves = [_curve(name, label) for name, label in ({metric: metric} | LOSSES).items()]
    return {"Search": panels, "Learning curves": curves}
