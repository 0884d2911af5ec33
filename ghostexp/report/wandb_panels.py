"""What is seen of a study on W&B: the panels of its workspace and its report, in the words of wandb-workspaces."""

from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr

from ghostexp.report.plot_style import axis_key
from ghostexp.report.plots import NAMES
from ghostexp.report.published import published_results
from ghostexp.report.variants import Study, Variant

Panels = list[Any]  # the library's union of panels is private
PUBLISHED = "| arm | published | %% | MACs, M | source |\n| --- | --- | ---: | ---: | --- |\n%s"
MOST = 200  # runs in a plot; W&B stops at ten by itself


def panels_of(study: Study) -> dict[str, Panels]:
    """The panels by section. Every metric in them is one that a run logs; a test compares."""
    return {
        "Results": _results(study),
        "Learning curves": _curves(study),
        "Classes and mistakes": [
            wr.MediaBrowser(title="confusion matrices", media_keys=["test/confusion"], num_columns=2),
            wr.MediaBrowser(title="worst mistakes", media_keys=["test/misclassified"], num_columns=2),
        ],
    }


def _results(study: Study) -> Panels:
    """Accuracy by what is varied, against it where it is a number, against MACs and speed; published values beside."""
    key, score = axis_key(study), study.score_name
    unit = f"test {study.score}, %"
    panels: Panels = []
    if key is not None:
        symbol = NAMES.get(key, key)
        if all(type(level) in (int, float) for level in study.levels(key)):
            x = wr.Config(_path(study, key))
            panels.append(wr.ScatterPlot(title=f"{unit}, against {symbol}", x=x, y=wr.SummaryMetric(score)))
        panels.append(
            wr.BarPlot(
                title=f"{unit}: means and standard errors by {symbol}",
                metrics=[score],
                groupby=wr.Config(_path(study, key)),
                groupby_aggfunc="mean",
                groupby_rangefunc="stderr",
            )
        )
    for metric, said in {"macs": "MACs of one image", "images_per_second": "training speed, images per second"}.items():
        x, y = wr.SummaryMetric(metric), wr.SummaryMetric(score)
        panels.append(wr.ScatterPlot(title=f"{unit}, against {said}", x=x, y=y))
    if rows := published_rows(study.variants):
        panels.append(wr.MarkdownPanel(PUBLISHED % "\n".join(rows)))
    return panels


def published_rows(variants: Sequence[Variant]) -> list[str]:
    """The published values of the arms' networks, as rows of Markdown: a scatter plot of W&B holds runs alone."""
    return [
        f"| {variant.label} | {row.who} | {row.accuracy:.2f} | {row.macs_m or ''} | {row.name}, {row.source} |"
        for variant in variants
        for row in published_results(variant)
    ]


def _curves(study: Study) -> Panels:
    """Figures by epoch: means over the seeds of each value of what is varied, from the lowest to the highest."""
    key = axis_key(study)
    grouped: dict[str, Any] = {}
    if key is not None:
        group = wr.Config(_path(study, key))
        grouped = {"groupby": group, "groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
    titles = {
        study.score_name.replace("test/", "val/"): f"validation {study.score}, %",
        "val/loss": "validation loss",
        "train/loss": "training loss",
        "lr": "learning rate",
    }
    return [
        wr.LinePlot(title=title, x="epoch", y=[metric], title_x="epoch", max_runs_to_show=MOST, **grouped)
        for metric, title in titles.items()
    ]


def _path(study: Study, key: str) -> str:
    """Where a run's configuration has what a study varies: a group's option is among the choices."""
    is_group = any(key in run.config.get("choices", {}) for run in study.runs)
    return f"choices.{key}" if is_group else key
