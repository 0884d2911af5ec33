"""From runs to the arms of a study: what was varied, what is repeated by seeds, and what each arm is compared with."""

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ghostexp.report.collect import Found, Run, State
from ghostexp.report.statistics import Estimate, Paired, estimate, paired
from ghostexp.runs.score import score_of, title_of
from ghostexp.runs.sweep import follows, is_seed, swept_keys

GROUPS = ("model", "datamodule", "optimizer", "scheduler")
SYMBOLS = {"model.ratio": "s", "model.dw_size": "d"}
ORDINARY = {"model.ratio": 1}
PERCENT, POINTS = (0.0, 100.0), (-100.0, 100.0)  # what an accuracy, and a difference of two, can be
UNEVEN = 1.5  # times the slowest of equal runs

Values = Mapping[str, Any]  # by key, of the keys that a study varies


@dataclass(eq=False)
class Arm:
    """The finished runs of equal configuration, one for each seed."""

    values: Values
    runs: list[Run]
    shown: Sequence[str]  # the keys that tell it from the other arms
    baseline: "Arm | None" = None
    difference: Paired | None = None  # to the baseline, in points of accuracy

    @cached_property
    def label(self) -> str:
        """As a person names it: `s = 2`, or `cosine, s = 1`; by its network where nothing is varied."""
        return self.label_without(None) or str(self.runs[0].config["choices"]["model"])

    def label_without(self, axis: str | None) -> str:
        """The same, but for a key whose value is said elsewhere."""
        said = [(key, as_text(self.values[key])) for key in self.shown if key != axis and self.values[key] is not None]
        is_group = self.runs[0].config["choices"].keys()
        return ", ".join(value if key in is_group else f"{symbol(key)} = {value}" for key, value in said)

    @property
    def by_seed(self) -> dict[int, float]:
        """Test accuracy in percent."""
        return {run.seed: run.accuracy for run in self.runs}

    @cached_property
    def accuracy(self) -> Estimate:
        """Test accuracy in percent, over seeds."""
        return estimate([run.accuracy for run in self.runs], PERCENT)

    def median(self, key: str) -> float | None:
        """The median over runs of a number in their results; None where none has it."""
        numbers = [run.result[key] for run in self.runs if run.result.get(key) is not None]
        return statistics.median(numbers) if numbers else None


@dataclass(frozen=True)
class Study:
    """All that a report is made of."""

    name: str
    keys: tuple[str, ...]
    arms: list[Arm]
    others: list[Run]  # which are in no arm
    baseline: Values = field(default_factory=dict)  # what those arms have that the others are compared with

    @property
    def runs(self) -> list[Run]:
        return [run for arm in self.arms for run in arm.runs]

    @property
    def score_name(self) -> str:
        """The figure by which the runs are compared, `test/acc1` or `test/map`; of no runs, that of classifiers."""
        return (score_of(self.runs[0].result["metrics"]["test"]) if self.runs else None) or "test/acc1"

    @property
    def score(self) -> str:
        """What people call it: accuracy, or mAP."""
        return title_of(self.score_name)

    @property
    def speed_spread(self) -> float:
        """How many times as fast as the slowest of equal runs the fastest trained, in the arm where that is most."""
        rates = [[run.result["img_s"] for run in arm.runs if run.result.get("img_s")] for arm in self.arms]
        return max((max(arm) / min(arm) for arm in rates if arm), default=1.0)

    @property
    def has_even_speeds(self) -> bool:
        """Whether the speeds of arms compare; else the machine had other work to do while they were measured."""
        return self.speed_spread < UNEVEN

    def levels(self, key: str) -> list[Any]:
        """The values of a key, in the order of the arms."""
        found: list[Any] = []
        for arm in self.arms:
            if arm.values[key] not in found:
                found.append(arm.values[key])
        return found


def symbol(key: str) -> str:
    """What a key is called on an axis or in a table."""
    return SYMBOLS.get(key, key.rpartition(".")[2])


def as_text(value: Any) -> str:
    """A value as it is typed: `[first]`."""
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def study_of(name: str, found: Found, asked: Values | None = None) -> Study:
    """Sort runs into arms and pair each with its baseline.

    asked: what the baselines have. By default the ordinary network, or else the first arm.
    Raises ValueError: no arm has it.
    """
    keys = swept_keys(found.points.values()) if found.points else _differing(found.runs)
    finished = [run for run in found.runs if run.state is State.FINISHED]
    _mark_foreign(finished, keys)
    arms = _in_order(_arms(finished, keys), keys)
    _shorten(arms)
    baseline = _baseline(arms, keys, asked)
    _compare(arms, baseline)
    others = [run for run in found.runs if run.state is not State.FINISHED]
    return Study(name, keys, arms, others, baseline)


def _differing(runs: Sequence[Run]) -> tuple[str, ...]:
    """The keys in which runs of no one sweep differ, without seeds and what follows from a group's choice alone."""
    finished = [run for run in runs if run.state is State.FINISHED]
    groups = tuple(key for key in GROUPS if _counts([key], finished) > 1)
    paths = dict.fromkeys(path for run in finished for path in run.decides)
    keys = [
        path
        for path in paths
        if not is_seed(path)
        and _counts([path], finished) > 1
        and not (follows(path, groups) and _counts([*groups, path], finished) == _counts(groups, finished))
    ]
    return (*groups, *keys)


def _counts(keys: Sequence[str], runs: Sequence[Run]) -> int:
    """How many different values of keys together there are."""
    return len({_identity({key: run.values.get(key) for key in keys}) for run in runs})


def _mark_foreign(runs: Sequence[Run], keys: Sequence[str]) -> None:
    """Mark the runs that differ from the most common configuration in more than keys and seeds."""
    families = [
        {path: value for path, value in run.decides.items() if not is_seed(path) and not follows(path, keys)}
        for run in runs
    ]
    texts = [_identity(family) for family in families]
    if len(set(texts)) <= 1:
        return
    ours = families[texts.index(Counter(texts).most_common(1)[0][0])]
    for run, family in zip(runs, families, strict=True):
        if family != ours:
            paths = [path for path in {**ours, **family} if ours.get(path) != family.get(path)]
            said = [f"{path} is {family.get(path)}, not {ours.get(path)}" for path in paths[:3]]
            more = [f"{len(paths) - 3} more"] if len(paths) > 3 else []
            run.state, run.note = State.FOREIGN, "; ".join(said + more)


def _identity(values: Values) -> str:
    return json.dumps(values, sort_keys=True, default=str)


def _arms(runs: Sequence[Run], keys: Sequence[str]) -> list[Arm]:
    """The runs that are not foreign, by their values of the keys; a seed that an arm has already is marked."""
    arms: dict[str, Arm] = {}
    for run in runs:
        if run.state is State.FOREIGN:
            continue
        values = {key: run.values.get(key) for key in keys}
        arm = arms.setdefault(_identity(values), Arm(values, [], keys))
        same = [other.name for other in arm.runs if other.seed == run.seed]
        if same:
            run.state, run.note = State.REPEATED, f"the same arm and seed as {same[0]}, which counts"
        else:
            arm.runs.append(run)
    return list(arms.values())


def _in_order(arms: list[Arm], keys: Sequence[str]) -> list[Arm]:
    """Arms by their values: numbers rising, others as they come."""
    places = {}
    for key in keys:
        values = [arm.values[key] for arm in arms]
        are_numbers = all(type(value) in (int, float) for value in values)
        places[key] = sorted(values) if are_numbers else values
    return sorted(arms, key=lambda arm: [places[key].index(arm.values[key]) for key in keys])


def _shorten(arms: Sequence[Arm]) -> None:
    """Where one ordinary network stands beside ghost networks of one ratio, s tells it from them, and needs no more."""
    ordinary = [arm for arm in arms if arm.values.items() >= ORDINARY.items()]
    ghosts = [arm for arm in arms if arm not in ordinary]
    if len(ordinary) == 1 and ghosts and len({arm.values["model.ratio"] for arm in ghosts}) == 1:
        ordinary[0].shown = list(ORDINARY)
        for arm in ghosts:
            arm.shown = [key for key in arm.shown if key not in ORDINARY] or arm.shown


def _baseline(arms: Sequence[Arm], keys: Sequence[str], asked: Values | None) -> Values:
    if asked is None:
        is_there = any(arm.values.items() >= ORDINARY.items() for arm in arms if "model.ratio" in keys)
        return ORDINARY if is_there else dict(arms[0].values) if arms else {}
    if not any(arm.values.items() >= asked.items() for arm in arms):
        there = "; ".join(arm.label for arm in arms)
        raise ValueError(f"task.baseline={dict(asked)}: no arm has it; there are {there}")
    return asked


def _compare(arms: Sequence[Arm], baseline: Values) -> None:
    """Pair each arm with its twin among the baselines, or with the only baseline that there is."""
    candidates = [arm for arm in arms if all(arm.values[key] == value for key, value in baseline.items())]
    for arm in arms:
        if arm in candidates:
            continue
        twin = {**arm.values, **baseline}
        twins = [other for other in candidates if other.values == twin] or candidates
        if len(twins) == 1:
            arm.baseline = twins[0]
            arm.difference = paired(arm.by_seed, twins[0].by_seed, POINTS)
