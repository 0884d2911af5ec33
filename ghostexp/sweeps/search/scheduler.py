"""Run the steps of searches on the slots of this machine."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ghostexp.runner.resources import ResourcePool
from ghostexp.runs.csv_table import read_rows, write_rows
from ghostexp.runs.trials import FOLDER, HISTORY, TrialName
from ghostexp.sweeps.jobs import SweepJob
from ghostexp.sweeps.local_jobs import JobScheduler
from ghostexp.sweeps.search.budget import Budget
from ghostexp.sweeps.search.journal import Journal
from ghostexp.sweeps.search.progress import SearchProgress
from ghostexp.sweeps.search.trial_search import Step, TrialSearch

MakeJob = Callable[[TrialSearch, Step], SweepJob]


class SearchScheduler(JobScheduler):
    """Scheduler whose jobs are made when a slot is free, from what the earlier ones have come to."""

    progress: SearchProgress

    def __init__(
        self,
        directory: Path,
        searches: Sequence[TrialSearch],
        make_job: MakeJob,
        budget: Budget,
        pool: ResourcePool,
        fail_fast: bool,
    ) -> None:
        super().__init__(directory, [], pool, fail_fast)
        self.searches, self.make_job, self.budget = list(searches), make_job, budget
        self.journals = [Journal(directory / FOLDER, search.sampler) for search in searches]
        self.progress = SearchProgress(self.searches, budget, pool.n_jobs)
        self.steps: dict[str, tuple[TrialSearch, Step, float]] = {}  # by name of the job; time of the start
        for search, journal in zip(self.searches, self.journals, strict=True):
            search.attributes.update(journal.open())
            search.load()
            journal.update(search.observed())

    def run(self) -> int:
        """Run the searches and return the exit code."""
        code = super().run()
        if code == 0:
            for search, journal in zip(self.searches, self.journals, strict=True):
                journal.update(search.observed(), is_over=True)
        return code

    def _has_more(self) -> bool:
        while not self.budget.is_over and len(self.running) + len(self.waiting) < self.pool.n_jobs:
            job = self._next_job()
            if job is None:
                break
            self.waiting.append(job)
        return super()._has_more()

    def _next_job(self) -> SweepJob | None:
        """Return the next job; of several searches, that of the one with the fewest epochs."""
        for search in sorted(self.searches, key=lambda one: Budget.spent([one])):
            while step := search.next(lambda epochs: self.budget.allows(self.searches, epochs)):
                search.started(step)
                job = self._make_job(search, step)
                self._record(search)
                if job is not None:
                    self.steps[job.name] = search, step, time.monotonic()
                    return job
        return None

    def _make_job(self, search: TrialSearch, step: Step) -> SweepJob | None:
        """Compose the job of a step; None if its values do not go together, which is a failure of this trial alone."""
        try:
            return self.make_job(search, step)
        except ValueError as error:
            search.refused(step.name)
            run = search.runs[step.name].run
            self.progress.failed(
                SweepJob(run, tuple(f"{key}={text}" for key, text in step.values.items()), {}), str(error)
            )
            return None

    def _finish(self, job: SweepJob, seconds: float | None = None) -> None:
        search, step, started = self.steps.pop(job.name)
        trial = search.ended(step.name)
        if trial.failure is not None:
            self.progress.failed(job, trial.failure)
            return
        self.progress.trained(trial, job.distinguishing_overrides, time.monotonic() - started)
        self._note(step.name, trial.epochs, trial.figures.get(max(trial.figures, default=0)))
        self._record(search)

    def _fail(self, job: SweepJob, cause: str) -> None:
        search, step, started = self.steps.pop(job.name)
        trial = search.ended(step.name)
        if trial.is_diverged:
            self.progress.trained(trial, job.distinguishing_overrides, time.monotonic() - started)
        else:
            super()._fail(job, cause)
        self._record(search)

    def _record(self, search: TrialSearch) -> None:
        self.journals[self.searches.index(search)].update(search.observed())

    def _note(self, name: TrialName, epochs: int, figure: float | None) -> None:
        """Add a row to the history."""
        row = {"spent": Budget.trained(self.searches), "run": str(name), "epochs": epochs, "figure": figure}
        path = self.directory / FOLDER / HISTORY
        write_rows(path, [*read_rows(path), row])
