"""Keep Optuna's storage of a search, a journal file, in step with the run directories, which decide."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ghostexp.sweeps.search.sampler import Attributes, Observed, Sampler

DEFAULT = "search"  # name of the study of a search without a grid


class Journal:
    """An Optuna study in a journal file: for Optuna's own tools, and for what CMA-ES remembers.

    A lost, broken or contradicting file is written anew from the trials.
    """

    def __init__(self, folder: Path, sampler: Sampler) -> None:
        self.name = sampler.group or DEFAULT
        self.path, self.sampler, self.optuna = folder / f"{self.name}.log", sampler, sampler.optuna

    def restore(self) -> dict[int, Attributes]:
        """Load the file; returns what the sampler remembers, by number of a trial."""
        for leftover in self.path.parent.glob(f"{self.path.name}.*"):  # locks of a killed command; this one has ours
            leftover.unlink()
        try:
            if self.path.is_file() and not self.path.read_bytes().endswith(b"\n"):
                raise ValueError("cut in the middle of a line")
            self._load()
            return {trial.number: trial.system_attrs for trial in self.study.get_trials(deepcopy=False)}
        except Exception:  # of half a dozen kinds, where the file is not a journal
            self._clear()
            return {}

    def update(self, trials: Sequence[Observed], is_over: bool = False) -> None:
        """Record the trials as they are now. Those that wait at a rung count as running until the search is over."""
        if not is_over:
            trials = [replace(trial, state="running") if trial.state == "stopped" else trial for trial in trials]
        by_number = {trial.number: trial for trial in trials}
        wanted = [by_number.get(number) for number in range(max(by_number, default=-1) + 1)]
        frozen = [self.sampler.frozen(trial, prunes=True) if trial else self._removed() for trial in wanted]
        known = self.study.get_trials(deepcopy=False)
        if len(known) > len(frozen) or any(map(_contradict, known, frozen)):
            self._clear()
            known = []
        for old, new in zip(known, frozen, strict=False):
            if not old.state.is_finished():
                self._advance(old, new)
        self.study.add_trials(frozen[len(known) :])

    def _advance(self, old: Any, new: Any) -> None:
        """Add what is new of a trial that was running."""
        trial = self.optuna.trial.Trial(self.study, old._trial_id)
        for step in sorted(new.intermediate_values.keys() - old.intermediate_values.keys()):
            trial.report(new.intermediate_values[step], step)
        if new.state.is_finished():
            self.study.tell(old.number, new.values, new.state)

    def _removed(self) -> Any:
        """Return what stands for a trial whose directory was removed: Optuna numbers trials itself."""
        return self.optuna.trial.create_trial(state=self.optuna.trial.TrialState.FAIL)

    def _clear(self) -> None:
        self.path.unlink(missing_ok=True)
        self._load()

    def _load(self) -> None:
        made, directions = self.optuna.storages, self.sampler.record.directions
        storage = made.JournalStorage(made.journal.JournalFileBackend(str(self.path)))
        self.study = self.optuna.create_study(
            storage=storage, study_name=self.name, directions=directions, load_if_exists=True
        )


def _contradict(old: Any, new: Any) -> bool:
    """Return whether a recorded trial cannot become that of the run directory."""
    if old.params != new.params or not old.intermediate_values.items() <= new.intermediate_values.items():
        return True
    return old.state.is_finished() and (old.state, old.values) != (new.state, new.values)
