"""Run a search: check the corners of its space, record it, and run its trials."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from ghostexp.runner.resources import ResourcePool, list_visible_gpus
from ghostexp.runs.lock import ENDING, locked
from ghostexp.runs.sweep_record import SweepRecord, check_fixed, fixed_values, is_sweep_dir, read_sweep, record_sweep
from ghostexp.runs.trials import FOLDER, SearchRecord, TrialName, parse_name, with_metric
from ghostexp.runs.wandb_mode import resolve_for_sweep
from ghostexp.runs.wandb_names import FRESH_SEED
from ghostexp.sweeps.data_check import changed_data
from ghostexp.sweeps.jobs import SweepJob, error_lines, load_status
from ghostexp.sweeps.preflight import check_jobs
from ghostexp.sweeps.search.budget import Budget
from ghostexp.sweeps.search.latency import Latencies, check_measurable
from ghostexp.sweeps.search.progress import print_trials
from ghostexp.sweeps.search.record import build_record, check_same, describe_early_rungs
from ghostexp.sweeps.search.sampler import Sampler
from ghostexp.sweeps.search.scheduler import SearchScheduler
from ghostexp.sweeps.search.space import Values, corners
from ghostexp.sweeps.search.specification import SearchSpec
from ghostexp.sweeps.search.steps import Steps
from ghostexp.sweeps.search.trial_search import Step, TrialSearch

MANY_JOBS = 10**6  # the number of threads, on which exact results depend, must not depend on the budget
Compose = Callable[[str, list[str], list[str]], SweepJob]  # of name, overrides, and those that differ between jobs


class SearchCommand:
    """A command that searches in a directory."""

    record: SearchRecord
    of_tests: list[str]  # overrides of the tests with fresh seeds
    processes: dict[str, int]  # of a run, by group
    latencies: Latencies | None

    def __init__(
        self, directory: Path, study: str | None, spec: SearchSpec, search: Mapping[str, Any], compose: Compose
    ) -> None:
        self.directory, self.study, self.spec, self.search, self.compose = directory, study, spec, search, compose

    def run(self, composed: DictConfig, launcher: Mapping[str, Any]) -> int:
        """Run the search, or list its trials, and return the exit code."""
        of_each = self.compose_corners()
        jobs = [job for some in of_each.values() for job in some]
        with Console(stderr=True).status(f"building the network of {len(jobs)} corners of the space"):
            errors, gpus = check_jobs(jobs, is_here=launcher["backend"] == "local")
        if errors:
            _print_errors(errors, jobs)
            return 1
        self.record = _with_metric(self.record, jobs[0])
        of_trials = [job for job in jobs if not _is_test(job)]
        self._check_directory(of_trials)
        searches = [TrialSearch(self.directory, group, self.record, self._sampler(group)) for group in of_each]
        if changed := error_lines(self._changed(searches)):
            print(*changed, sep="\n", file=sys.stderr)
            return 1
        if self.record.cost == "latency_ms":
            check_measurable(jobs[0].config)
        self.processes = {group: max(job.processes for job in some) for group, some in of_each.items()}
        gpus = gpus if any(job.config["trainer"]["accelerator"] != "cpu" for job in jobs) else 0
        pinned = any(isinstance(job.config["trainer"]["devices"], list) for job in jobs)
        n_jobs = 1 if pinned else composed.n_jobs
        pool = ResourcePool(list_visible_gpus(gpus), n_jobs, max(self.processes.values()), MANY_JOBS)
        budget = Budget(self.search["epochs"], self.search["hours"])
        is_local = launcher["backend"] == "local"
        slots = pool.n_jobs if is_local else composed.n_jobs or launcher.get("slurm_array_parallelism", pool.n_jobs)
        if composed.dry_run:
            print_trials(self.directory, searches, budget, slots)
            return 0
        if is_local:
            resolve_for_sweep(job.config for job in jobs)
        submit = None if is_local else _submitit()
        with self._alone():
            self._check_directory(of_trials)
            self.latencies = Latencies(self.directory) if self.record.cost == "latency_ms" else None
            record_sweep(self.directory, self._sweep_record(of_trials))
            steps = Steps(self.directory, searches, self.job, budget, slots)
            if submit is not None:
                return submit(steps, launcher, self.directory, slots, composed.fail_fast)
            return SearchScheduler(self.directory, steps, pool, composed.fail_fast).run()

    def compose_corners(self) -> dict[str, list[SweepJob]]:
        """Compose the corners of the space, by group, and build the record."""
        group, *_ = self.spec.groups
        values, *_ = corners(self.spec.space)
        first = self._compose(TrialName(group, 0, self.spec.seeds[0]), values)
        self.record = build_record(self.spec, self.search, first.config)
        if warning := describe_early_rungs(self.record, first.config["scheduler"]):
            print(f"warning: {warning}", file=sys.stderr)
        holds_out = first.config["datamodule"].get("validate_on") == "holdout"
        self.of_tests = ["datamodule.validate_on=test"] if holds_out else []
        self.of_tests += self.search["test_overrides"]
        of_each = {
            group: [
                self._job_of(TrialName(group, number, self.spec.seeds[0]), values)
                for number, values in enumerate(corners(self.spec.space))
            ]
            for group in self.spec.groups
        }
        of_test = [
            self._job_of(TrialName(group, 0, seed, is_test=True), values)
            for group in self.spec.groups
            for seed in self.record.test_seeds[:1]
        ]
        for group, job in zip(self.spec.groups, of_test, strict=False):
            of_each[group].append(job)
        return of_each

    def _check_directory(self, jobs: list[SweepJob]) -> None:
        """Raise ValueError if the directory has another search, or a sweep without one."""
        if is_sweep_dir(self.directory):
            before = read_sweep(self.directory).search
            if not before:
                raise ValueError(f"{self.directory}: contains a sweep without a search; name=... starts a new one")
            self.spec.space.sort(key=lambda one: [*before["space"], one.key].index(one.key))
            self.record = replace(self.record, space={one.key: one.text for one in self.spec.space})
            check_same(self.directory, with_metric(before), self.record)
        check_fixed(self.directory, self._sweep_record(jobs))

    def _sampler(self, group: str) -> Sampler:
        return Sampler(self.record, group, self.spec.space, self.search.get("startup", 1))

    def _sweep_record(self, jobs: list[SweepJob]) -> SweepRecord:
        fixed = fixed_values((job.distinguishing_overrides, job.config) for job in jobs)
        before = read_sweep(self.directory).search.get("groups", {})
        search = asdict(self.record) | {"groups": {**before, **self.spec.groups}}
        return SweepRecord(self.study, {}, fixed, search)

    def _changed(self, searches: Iterable[TrialSearch]) -> list[tuple[str, str]]:
        """Return names and errors of finished trials whose configuration or data are not those of this command."""
        errors, jobs = [], []
        for search in searches:
            search.load()
            for name in sorted(name for name, trial in search.runs.items() if trial.result is not None):
                job = self._job_of(name, search.values[name.number])
                try:
                    load_status(job)
                except ValueError as error:
                    errors.append((job.name, str(error)))
                else:
                    jobs.append(job)
        return [*errors, *changed_data(jobs)]

    def _job_of(self, name: TrialName, values: Values) -> SweepJob:
        return self._compose(name, values, [*self._horizon(), *(self.of_tests if name.is_test else ())])

    def job(self, search: TrialSearch, step: Step) -> SweepJob:
        """Compose and record the job of a step."""
        job = self._job_of(step.name, step.values)
        job.processes, job.pause_after = self.processes[search.group], step.until
        goes_to = FRESH_SEED if step.name.is_test else f"rung-{step.until}" if step.until else "end"
        if self.latencies and step.name.seed == self.record.seeds[0] and not step.name.is_test:
            self.latencies.provide(job)
        job.tags = ("search", f"trial-{step.name.number:04}", goes_to)
        record_sweep(self.directory, SweepRecord(self.study, {job.name: job.distinguishing_overrides}))
        return job

    def _horizon(self) -> list[str]:
        """Return the override of the learning-rate schedule."""
        stages = ",".join(map(str, self.record.stages))
        return [f"scheduler.horizon=[{stages}]"] if self.record.horizon == "rung" else []

    def _compose(self, name: TrialName, values: Values, more: list[str] | None = None) -> SweepJob:
        of_trial = [f"{key}={text}" for key, text in values.items()]
        varied = [*self.spec.groups[name.group], *of_trial, f"seed={name.seed}"]
        return self.compose(str(name), [*self.spec.fixed, *varied, *(more or [])], varied)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the search's lock: one command at a time decides which trials go on."""
        folder = self.directory / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with locked(folder, ENDING):
                yield
        except BlockingIOError:
            raise ValueError(f"{self.directory}: another command runs this search") from None


def _with_metric(record: SearchRecord, job: SweepJob) -> SearchRecord:
    """Return the record with the metric of the LightningModule, and its direction, unless another one is named.

    Raises ValueError: it is named, should fall, and would be maximized.
    """
    metric = record.metric or f"val/{job.monitor}"
    falls = metric.removeprefix("val/") in job.falling
    if record.metric and falls and record.direction == "maximize":
        raise ValueError(f"search.metric={metric}: needs search.direction=minimize")
    return record if record.metric else replace(record, metric=metric, direction="minimize" if falls else "maximize")


def _submitit() -> Callable[[Steps, Mapping[str, Any], Path, int, bool], int]:
    try:
        from ghostexp.sweeps.search.submitted import run_with_submitit
    except ImportError as error:
        raise ValueError('hydra/launcher: needs submitit: pip install "ghostexp[slurm]"') from error
    return run_with_submitit


def _is_test(job: SweepJob) -> bool:
    name = parse_name(job.name)
    return name is not None and name.is_test


def _print_errors(errors: list[tuple[str, str]], jobs: list[SweepJob]) -> None:
    """Print each error once, with the first corner that has it."""
    first: dict[str, str] = {}
    for name, error in errors:
        first.setdefault(error, " ".join(next(job.distinguishing_overrides for job in jobs if job.name == name)))
    print(*(f"error: {overrides}: {error}" for error, overrides in first.items()), sep="\n", file=sys.stderr)
