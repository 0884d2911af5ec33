"""Run the steps of searches on the slots of this machine."""

import signal
from pathlib import Path

from ghostexp.runner.resources import ResourcePool
from ghostexp.sweeps.jobs import SweepJob
from ghostexp.sweeps.local_jobs import JobScheduler
from ghostexp.sweeps.search.steps import Steps


class SearchScheduler(JobScheduler):
    """Scheduler whose jobs are made when a slot is free."""

    def __init__(self, directory: Path, steps: Steps, pool: ResourcePool, fail_fast: bool) -> None:
        super().__init__(directory, [], pool, fail_fast)
        self.steps, self.progress = steps, steps.progress

    def run(self) -> int:
        """Run the searches and return the exit code."""
        code = super().run()
        if code == 0:
            self.steps.close()
        return code

    def _has_more(self) -> bool:
        while len(self.running) + len(self.waiting) + len(self.elsewhere) < self.pool.n_jobs:
            job = self.steps.next_job()
            if job is None:
                break
            self.waiting.append(job)
        return super()._has_more()

    def _finish(self, job: SweepJob, seconds: float | None = None) -> None:
        self._end_step(job)

    def _fail(self, job: SweepJob, cause: str) -> None:
        self._end_step(job, cause)

    def _end_step(self, job: SweepJob, cause: str | None = None) -> None:
        if self.steps.ended(job, cause) and (self.fail_fast or self.steps.lacks_metric):
            self.stop = signal.SIGTERM
