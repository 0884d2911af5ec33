"""Build the panels of a study's workspace and report on W&B with wandb-workspaces."""

from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr

from ghostexp.report.plot_style import axis_key
from ghostexp.report.plots import AXIS_TITLES
from ghostexp.report.published import published_results
from ghostexp.report.variants import Study, Variant
from ghostexp.runs.text_files import markdown_table

Panels = list[Any]  # the library's union type of panels is private
PUBLISHED = ("variant", "published", "%", "MACs, M", "source")
MOST = 200  # runs in a plot; W&B's default is ten


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
    key, metric = axis_key(study), study.metric
    unit = f"test {study.metric_label}"
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
    titles = {
        study.metric.replace("test/", "val/"): f"validation {study.metric_label}",
        "val/loss": "validation loss",
        "train/loss": "training loss",
        "lr": "learning rate",
    }
    return [
        wr.LinePlot(title=title, x="epoch", y=[metric], title_x="epoch", max_runs_to_show=MOST, **grouped)
        for metric, title in titles.items()
    ]


def _path(study: Study, key: str) -> str:
    """Return the path of a varied key in the configuration; the option of a group is under `choices`."""
    is_group = any(key in run.config.get("choices", {}) for run in study.runs)
    return f"choices.{key}" if is_group else key
