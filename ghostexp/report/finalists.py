"""Choose the trials that a search ends with: its winner, or with a cost the Pareto set."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from ghostexp.report.racing import contenders, winner
from ghostexp.runs.trials import SearchRecord, TrialRun


def finalists(runs: Sequence[TrialRun], record: SearchRecord) -> list[int]:
    """Return the winner, or the Pareto set of figure and cost, the cheapest first; empty while it is open."""
    figures = contender_figures(runs, record)
    if record.cost is None:
        best = winner(figures, record.seeds)
        return [] if best is None else [best]
    ended = {number: some for number, some in figures.items() if {*some} >= {*record.seeds}}
    if len(ended) < len(figures):
        return []
    means = {number: statistics.fmean(some.values()) for number, some in ended.items()}
    return pareto_set(means, costs_of(runs, record))


def contender_figures(runs: Iterable[TrialRun], record: SearchRecord) -> dict[int, dict[int, float]]:
    """Return the figures of the trials that get further seeds, by trial and seed; more is better."""
    runs = list(runs)
    ended = [run for run in runs if not run.name.is_test and (run.result is not None or run.is_diverged)]
    figures = {(run.name.number, run.name.seed): signed_figure(run, record) for run in ended}
    first = {number: value for (number, seed), value in figures.items() if seed == record.seeds[0]}
    chosen = pareto_set(first, costs_of(runs, record)) if record.cost else contenders(first, record.contenders)
    return {
        number: {seed: figures[number, seed] for seed in record.seeds if (number, seed) in figures} for number in chosen
    }


def signed_figure(trial: TrialRun, record: SearchRecord, until: float = math.inf) -> float:
    """Return a trial's last figure up to an epoch, of which more is better; -inf if it has diverged, later too."""
    known = [epochs for epochs in trial.figures if epochs <= until]
    return -math.inf if trial.is_diverged or not known else record.sign * trial.figures[max(known)]


def costs_of(runs: Iterable[TrialRun], record: SearchRecord) -> dict[int, float]:
    """Return the cost of each trained trial; latency_ms is measured with the first seed only."""
    found = ((run.name.number, (run.result or {}).get(record.cost or "")) for run in runs if not run.name.is_test)
    return {number: cost for number, cost in found if cost is not None}


def pareto_set(figures: Mapping[int, float], costs: Mapping[int, float]) -> list[int]:
    """Return the keys that no other equals or beats in both; more of a figure is better, and less of a cost."""
    ranked = sorted(figures.keys() & costs.keys(), key=lambda number: (costs[number], -figures[number], number))
    best, found = -math.inf, []
    for number in ranked:
        if figures[number] > best:
            best = figures[number]
            found.append(number)
    return found
