"""Group the runs of a study into variants, one run per seed, and pair each variant with its baseline."""

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ghostexp.report.load_runs import Run, RunSet, RunStatus
from ghostexp.report.statistics import Estimate, Paired, estimate, paired
from ghostexp.runs.metrics import metric_title, metric_unit, primary_metric
from ghostexp.runs.sweep_record import follows, is_seed, swept_keys

GROUPS = ("model", "datamodule", "optimizer", "scheduler")
SYMBOLS = {"model.ratio": "s", "model.dw_size": "d"}
BASELINE_OVERRIDES = {"model.ratio": 1}
PERCENT, POINTS = (0.0, 100.0), (-100.0, 100.0)  # ranges of an accuracy, and of a difference of two
MAX_EVEN_SPEED_RATIO = 1.5  # of the fastest to the slowest run of a variant

Values = Mapping[str, Any]  # values of the varied keys, by key


@dataclass(eq=False)
class Variant:
    """Finished runs of equal configuration, one per seed."""

    values: Values
    runs: list[Run]
    label_keys: Sequence[str]  # the keys that distinguish it from the other variants
    baseline: "Variant | None" = None
    difference: Paired | None = None  # to the baseline, in points of accuracy

    @cached_property
    def label(self) -> str:
        """Return its short name: `s = 2`, or `cosine, s = 1`; its network where nothing is varied."""
        return self.label_without(None) or str(self.runs[0].config["choices"]["model"])

    def label_without(self, axis: str | None) -> str:
        """Return the label without one key."""
        keys = [key for key in self.label_keys if key != axis and self.values[key] is not None]
        texts = {key: as_text(self.values[key]) for key in keys}
        groups = self.runs[0].config["choices"].keys()
        return ", ".join(text if key in groups else f"{symbol(key)} = {text}" for key, text in texts.items())

    @property
    def by_seed(self) -> dict[int, float]:
        """Return the test accuracy in percent, by seed."""
        return {run.seed: run.accuracy for run in self.runs}

    @cached_property
    def accuracy(self) -> Estimate:
        """Return mean and interval of the test accuracy in percent, over seeds."""
        return estimate([run.accuracy for run in self.runs], PERCENT)

    def median(self, key: str) -> float | None:
        """Return the median over runs of a number in result.json; None if no run has it."""
        numbers = [run.result[key] for run in self.runs if run.result.get(key) is not None]
        return statistics.median(numbers) if numbers else None


@dataclass(frozen=True)
class Study:
    """The contents of a report."""

    name: str
    keys: tuple[str, ...]
    variants: list[Variant]
    others: list[Run]  # runs of no variant
    baseline: Values = field(default_factory=dict)  # values of the baseline variants

    @property
    def runs(self) -> list[Run]:
        return [run for variant in self.variants for run in variant.runs]

    @property
    def metric(self) -> str:
        """Return the compared metric: `test/acc1`, `test/map` or that of `monitor`; without runs, `test/acc1`."""
        return (primary_metric(self.runs[0].result) if self.runs else None) or "test/acc1"

    @property
    def metric_title(self) -> str:
        """Return the title of the compared metric: accuracy, or mAP."""
        return metric_title(self.metric)

    @property
    def metric_label(self) -> str:
        """Return the title of the compared metric with its unit, if it has one."""
        return ", ".join(filter(None, (self.metric_title, metric_unit(self.metric))))

    @property
    def speed_spread(self) -> float:
        """Return the largest ratio of training speeds, fastest to slowest run, within one variant."""
        rates = [
            [run.result["images_per_second"] for run in variant.runs if run.result.get("images_per_second")]
            for variant in self.variants
        ]
        return max((max(variant) / min(variant) for variant in rates if variant), default=1.0)

    @property
    def has_even_speeds(self) -> bool:
        """Return whether speeds of variants are comparable; not if other work ran on the machine meanwhile."""
        return self.speed_spread < MAX_EVEN_SPEED_RATIO

    def levels(self, key: str) -> list[Any]:
        """Return the different values of a key, in the order of the variants."""
        found: list[Any] = []
        for variant in self.variants:
            if variant.values[key] not in found:
                found.append(variant.values[key])
        return found


def symbol(key: str) -> str:
    """Return the name of a key on an axis or in a table."""
    return SYMBOLS.get(key, key.rpartition(".")[2])


def as_text(value: Any) -> str:
    """Format a value as in an override: `[first]`; of a plan, its name."""
    if isinstance(value, Mapping):
        return str(value.get("name", f"{len(value.get('layers', value))} layers"))
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def build_study(name: str, found: RunSet, requested: Values | None = None) -> Study:
    """Group runs into variants and pair each with its baseline.

    requested: values of the baselines; by default model.ratio = 1, or else those of the first variant.
    Raises ValueError: no variant has these values.
    """
    keys = swept_keys(found.jobs.values()) if found.jobs else _differing(found.runs)
    finished = [run for run in found.runs if run.state is RunStatus.FINISHED]
    _mark_incompatible(finished, keys)
    variants = _in_order(_group_runs(finished, keys), keys)
    _shorten(variants)
    _omit_usual_numbers(variants, keys)
    baseline = _baseline_values(variants, keys, requested)
    _compare(variants, baseline)
    others = [run for run in found.runs if run.state is not RunStatus.FINISHED]
    return Study(name, keys, variants, others, baseline)


def _differing(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the keys in which runs differ, without seeds and values that follow from the option of a group."""
    finished = [run for run in runs if run.state is RunStatus.FINISHED]
    groups = tuple(key for key in GROUPS if _counts([key], finished) > 1)
    paths = dict.fromkeys(path for run in finished for path in run.result_values)
    keys = [
        path
        for path in paths
        if not is_seed(path)
        and _counts([path], finished) > 1
        and not (follows(path, groups) and _counts([*groups, path], finished) == _counts(groups, finished))
    ]
    return (*groups, *keys)


def _counts(keys: Sequence[str], runs: Sequence[Run]) -> int:
    """Count the different combinations of the values of keys."""
    return len({_identity({key: run.values.get(key) for key in keys}) for run in runs})


def _mark_incompatible(runs: Sequence[Run], keys: Sequence[str]) -> None:
    """Mark runs that differ from the most common configuration in more than keys and seeds."""
    families = [
        {path: value for path, value in run.result_values.items() if not is_seed(path) and not follows(path, keys)}
        for run in runs
    ]
    texts = [_identity(family) for family in families]
    if len(set(texts)) <= 1:
        return
    ours = families[texts.index(Counter(texts).most_common(1)[0][0])]
    for run, family in zip(runs, families, strict=True):
        if family != ours:
            paths = [path for path in {**ours, **family} if ours.get(path) != family.get(path)]
            differences = [f"{path} is {family.get(path)}, not {ours.get(path)}" for path in paths[:3]]
            more = [f"{len(paths) - 3} more"] if len(paths) > 3 else []
            run.state, run.note = RunStatus.INCOMPATIBLE, "; ".join(differences + more)


def _identity(values: Values) -> str:
    return json.dumps(values, sort_keys=True, default=str)


def _group_runs(runs: Sequence[Run], keys: Sequence[str]) -> list[Variant]:
    """Group compatible runs by their values of the keys; mark a run whose variant already has its seed."""
    variants: dict[str, Variant] = {}
    for run in runs:
        if run.state is RunStatus.INCOMPATIBLE:
            continue
        values = {key: run.values.get(key) for key in keys}
        variant = variants.setdefault(_identity(values), Variant(values, [], keys))
        same = [other.name for other in variant.runs if other.seed == run.seed]
        if same:
            run.state, run.note = RunStatus.DUPLICATE, f"same variant and seed as {same[0]}, which is used"
        else:
            variant.runs.append(run)
    return list(variants.values())


def _in_order(variants: list[Variant], keys: Sequence[str]) -> list[Variant]:
    """Sort variants by their values: numbers ascending, others as they come."""
    orders = {}
    for key in keys:
        values = [variant.values[key] for variant in variants]
        are_numbers = all(type(value) in (int, float) for value in values)
        orders[key] = sorted(values) if are_numbers else values
    return sorted(variants, key=lambda variant: [orders[key].index(variant.values[key]) for key in keys])


def _shorten(variants: Sequence[Variant]) -> None:
    """Shorten labels: if all ghost variants share one ratio, label the only baseline `s = 1` and omit s elsewhere."""
    baselines = [variant for variant in variants if variant.values.items() >= BASELINE_OVERRIDES.items()]
    ghosts = [variant for variant in variants if variant not in baselines]
    if len(baselines) == 1 and ghosts and len({variant.values["model.ratio"] for variant in ghosts}) == 1:
        baselines[0].label_keys = list(BASELINE_OVERRIDES)
        for variant in ghosts:
            variant.label_keys = [
                key for key in variant.label_keys if key not in BASELINE_OVERRIDES
            ] or variant.label_keys


def _omit_usual_numbers(variants: Sequence[Variant], keys: Sequence[str]) -> None:
    """Omit from labels a number that only networks without ghosts vary: `s = 4`, beside `s = 1, width = 0.72`."""
    ghosts = [variant for variant in variants if not variant.values.items() >= BASELINE_OVERRIDES.items()]
    for key in keys:
        levels = [variant.values[key] for variant in variants]
        if key in BASELINE_OVERRIDES or not all(type(level) in (int, float) for level in levels):
            continue
        usual = {variant.values[key] for variant in ghosts}
        if len(usual) == 1 < len(set(levels)):
            for variant in variants:
                if variant.values[key] in usual:
                    variant.label_keys = [other for other in variant.label_keys if other != key]


def _baseline_values(variants: Sequence[Variant], keys: Sequence[str], requested: Values | None) -> Values:
    if requested is None:
        is_there = any(
            variant.values.items() >= BASELINE_OVERRIDES.items() for variant in variants if "model.ratio" in keys
        )
        return BASELINE_OVERRIDES if is_there else dict(variants[0].values) if variants else {}
    if not any(variant.values.items() >= requested.items() for variant in variants):
        there = "; ".join(variant.label for variant in variants)
        raise ValueError(f"task.baseline={dict(requested)}: must be values of a variant; there are {there}")
    return requested


def _compare(variants: Sequence[Variant], baseline: Values) -> None:
    """Pair each variant with the baseline that equals it in all other keys, or with the only baseline."""
    candidates = [
        variant for variant in variants if all(variant.values[key] == value for key, value in baseline.items())
    ]
    for variant in variants:
        if variant in candidates:
            continue
        wanted = {**variant.values, **baseline}
        matched = [other for other in candidates if other.values == wanted] or candidates
        if len(matched) == 1:
            variant.baseline = matched[0]
            variant.difference = paired(variant.by_seed, matched[0].by_seed, POINTS)
