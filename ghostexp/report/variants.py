"""From runs to the arms of a study: what was varied, what is repeated by seeds, and what each arm is compared with."""

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ghostexp.report.load_runs import Run, RunSet, RunStatus
from ghostexp.report.statistics import Estimate, Paired, estimate, paired
from ghostexp.runs.metrics import metric_title, primary_metric
from ghostexp.runs.sweep_record import follows, is_seed, swept_keys

GROUPS = ("model", "datamodule", "optimizer", "scheduler")
SYMBOLS = {"model.ratio": "s", "model.dw_size": "d"}
BASELINE_OVERRIDES = {"model.ratio": 1}
PERCENT, POINTS = (0.0, 100.0), (-100.0, 100.0)  # what an accuracy, and a difference of two, can be
MAX_EVEN_SPEED_RATIO = 1.5  # times the slowest of equal runs

Values = Mapping[str, Any]  # by key, of the keys that a study varies


@dataclass(eq=False)
class Variant:
    """The finished runs of equal configuration, one for each seed."""

    values: Values
    runs: list[Run]
    shown: Sequence[str]  # the keys that tell it from the other arms
    baseline: "Variant | None" = None
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
    variants: list[Variant]
    others: list[Run]  # which are in no arm
    baseline: Values = field(default_factory=dict)  # what those arms have that the others are compared with

    @property
    def runs(self) -> list[Run]:
        return [run for variant in self.variants for run in variant.runs]

    @property
    def score_name(self) -> str:
        """The figure by which the runs are compared, `test/acc1` or `test/map`; of no runs, that of classifiers."""
        return (primary_metric(self.runs[0].result["metrics"]["test"]) if self.runs else None) or "test/acc1"

    @property
    def score(self) -> str:
        """What people call it: accuracy, or mAP."""
        return metric_title(self.score_name)

    @property
    def speed_spread(self) -> float:
        """How many times as fast as the slowest of equal runs the fastest trained, in the arm where that is most."""
        rates = [
            [run.result["images_per_second"] for run in variant.runs if run.result.get("images_per_second")]
            for variant in self.variants
        ]
        return max((max(variant) / min(variant) for variant in rates if variant), default=1.0)

    @property
    def has_even_speeds(self) -> bool:
        """Whether the speeds of arms compare; else the machine had other work to do while they were measured."""
        return self.speed_spread < MAX_EVEN_SPEED_RATIO

    def levels(self, key: str) -> list[Any]:
        """The values of a key, in the order of the arms."""
        found: list[Any] = []
        for variant in self.variants:
            if variant.values[key] not in found:
                found.append(variant.values[key])
        return found


def symbol(key: str) -> str:
    """What a key is called on an axis or in a table."""
    return SYMBOLS.get(key, key.rpartition(".")[2])


def as_text(value: Any) -> str:
    """A value as it is typed: `[first]`."""
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def build_study(name: str, found: RunSet, asked: Values | None = None) -> Study:
    """Sort runs into arms and pair each with its baseline.

    asked: what the baselines have. By default the ordinary network, or else the first arm.
    Raises ValueError: no arm has it.
    """
    keys = swept_keys(found.jobs.values()) if found.jobs else _differing(found.runs)
    finished = [run for run in found.runs if run.state is RunStatus.FINISHED]
    _mark_foreign(finished, keys)
    variants = _in_order(_count_variants(finished, keys), keys)
    _shorten(variants)
    baseline = _baseline(variants, keys, asked)
    _compare(variants, baseline)
    others = [run for run in found.runs if run.state is not RunStatus.FINISHED]
    return Study(name, keys, variants, others, baseline)


def _differing(runs: Sequence[Run]) -> tuple[str, ...]:
    """The keys in which runs of no one sweep differ, without seeds and what follows from a group's choice alone."""
    finished = [run for run in runs if run.state is RunStatus.FINISHED]
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
            run.state, run.note = RunStatus.INCOMPATIBLE, "; ".join(said + more)


def _identity(values: Values) -> str:
    return json.dumps(values, sort_keys=True, default=str)


def _count_variants(runs: Sequence[Run], keys: Sequence[str]) -> list[Variant]:
    """The runs that are not foreign, by their values of the keys; a seed that an arm has already is marked."""
    variants: dict[str, Variant] = {}
    for run in runs:
        if run.state is RunStatus.INCOMPATIBLE:
            continue
        values = {key: run.values.get(key) for key in keys}
        variant = variants.setdefault(_identity(values), Variant(values, [], keys))
        same = [other.name for other in variant.runs if other.seed == run.seed]
        if same:
            run.state, run.note = RunStatus.DUPLICATE, f"the same arm and seed as {same[0]}, which counts"
        else:
            variant.runs.append(run)
    return list(variants.values())


def _in_order(variants: list[Variant], keys: Sequence[str]) -> list[Variant]:
    """Arms by their values: numbers rising, others as they come."""
    places = {}
    for key in keys:
        values = [variant.values[key] for variant in variants]
        are_numbers = all(type(value) in (int, float) for value in values)
        places[key] = sorted(values) if are_numbers else values
    return sorted(variants, key=lambda variant: [places[key].index(variant.values[key]) for key in keys])


def _shorten(variants: Sequence[Variant]) -> None:
    """Where one ordinary network stands beside ghost networks of one ratio, s tells it from them, and needs no more."""
    ordinary = [variant for variant in variants if variant.values.items() >= BASELINE_OVERRIDES.items()]
    ghosts = [variant for variant in variants if variant not in ordinary]
    if len(ordinary) == 1 and ghosts and len({variant.values["model.ratio"] for variant in ghosts}) == 1:
        ordinary[0].shown = list(BASELINE_OVERRIDES)
        for variant in ghosts:
            variant.shown = [key for key in variant.shown if key not in BASELINE_OVERRIDES] or variant.shown


def _baseline(variants: Sequence[Variant], keys: Sequence[str], asked: Values | None) -> Values:
    if asked is None:
        is_there = any(
            variant.values.items() >= BASELINE_OVERRIDES.items() for variant in variants if "model.ratio" in keys
        )
        return BASELINE_OVERRIDES if is_there else dict(variants[0].values) if variants else {}
    if not any(variant.values.items() >= asked.items() for variant in variants):
        there = "; ".join(variant.label for variant in variants)
        raise ValueError(f"task.baseline={dict(asked)}: no arm has it; there are {there}")
    return asked


def _compare(variants: Sequence[Variant], baseline: Values) -> None:
    """Pair each arm with its twin among the baselines, or with the only baseline that there is."""
    candidates = [
        variant for variant in variants if all(variant.values[key] == value for key, value in baseline.items())
    ]
    for variant in variants:
        if variant in candidates:
            continue
        matched_baseline = {**variant.values, **baseline}
        twins = [other for other in candidates if other.values == matched_baseline] or candidates
        if len(twins) == 1:
            variant.baseline = twins[0]
            variant.difference = paired(variant.by_seed, twins[0].by_seed, POINTS)
