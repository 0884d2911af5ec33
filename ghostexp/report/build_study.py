"""Group the runs of a study into variants, one run per seed, and pair each variant with its baseline."""

import json
from collections import Counter
from collections.abc import Sequence

from ghostexp.report.load_runs import Run, RunSet, RunStatus
from ghostexp.report.statistics import paired
from ghostexp.report.variants import RATIO, Study, Values, Variant, as_text
from ghostexp.runs.metrics import Metric
from ghostexp.runs.sweep_record import follows, is_seed, swept_keys

GROUPS = ("model", "datamodule", "optimizer", "scheduler")
BASELINE_OVERRIDES = {RATIO: 1}
USUAL_METRICS = (Metric("test/acc1"), Metric("test/map"))


def build_study(name: str, found: RunSet, requested: Values | None = None, usual: Values | None = None) -> Study:
    """Group runs into variants and pair each with its baseline.

    requested: values of the baselines. Without them: the usual ones, if a variant has them; model.ratio = 1; those of
    the first variant.
    Raises ValueError: no variant has the requested values.
    """
    keys = swept_keys(found.jobs.values()) if found.jobs else _differing(found.runs)
    finished = [run for run in found.runs if run.state is RunStatus.FINISHED]
    _agree_on_metric(finished)
    _mark_incompatible(finished, keys)
    variants = _in_order(_group_runs(finished, keys), keys)
    _shorten(variants, keys)
    _omit_usual_numbers(variants, keys)
    baseline = _baseline_values(variants, requested, [usual or {}, BASELINE_OVERRIDES])
    _compare(variants, baseline, _varied_by_baselines(found.runs, keys, baseline))
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
    return len({_identity({key: run.value(key) for key in keys}) for run in runs})


def _agree_on_metric(runs: Sequence[Run]) -> None:
    """Compare runs of several monitors by a metric that all have; mark those that have not that of the first."""
    if len({run.metric for run in runs}) > 1:
        metric = next((usual for usual in USUAL_METRICS if all(usual.name in run.test for run in runs)), runs[0].metric)
        for run in runs:
            if metric.name in run.test:
                run.metric = metric
            else:
                run.state, run.note = RunStatus.INCOMPATIBLE, f"has no {metric.name}"


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
        values = {key: run.value(key) for key in keys}
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


def _shorten(variants: Sequence[Variant], keys: Sequence[str]) -> None:
    """Omit from labels what all variants have in common.

    If all ghost variants share one ratio, label the only baseline `s = 1` and omit s elsewhere.
    """
    several = [key for key in keys if len({as_text(variant.values[key]) for variant in variants}) > 1]
    for variant in variants:
        variant.label_keys = several or variant.label_keys
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
    for key in keys:
        levels = [variant.values[key] for variant in variants]
        usual = {str(variant.values[key]) for variant in variants if not variant.is_ordinary}
        if key == RATIO or len(usual) != 1 or not all(type(level) in (int, float) for level in levels):
            continue
        if len(set(levels)) > 1:
            for variant in variants:
                if str(variant.values[key]) in usual:
                    kept = [other for other in variant.label_keys if other != key]
                    variant.label_keys = kept or variant.label_keys


def _baseline_values(variants: Sequence[Variant], requested: Values | None, usual: Sequence[Values]) -> Values:
    def is_there(values: Values) -> bool:
        return any(variant.values.items() >= values.items() for variant in variants)

    if requested is None:
        first = dict(variants[0].values) if variants else {}
        return next((values for values in usual if values and is_there(values)), first)
    if not is_there(requested):
        there = "; ".join(variant.label for variant in variants) or "none that is finished"
        raise ValueError(f"task.baseline={dict(requested)}: must be values of a variant; there are {there}")
    return requested


def _varied_by_baselines(runs: Sequence[Run], keys: Sequence[str], baseline: Values) -> list[str]:
    """Return the keys, other than its own, that the runs of the baseline vary, unfinished ones too."""
    ours = [run for run in runs if all(as_text(run.value(key)) == as_text(baseline[key]) for key in baseline)]
    levels = {key: {as_text(run.value(key)) for run in ours if run.has(key)} for key in keys if key not in baseline}
    return [key for key, found in levels.items() if len(found) > 1]


def _compare(variants: Sequence[Variant], baseline: Values, varied: Sequence[str]) -> None:
    """Pair each variant with the baseline that equals it in all other keys, or with the only one.

    varied: keys that differ between baselines, in which a variant equals its own.
    """
    candidates = [variant for variant in variants if variant.values.items() >= baseline.items()]
    for variant in variants:
        if variant in candidates:
            continue
        near = [other for other in candidates if all(other.values[key] == variant.values[key] for key in varied)]
        matched = [other for other in near if other.values == {**variant.values, **baseline}] or near
        if len(matched) == 1:
            variant.baseline = matched[0]
            variant.difference = paired(variant.by_seed, matched[0].by_seed, variant.metric.difference_range)
