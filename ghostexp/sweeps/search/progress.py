"""Print the progress of a search: a line for each run that ends, pauses or diverges, and the winner."""

import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ghostexp.report.finalists import contender_figures
from ghostexp.runs.metrics import format_metric
from ghostexp.runs.trials import TrialRun
from ghostexp.sweeps.jobs import SweepJob
from ghostexp.sweeps.progress import SweepProgress, format_seconds
from ghostexp.sweeps.search.budget import Budget
from ghostexp.sweeps.search.trial_search import TrialSearch


class SearchProgress(SweepProgress):
    """Progress of a search, whose number of jobs is not known before its end."""

    def __init__(self, searches: Sequence[TrialSearch], budget: Budget, n_jobs: int) -> None:
        super().__init__([], n_jobs)
        self.searches, self.budget = searches, budget
        self.metric = searches[0].record.metric

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
        for search in self.searches:
            self.console.print(f"{search.group}: {state_text(search)}".removeprefix(": "), markup=False)
        left = self.budget.left(self.searches)
        seconds = format_seconds(time.monotonic() - self.started)
        ended = f"{self.done} runs in {seconds}, {len(self.failures)} failed"
        self.console.print(f"{ended}{f'; {left}' if left else ''}", markup=False)

    def show(self, running: int, waiting: int) -> None:
        """Update the counts."""
        left = self.budget.left(self.searches)
        state = f"{self.done} done, {running} running, {len(self.failures)} failed{f', {left}' if left else ''}"
        self.bar.update(self.task, state=state)

    def trained(self, trial: TrialRun, overrides: Sequence[str], seconds: float) -> None:
        """Count and print a run that was trained to a rung or to its end."""
        self.done += 1
        figure = "diverged" if trial.is_diverged else self._figure(trial)
        values = " ".join(text for text in overrides if not text.startswith("seed="))
        text = f"{trial.epochs:>4} epochs  {figure:>9}  {format_seconds(seconds):>7}  {values}"
        self.console.print(f"{trial.name}  {text}", markup=False)

    def failed(self, job: SweepJob, cause: str) -> None:
        """Count and print a failed run."""
        self.failures.append((job, cause))
        self.console.print(f"{job.name}  failed: {cause}", markup=False)

    def _figure(self, trial: TrialRun) -> str:
        return format_metric(self.metric, trial.figures[max(trial.figures)]) if trial.figures else ""


def state_text(search: TrialSearch) -> str:
    """Describe what a search has found."""
    first = search.first_seed
    counts = {
        "trained to the end": sum(trial.result is not None for trial in first),
        "diverged": sum(trial.is_diverged for trial in first),
    }
    others = len(first) - sum(counts.values())
    counts |= {"stopped at a rung": others} if search.record.rungs else {"unfinished": others}
    texts = [f"{len(first)} trials", *(f"{count} {what}" for what, count in counts.items() if count)]
    return f"{', '.join(texts)}; {_winner_text(search)}"


def _winner_text(search: TrialSearch) -> str:
    record, numbers = search.record, search.finalists
    if not numbers:
        return "no winner yet"
    if record.cost:
        return f"{len(numbers)} trials in the Pareto set of {record.metric} and {record.cost}"
    figures = [record.sign * value for value in contender_figures(search.runs.values(), record)[numbers[0]].values()]
    mean = format_metric(record.metric, statistics.fmean(figures))
    values = " ".join(f"{key}={text}" for key, text in search.values[numbers[0]].items())
    return f"best: {values} ({mean} on the validation set, {len(figures)} seed{'s' * (len(figures) > 1)})"


def print_trials(directory: Path, searches: Sequence[TrialSearch], budget: Budget, n_jobs: int) -> None:
    """Print what a search would run: its space, rungs, seeds and budget, and the trials that there are."""
    record = searches[0].record
    grid: dict[str, dict[str, None]] = {}
    for key, _, value in (text.partition("=") for search in searches for text in record.groups[search.group]):
        grid.setdefault(key, {})[value] = None
    print(*(f"{key}={text}" for key, text in record.space.items()), sep="\n")
    print(*(f"{key}={','.join(values)}" for key, values in grid.items()), sep="\n", end="\n" if grid else "")
    for search in searches:
        search.load()
        for trial in sorted(search.runs.values(), key=lambda one: one.name):
            state = "finished" if trial.result else "diverged" if trial.is_diverged else f"{trial.epochs} epochs"
            print(f"{state:<10}  {trial.run.path}")
    limit = math.inf if record.trials is None else record.trials
    trials = min(limit, searches[0].sampler.size)
    per = f" for each of {len(searches)} values of the grid" if len(searches) > 1 else ""
    print(f"search={record.sampler}: {trials} trials{per} in {directory}, {n_jobs} at a time")
    metrics = f"{record.metric}{f' and {record.cost}' if record.cost else ''}"
    rungs = f"; after {_list(record.rungs)} epochs only the best 1/{record.factor:g} go on" if record.rungs else ""
    print(f"each is trained {record.epochs} epochs and compared by {metrics}{rungs}")
    first, *others = record.seeds
    best = "the Pareto set" if record.cost else f"the best {record.contenders}"
    further = f"; {best} with {_seeds(others)} too" if others else ""
    winner = "each of the Pareto set" if record.cost else "the winner"
    tests = f"; {winner} is trained anew and tested with {_seeds(record.test_seeds)}" if record.test_seeds else ""
    print(f"seed {first}{further}{tests}")
    if left := budget.left(searches):
        print(left)


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {_list(seeds)}"


def _list(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
