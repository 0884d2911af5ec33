"""Format the tables of a search: winners, best configurations, rungs, and a row for each run."""

from collections.abc import Sequence
from typing import Any

from ghostexp.report.search_runs import Group, test_figure
from ghostexp.report.statistics import Estimate, paired
from ghostexp.report.tables import difference_text, interval
from ghostexp.runs.metrics import Metric, format_number
from ghostexp.runs.text_files import markdown_table
from ghostexp.runs.trials import TrialRun

SHOWN = 5  # best trials of each search


def winners(groups: Sequence[Group]) -> str:
    """Return the table of winners, or of Pareto sets: the searched figure, and that of fresh seeds beside it."""
    record, has_tests = groups[0].record, any(group.has_tests for group in groups)
    compares = has_tests and len(groups) > 1 and not record.cost
    head = ["search", *record.space, "validation (searched)", record.cost or "before the next, paired"]
    tested = next((group.test_metric for group in groups if group.has_tests), groups[0].metric)
    same = tested.title == groups[0].metric.title
    head += [f"test{'' if same else f' {tested.title}'}, fresh seeds"] * has_tests + [
        f"difference to {groups[0].label}, paired"
    ] * compares
    rows = []
    for group in groups:
        for number in group.finalists:
            row = [_label(group), *group.values[number].values()]
            row += [figure_text(group.estimate_of(number), group.metric)]
            row += [cost_text(group.costs[number]) if record.cost else _next(group)]
            row += [figure_text(group.estimate_of_tests(number), group.test_metric)] * has_tests + [
                _difference(group, groups[0])
            ] * compares
            rows.append(row)
        if not group.finalists:
            rows.append([_label(group), *([""] * (len(head) - 2)), "open"])
    return markdown_table(head, rows)


def _label(group: Group) -> str:
    return group.label or group.record.sampler


def _difference(group: Group, first: Group) -> str:
    if group is first or not group.finalists or not first.finalists:
        return ""
    metric = group.test_metric
    found = paired(group.tests_of(group.finalists[0]), first.tests_of(first.finalists[0]), metric.difference_range)
    return difference_text(found.estimate, metric) if found else ""


def cost_text(cost: float) -> str:
    """Format MACs or parameters, or milliseconds."""
    return f"{cost:,}" if isinstance(cost, int) else format_number(cost)


def _next(group: Group) -> str:
    found = group.runner_up
    if found is None:
        return "no other is left"
    return f"{difference_text(found.estimate, group.metric)} (n = {found.estimate.n})"


def figure_text(found: Estimate | None, metric: Metric) -> str:
    """Format a mean with its interval and number of seeds: `93.50 % [92.10, 94.90], n = 3`."""
    if found is None:
        return ""
    return f"{metric.text(found.mean)} {interval(found, metric)}".rstrip() + f", n = {found.n}"


def best_trials(group: Group) -> str:
    """Return the table of the best trials."""
    head = ["trial", *group.record.space, "epochs", "validation", "state"]
    rows = []
    for run in group.best[:SHOWN]:
        number = run.name.number
        text = figure_text(group.estimate_of(number), group.metric)
        rows.append([number, *group.values[number].values(), run.epochs, text, state(group, run)])
    return markdown_table(head, rows)


def state(group: Group, run: TrialRun) -> str:
    """Describe where a trial is."""
    if run.is_diverged:
        return "diverged"
    if run.result is not None:
        best = "Pareto set" if group.record.cost else "winner"
        return best if run.name.number in group.finalists else "trained to the end"
    if run.failure is not None:
        return "failed"
    level = group.record.level(run)
    return f"stopped after epoch {group.record.stages[level - 1]}" if level else "unfinished"


def rungs(groups: Sequence[Group]) -> str:
    """Return the table of rungs: how many trials have reached each, and how many went on."""
    stages = groups[0].record.stages
    trials = [(group, run) for group in groups for run in group.trials]
    reached = [sum(group.record.level(run) > number for group, run in trials) for number in range(len(stages))]
    diverged = [
        sum(run.is_diverged and group.record.level(run) == number for group, run in trials)
        for number in range(len(stages))
    ]
    rows = [
        [epochs, reached[number], reached[number + 1] if number + 1 < len(stages) else "", diverged[number]]
        for number, epochs in enumerate(stages)
    ]
    head = ["rung, epochs", "trials that reached it", "of which reached the next", "diverged before it"]
    return markdown_table(head, rows)


def run_rows(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Return a row for each run, for CSV."""
    return [
        {
            "run": str(run.name),
            **dict(text.split("=", 1) for text in group.overrides),
            **group.values[run.name.number],
            "seed": run.name.seed,
            "state": "test" if run.name.is_test else state(group, run),
            "epochs": run.epochs,
            group.record.metric: run.figures[max(run.figures)] if run.figures else "",
            "test": test_figure(run) if run.result else "",
        }
        for group in groups
        for run in group.runs
    ]
