"""Propose the values of trials with Optuna, from what the run directories say of the earlier ones."""

import hashlib
import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ghostexp.runs.trials import SearchRecord
from ghostexp.sweeps.search.space import Dimension, Values, count_trials

MISSING = 'needs Optuna: pip install "ghostexp[search]"'
ATTEMPTS = 30  # to propose values that no earlier trial has
Attributes = Mapping[str, Any]  # what a sampler remembers with a trial


@dataclass(frozen=True)
class Observed:
    """A trial as a sampler sees it.

    state: `stopped` may still go on. figures: by epoch of a rung.
    """

    number: int
    values: Values
    state: Literal["running", "stopped", "done", "diverged", "failed"]
    figures: Mapping[int, float] = field(default_factory=dict)
    attributes: Attributes = field(default_factory=dict)
    cost: float | None = None  # second objective, of a trained trial

    @property
    def objectives(self) -> list[float] | None:
        """Return the last figure, and the cost if there is one; None without a figure."""
        costs = [] if self.cost is None else [self.cost]
        return [self.figures[max(self.figures)], *costs] if self.figures else None


def import_optuna(key: str) -> Any:
    """Import Optuna, which is an optional dependency; ValueError: it is not installed."""
    try:
        import cmaes  # noqa: F401
        import optuna
    except ImportError as error:
        raise ValueError(f"{key}: {MISSING}") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


class Sampler:
    """Sampler of one search: values depend on its seed, a trial's number and the trials before, and on no state."""

    def __init__(self, record: SearchRecord, group: str, space: Sequence[Dimension], startup: int) -> None:
        self.record, self.group, self.space, self.startup = record, group, space, startup
        self.optuna = import_optuna(f"search={record.sampler}")
        self.distributions = {dimension.key: self._distribution(dimension) for dimension in space}

    @property
    def size(self) -> float:
        """Return the number of different trials."""
        return count_trials(self.space)

    def propose(self, number: int, trials: Sequence[Observed]) -> tuple[Values, Attributes] | None:
        """Return the values of a new trial, which no other has; None if none are left."""
        taken = {tuple(trial.values.items()) for trial in trials}
        if len(taken) >= self.size:
            return None
        if self.record.sampler == "grid":
            return next(itertools.islice(self._combinations(), number, None)), {}
        for attempt in range(ATTEMPTS):
            values, attributes = self._ask(number, attempt, trials)
            if tuple(values.items()) not in taken:
                return values, attributes
        left = (values for values in self._combinations() if tuple(values.items()) not in taken)
        return (next(left), {}) if self.size < math.inf else None

    def _combinations(self) -> Iterator[Values]:
        for found in itertools.product(*(one.choices for one in self.space)):
            yield {dimension.key: text for dimension, text in zip(self.space, found, strict=True)}

    def _ask(self, number: int, attempt: int, trials: Sequence[Observed]) -> tuple[Values, Attributes]:
        study = self.optuna.create_study(directions=self.record.directions, sampler=self._sampler(number, attempt))
        is_tpe = self.record.sampler == "tpe"
        told = trials if is_tpe else self._with_worst(trials)
        study.add_trials([self.frozen(trial, prunes=is_tpe) for trial in told])
        asked = study.ask(self.distributions)
        values = {dimension.key: dimension.as_text(asked.params[dimension.key]) for dimension in self.space}
        return values, study.get_trials(deepcopy=False)[-1].system_attrs

    def _with_worst(self, trials: Sequence[Observed]) -> list[Observed]:
        """Give diverged trials the worst known figure: GP and CMA-ES take no notice of a pruned one."""
        known = [trial.objectives for trial in trials if trial.state in ("done", "stopped")]
        figures = [objectives[0] for objectives in known if objectives]
        if not figures or self.record.cost:
            return list(trials)
        worst = {0: self.record.sign * min(self.record.sign * figure for figure in figures)}
        return [replace(one, state="done", figures=worst) if one.state == "diverged" else one for one in trials]

    def _sampler(self, number: int, attempt: int) -> Any:
        samplers, kind = self.optuna.samplers, self.record.sampler
        text = f"{self.record.seed} {self.group} {number} {attempt}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        if kind == "qmc" and attempt == 0:
            return _numbered_qmc(samplers.QMCSampler)(number, self.distributions, self.record.seed)
        if kind in ("qmc", "random") or attempt:
            return samplers.RandomSampler(seed=seed)
        if kind == "tpe":
            return samplers.TPESampler(seed=seed, n_startup_trials=self.startup, multivariate=True)
        if kind == "gp":
            return samplers.GPSampler(seed=seed, n_startup_trials=self.startup)
        return samplers.CmaEsSampler(seed=seed, n_startup_trials=self.startup, warn_independent_sampling=False)

    def frozen(self, trial: Observed, prunes: bool) -> Any:
        """Convert a trial to one of Optuna.

        prunes: a stopped trial is pruned, which TPE knows how to compare; else it is complete with its last figure. A
        diverged one is pruned without a figure: the worst.
        """
        states = self.optuna.trial.TrialState
        stopped = states.PRUNED if prunes or trial.objectives is None else states.COMPLETE
        state = {
            "running": states.RUNNING,
            "stopped": stopped,
            "done": states.COMPLETE,
            "diverged": states.PRUNED,
            "failed": states.FAIL,
        }[trial.state]
        return self.optuna.trial.create_trial(
            state=state,
            values=trial.objectives if state == states.COMPLETE else None,
            params={dimension.key: dimension.from_text(trial.values[dimension.key]) for dimension in self.space},
            distributions=self.distributions,
            system_attrs=dict(trial.attributes),
            intermediate_values={} if trial.state == "diverged" or self.record.cost else dict(trial.figures),
        )

    def _distribution(self, dimension: Dimension) -> Any:
        made = self.optuna.distributions
        if dimension.kind == "choice":
            return made.CategoricalDistribution(dimension.choices)
        if dimension.kind == "int":
            step = int(dimension.step or 1)
            return made.IntDistribution(int(dimension.low), int(dimension.high), log=dimension.is_log, step=step)
        return made.FloatDistribution(dimension.low, dimension.high, log=dimension.is_log, step=dimension.step)


def _numbered_qmc(base: Any) -> Any:
    """Return a QMCSampler whose point is that of the trial's number, not of a counter in a storage."""

    class NumberedQMCSampler(base):
        def __init__(self, number: int, distributions: Mapping[str, Any], seed: int) -> None:
            super().__init__(scramble=True, seed=seed)
            self.number, self.distributions = number, distributions

        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return dict(self.distributions)

        def _find_sample_id(self, study: Any, search_space: Mapping[str, Any]) -> int:
            return self.number

    return NumberedQMCSampler
