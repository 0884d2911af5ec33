"""Make the jobs of searches one by one, from what the earlier ones have come to."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ghostexp.runs.csv_table import read_rows, write_rows
from ghostexp.runs.trials import FOLDER, HISTORY, TrialName
from ghostexp.sweeps.jobs import SweepJob
from ghostexp.sweeps.search.budget import Budget
from ghostexp.sweeps.search.journal import Journal
from ghostexp.sweeps.search.progress import SearchProgress
from ghostexp.sweeps.search.trial_search import Step, TrialSearch

MakeJob = Callable[[TrialSearch, Step], SweepJob]


class Steps:
    """Steps of all searches of a command: started, ended, recorded in Optuna's journals and in the history."""

    def __init__(
        self, directory: Path, searches: Sequence[TrialSearch], make_job: MakeJob, budget: Budget, n_jobs: int
    ) -> None:
        self.folder, self.searches, self.make_job, self.budget = directory / FOLDER, list(searches), make_job, budget
        self.journals = [Journal(self.folder, search.sampler) for search in searches]
        self.progress = SearchProgress(self.searches, budget, n_jobs)
        self.running: dict[str, tuple[TrialSearch, Step, float]] = {}  # by name of the job; time of the start
        for search, journal in zip(self.searches, self.journals, strict=True):
            search.attributes.update(journal.restore())
            search.load()
            journal.update(search.observed())

    def next_job(self) -> SweepJob | None:
        """Return the next job; of several searches, that of the one with the fewest epochs. None: not now."""
        if self.budget.is_over:
            return None
        for search in sorted(self.searches, key=lambda one: Budget.spent([one])):
            while step := search.next(partial(self.budget.allows, search, searches=len(self.searches))):
                search.started(step)
                job = self._make_job(search, step)
                self._record(search)
                if job is not None:
                    self.running[job.name] = search, step, time.monotonic()
                    return job
        return None

    def _make_job(self, search: TrialSearch, step: Step) -> SweepJob | None:
        """Compose the job of a step; None if its values do not go together, which is a failure of this trial alone."""
        try:
            return self.make_job(search, step)
        except ValueError as error:
            search.refused(step.name)
            self.progress.failed(SweepJob(search.runs[step.name].run, (), {}), str(error))
            return None

    def ended(self, job: SweepJob, cause: str | None = None) -> bool:
        """Record what a job has come to; returns whether it failed, which a diverged trial has not.

        cause: why its process ended with an error.
        """
        search, step, started = self.running.pop(job.name)
        trial = search.ended(step.name)
        cause = None if trial.is_diverged else cause or trial.failure
        if cause is None:
            self.progress.trained(trial, job.distinguishing_overrides, time.monotonic() - started)
            self._note(step.name, trial.epochs, trial.figures.get(max(trial.figures, default=0)))
        else:
            self.progress.failed(job, cause)
        self._record(search)
        return cause is not None

    @property
    def lacks_metric(self) -> bool:
        """Return whether a run has ended without the compared metric, so that all others would be trained in vain."""
        return any(search.lacks_metric for search in self.searches)

    def close(self) -> None:
        """Record that the searches are over: those that wait at a rung are stopped."""
        for search, journal in zip(self.searches, self.journals, strict=True):
            journal.update(search.observed(), is_over=True)

    def _record(self, search: TrialSearch) -> None:
        self.journals[self.searches.index(search)].update(search.observed())

    def _note(self, name: TrialName, epochs: int, figure: float | None) -> None:
        """Add a row to the history."""
        row = {"spent": Budget.trained(self.searches), "run": str(name), "epochs": epochs, "figure": figure}
        path = self.folder / HISTORY
        write_rows(path, [*read_rows(path), row])
