"""Run one search: which trial starts or goes on next, by what the run directories say."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from ghostexp.report.finalists import contender_figures, finalists, signed_figure
from ghostexp.report.racing import next_run
from ghostexp.runs.csv_table import read_rows
from ghostexp.runs.trials import SearchRecord, TrialName, TrialRun, read_trial, read_trials
from ghostexp.sweeps.search import halving
from ghostexp.sweeps.search.sampler import Attributes, Observed, Sampler
from ghostexp.sweeps.search.space import Values


@dataclass(frozen=True)
class Step:
    """A run to start or to continue, and the epochs after which it pauses; None: it is trained to the end."""

    name: TrialName
    values: Values
    until: int | None
    epochs: int  # that it trains


@dataclass
class TrialSearch:
    """Trials of one value of the grid."""

    directory: Path
    group: str
    record: SearchRecord
    sampler: Sampler
    attributes: dict[int, Attributes] = field(default_factory=dict)
    runs: dict[TrialName, TrialRun] = field(default_factory=dict)
    values: dict[int, Values] = field(default_factory=dict)
    running: dict[TrialName, Step] = field(default_factory=dict)
    failed: set[TrialName] = field(default_factory=set)  # by this command; the next one tries again
    is_exhausted: bool = False  # the sampler has no other values
    lacks_metric: bool = False  # a run has ended without its column, as all would

    def load(self) -> None:
        """Read the runs of earlier commands."""
        for trial in read_trials(self.directory, self.record.metric):
            if trial.name.group == self.group:
                self.runs[trial.name] = trial
                self.values[trial.name.number] = self._read_values(trial)

    def _read_values(self, trial: TrialRun) -> Values:
        lines = yaml.safe_load((trial.run.path / ".hydra" / "overrides.yaml").read_bytes())
        typed = dict(str(line).split("=", 1) for line in lines if "=" in str(line))
        return {dimension.key: typed[dimension.key] for dimension in self.sampler.space}

    def started(self, step: Step) -> None:
        """Note that a step runs."""
        self.running[step.name] = step
        self.values[step.name.number] = step.values
        self.runs.setdefault(step.name, read_trial(self.directory, step.name, self.record.metric))

    def ended(self, name: TrialName) -> TrialRun:
        """Read what a step has come to."""
        step = self.running.pop(name)
        trial = self.runs[name] = read_trial(self.directory, name, self.record.metric)
        has_figure = trial.figures or name.is_test  # a test may leave out its validation
        if trial.failure is None and not ((trial.result and has_figure) or step.until in trial.figures):
            trial.failure = self._problem(trial, step)
        if trial.failure is not None and not trial.is_diverged:
            self.failed.add(name)
        return trial

    def refused(self, name: TrialName) -> None:
        """Note that a step could not start; the next command tries again."""
        del self.running[name]
        self.failed.add(name)

    def _problem(self, trial: TrialRun, step: Step) -> str:
        """Return why a run that ended without a failure has no figure."""
        if trial.result is None and trial.epochs < (step.until or self.record.epochs):
            return "stopped before its end"
        named = f"search.metric={self.record.metric}"
        columns = [name for row in read_rows(trial.run.metrics)[:1] for name in row if name.startswith("val/")]
        if self.record.metric not in columns:
            self.lacks_metric = True
            return f"{named}: must be a column of metrics.csv, {', '.join(columns) or 'which has none of a validation'}"
        return f"{named}: has no finite value at epoch {trial.epochs}"

    def next(self, allows: Callable[[int], bool]) -> Step | None:
        """Return the next step; allows: whether the budget has so many epochs left. None: nothing to do now."""
        step = self._interrupted() or self._promotion(allows) or self._new(allows) or self._promotion(allows)
        running = [name.seed for name in self.running if not name.is_test]
        if step or self.record.seeds[0] in running:
            return step
        step = self._further_seed(allows, running)
        return step if step or running else self._test()

    # The first seed: trials and rungs

    def _interrupted(self) -> Step | None:
        """Return a step that an earlier command did not end."""
        for name, trial in self.runs.items():
            if self._is_idle(trial) and name.seed == self.record.seeds[0] and not name.is_test:
                level = self.record.level(trial)
                if level == 0 or trial.epochs > self.record.stages[level - 1]:
                    return self._step(name, level)
        return None

    def _promotion(self, allows: Callable[[int], bool]) -> Step | None:
        rungs: list[dict[int, float]] = [{} for _ in self.record.rungs]
        gone_on: list[set[int]] = [set() for _ in self.record.rungs]
        for trial in self.first_seed:
            level = self.record.level(trial)
            for rung in range(min(level, len(rungs))):
                rungs[rung][trial.name.number] = signed_figure(trial, self.record, self.record.stages[rung])
                if level > rung + 1 or not self._waits(trial):
                    gone_on[rung].add(trial.name.number)
            if trial.is_diverged and level < len(rungs):
                rungs[level][trial.name.number] = -math.inf
        is_closed = not self._is_open(allows)
        rung = halving.promotable(rungs, gone_on, self.record.factor, is_closed)
        if rung < 0:
            return None
        number = halving.best_waiting(rungs[rung], gone_on[rung], self.record.factor, is_closed)
        assert number is not None
        step = self._step(TrialName(self.group, number, self.record.seeds[0]), rung + 1)
        return step if allows(step.epochs + self._reserve(rung + 2)) else None

    def _is_open(self, allows: Callable[[int], bool]) -> bool:
        """Return whether more trials may still reach a rung."""
        return bool(self.running) or self._may_start(allows)

    def _may_start(self, allows: Callable[[int], bool]) -> bool:
        limit = math.inf if self.record.trials is None else self.record.trials
        has_more = len(self.first_seed) < min(limit, self.sampler.size) and not self.is_exhausted
        return has_more and allows(self.record.stages[0] + self._reserve())

    def _reserve(self, level: int = 1) -> int:
        """Return the epochs that the budget keeps, if another trial reaches that level.

        They bring one trial to the end, and train the contenders with the further seeds.
        """
        stages = self.record.stages
        alive = [trial for trial in self.first_seed if not trial.is_diverged and trial.name not in self.failed]
        reached = [level, *(self.record.level(trial) for trial in alive)]
        reached += [stages.index(step.until or stages[-1]) + 1 for step in self.running.values()]
        return stages[-1] - stages[min(max(reached), len(stages)) - 1] + self._further_runs() * self.record.epochs

    def _further_runs(self) -> int:
        """Return how many runs with further seeds are left, if another trial starts.

        With a cost, all members of the Pareto set get them, to which the new trial and the running ones may belong.
        """
        record = self.record
        if record.cost is None:
            of_further = [name for name in self.runs if not name.is_test and name.seed != record.seeds[0]]
            done = [name for name in of_further if self.runs[name].result or name in self.running]
            return max(0, record.further_runs(self.sampler.size) - len(done))
        front = contender_figures(self.runs.values(), record)
        left = {(number, seed) for number in front for seed in record.seeds} - self._started_seeds
        joining = 1 + sum(name.seed == record.seeds[0] and not name.is_test for name in self.running)
        return len(left) + joining * (len(record.seeds) - 1)

    def _new(self, allows: Callable[[int], bool]) -> Step | None:
        if not self._may_start(allows):
            return None
        taken = {trial.name.number for trial in self.first_seed}
        number = next(number for number in itertools.count() if number not in taken)
        proposed = self.sampler.propose(number, self.observed())
        if proposed is None:
            self.is_exhausted = True
            return None
        values, self.attributes[number] = proposed
        return self._step(TrialName(self.group, number, self.record.seeds[0]), 0, values)

    # Further seeds, and the test

    @property
    def finalists(self) -> list[int]:
        """Return the trial that has won, or with a cost the Pareto set; empty while it is open."""
        return finalists(list(self.runs.values()), self.record)

    def _further_seed(self, allows: Callable[[int], bool], running: Sequence[int]) -> Step | None:
        """Return a contender's run with a further seed; the next seed waits for the results of the ones before."""
        figures = contender_figures(self.runs.values(), self.record)
        found = next_run(figures, self._started_seeds, self.record.seeds, drops=self.record.cost is None)
        if found is None or any(seed != found[1] for seed in running):
            return None
        step = self._step(TrialName(self.group, *found), len(self.record.rungs))
        return step if allows(step.epochs) else None

    @property
    def _started_seeds(self) -> set[tuple[int, int]]:
        """Return trial and seed of the runs that have started and need no further step, tests aside."""
        return {(name.number, name.seed) for name, run in self.runs.items() if not (name.is_test or self._is_idle(run))}

    def _test(self) -> Step | None:
        names = [
            TrialName(self.group, number, seed, True) for number in self.finalists for seed in self.record.test_seeds
        ]
        left = [name for name in names if name not in self.runs or self._is_idle(self.runs[name])]
        return self._step(left[0], len(self.record.rungs)) if left else None

    # What is known of a trial

    @property
    def first_seed(self) -> list[TrialRun]:
        """Return the runs of the first seed, by number."""
        seed = self.record.seeds[0]
        found = [trial for name, trial in self.runs.items() if name.seed == seed and not name.is_test]
        return sorted(found, key=lambda trial: trial.name.number)

    def _waits(self, trial: TrialRun) -> bool:
        """Return whether a trial is paused at a rung."""
        level = self.record.level(trial)
        return self._is_idle(trial) and level > 0 and trial.epochs <= self.record.stages[level - 1]

    def _is_idle(self, trial: TrialRun) -> bool:
        is_ended = trial.result is not None or trial.is_diverged or trial.name in self.failed
        return not is_ended and trial.name not in self.running

    def _step(self, name: TrialName, stage: int, values: Values | None = None) -> Step:
        until = self.record.stages[stage]
        done = self.runs[name].epochs if name in self.runs else 0
        pause = until if stage < len(self.record.rungs) else None
        return Step(name, values or self.values[name.number], pause, until - done)

    def observed(self) -> list[Observed]:
        """Return the trials as the sampler sees them."""
        return [self._observe(trial) for trial in self.first_seed]

    def _observe(self, trial: TrialRun) -> Observed:
        number = trial.name.number
        figures = {epochs: trial.figures[epochs] for epochs in self.record.stages if epochs in trial.figures}
        if trial.result is not None and trial.figures:
            figures |= {self.record.epochs: trial.figures[max(trial.figures)]}
        result, named = trial.result or {}, self.record.cost
        cost = result.get(named) if named else None
        seen = Observed(number, self.values[number], "stopped", figures, self.attributes.get(number, {}), cost)
        if trial.name in self.running:
            return replace(seen, state="running")
        if trial.is_diverged:
            return replace(seen, state="diverged")
        if trial.name in self.failed or (result and (not figures or (named and cost is None))):
            return replace(seen, state="failed")
        return replace(seen, state="done" if trial.result is not None else "stopped")
