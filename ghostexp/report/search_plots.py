"""Plot a search: the best so far by epochs spent, importances, and a slice for each searched key."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from ghostexp.report.plot_style import legend_label, line, literal_text, new_figure, save, style
from ghostexp.report.search_runs import Group
from ghostexp.runs.csv_table import read_rows
from ghostexp.runs.metrics import metric_unit
from ghostexp.runs.trials import FOLDER, HISTORY, TrialName, parse_name

FEWEST = 4  # trials from which importances are computed


def axis_label(group: Group) -> str:
    """Return the name of the compared figure with its unit."""
    metric = group.record.metric
    return f"{metric}, %" if metric_unit(metric) else metric


@literal_text
def draw_progress(groups: Sequence[Group], title: str, path: Path, folder: Path) -> Path | None:
    """Plot the best figure of a fully trained trial by the epochs that the search had spent, and all figures."""
    rows = [(parse_name(row["run"]), row) for row in read_rows(folder / FOLDER / HISTORY) if row.get("figure")]
    figure = new_figure(7, 4)
    axis, has_any = figure.subplots(), False
    for number, group in enumerate(groups):
        first = group.record.seeds[0]
        named = [(name, row) for name, row in rows if name and name == TrialName(group.name, name.number, first)]
        ours, ended = [row for _, row in named], {run.name.number: run.epochs for run in group.trials if run.result}
        spent, figures = [int(row["spent"]) for row in ours], [float(row["figure"]) for row in ours]
        look = style(number, len(groups))
        axis.plot(spent, figures, ".", color=look["color"], alpha=0.4)
        is_whole = [int(row["epochs"]) == ended.get(name.number) for name, row in named]
        best = _best_so_far([figure for figure, whole in zip(figures, is_whole, strict=True) if whole], group)
        if best:
            has_any = True
            at = [epochs for epochs, whole in zip(spent, is_whole, strict=True) if whole]
            axis.step(at, best, where="post", label=legend_label(group.label or "best so far"), **line(look))
    if not has_any:
        return None
    axis.set(xlabel="epochs trained by the search", ylabel=axis_label(groups[0]))
    axis.legend(fontsize=7)
    axis.grid(alpha=0.3)
    return save(figure, f"{title}\nlines: best trial trained to the end; points: every step of the first seed", path)


def _best_so_far(figures: Sequence[float], group: Group) -> list[float]:
    better = max if group.record.sign > 0 else min
    return list(itertools.accumulate(figures, better))


def importances(group: Group) -> dict[str, float] | None:
    """Compute by PED-ANOVA what share of being good each key decides, from the first rung, which all trials reach.

    None: too few trials, or Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        return None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    known = group.first_figures
    distributions = {key: _distribution(optuna, group, key, known) for key in group.record.space}
    varied = {key: found for key, found in distributions.items() if found is not None}
    if len(known) < FEWEST or len(varied) < 2 or len({*known.values()}) < 2:
        return None
    study = optuna.create_study(direction="maximize" if group.record.sign > 0 else "minimize")
    for number, value in known.items():
        params = {key: _value(group, key, number) for key in varied}
        study.add_trial(optuna.trial.create_trial(value=value, params=params, distributions=varied))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def is_numeric(group: Group, key: str) -> bool:
    """Return whether the values of a key are numbers of an interval or a range."""
    return "choice(" not in group.record.space[key]


def is_log(group: Group, key: str) -> bool:
    """Return whether a key is searched on a logarithmic scale."""
    return key in group.record.space and is_numeric(group, key) and "log" in group.record.space[key]


def _value(group: Group, key: str, number: int) -> Any:
    text = group.values[number][key]
    return float(text) if is_numeric(group, key) else text


def _distribution(optuna: Any, group: Group, key: str, numbers: Mapping[int, float]) -> Any:
    values = [_value(group, key, number) for number in numbers]
    if len({*values}) < 2:
        return None
    if not is_numeric(group, key):
        return optuna.distributions.CategoricalDistribution(sorted({*values}))
    return optuna.distributions.FloatDistribution(min(values), max(values), log=is_log(group, key))


@literal_text
def draw_importances(groups: Sequence[Group], title: str, path: Path) -> Path | None:
    """Plot the importances of the keys, a bar for each search."""
    found = [(group, shares) for group in groups if (shares := importances(group))]
    if not found:
        return None
    keys = list(groups[0].record.space)
    figure = new_figure(7, 1.4 + 0.3 * len(keys) * len(found))
    axis = figure.subplots()
    height = 0.8 / len(found)
    for number, (group, shares) in enumerate(found):
        at = [position + number * height for position in range(len(keys))]
        widths = [shares.get(key, 0.0) for key in keys]
        label = legend_label(group.label) if group.label else None
        axis.barh(at, widths, 0.9 * height, color=style(number, len(found))["color"], label=label)
    axis.set_yticks([position + 0.4 - height / 2 for position in range(len(keys))], keys)
    where = ", at the first rung" if groups[0].record.rungs else ""
    axis.set(xlabel=f"importance (PED-ANOVA){where}")
    if len(found) > 1:
        axis.legend(fontsize=7)
    return save(figure, title, path)


@literal_text
def draw_pareto(groups: Sequence[Group], title: str, path: Path) -> Path | None:
    """Plot the figures of trained trials against their cost, the Pareto set connected; None without a cost."""
    if not any(group.costs for group in groups):
        return None
    figure = new_figure(7, 4)
    axis = figure.subplots()
    for number, group in enumerate(groups):
        look = style(number, len(groups))
        estimates = {trial: found.mean for trial in group.costs if (found := group.estimate_of(trial))}
        costs = [group.costs[trial] for trial in estimates]
        axis.scatter(costs, list(estimates.values()), s=28, facecolors="none", edgecolors=look["color"])
        best = [trial for trial in group.finalists if trial in estimates]
        label = legend_label(group.label) if group.label else None
        axis.plot([group.costs[trial] for trial in best], [estimates[trial] for trial in best], label=label, **look)
    axis.set(xlabel=groups[0].record.cost, ylabel=axis_label(groups[0]))
    if len(groups) > 1:
        axis.legend(fontsize=7)
    axis.grid(alpha=0.3)
    return save(figure, title, path)


@literal_text
def draw_slices(groups: Sequence[Group], title: str, path: Path) -> Path | None:
    """Plot the metric of every trial at the first rung, or at the end, against the values of each key."""
    keys = list(groups[0].record.space)
    figure = new_figure(1 + 3.2 * len(keys), 3.6)
    axes = figure.subplots(1, len(keys), squeeze=False, sharey=True)[0]
    first = groups[0].record.stages[0]
    for axis, key in zip(axes, keys, strict=True):
        if not is_numeric(groups[0], key):
            axis.xaxis.update_units(sorted({values[key] for group in groups for values in group.values.values()}))
        for number, group in enumerate(groups):
            _draw_slice(axis, group, key, first, style(number, len(groups)))
        axis.set(xlabel=key)
        if is_log(groups[0], key):
            axis.set(xscale="log")
            axis.xaxis.set_major_formatter("{x:g}")
        axis.grid(alpha=0.3)
    axes[0].set(ylabel=f"{axis_label(groups[0])}, epoch {first}")
    if len(groups) > 1:
        axes[0].legend(fontsize=7)
    if not any(group.first_figures for group in groups):
        return None
    filled = "\nfilled: went on from the first rung" if groups[0].record.rungs else ""
    return save(figure, f"{title}{filled}", path)


def _draw_slice(axis: Axes, group: Group, key: str, first: int, look: Mapping[str, Any]) -> None:
    if group.label:
        axis.scatter([], [], s=28, marker=look["marker"], color=look["color"], label=legend_label(group.label))
    for is_filled in (False, True):
        runs = [run for run in group.trials if run.name.number in group.first_figures]
        runs = [run for run in runs if (run.epochs > first or not group.record.rungs) == is_filled]
        values = [_value(group, key, run.name.number) for run in runs]
        colors = {"color": look["color"]} if is_filled else {"facecolors": "none", "edgecolors": look["color"]}
        if values:
            figures = [group.first_figures[run.name.number] for run in runs]
            axis.scatter(values, figures, s=28, marker=look["marker"], **colors)
