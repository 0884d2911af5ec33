"""Write the sentences of a report from its numbers."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from ghostexp.report.load_runs import Run
from ghostexp.report.published import published_results
from ghostexp.report.tables import baseline_label, difference_text, hardware, interval
from ghostexp.report.variants import Study, Variant, as_text

CLAIM = 4.5  # points: a replication claims that Ghost-ResNet-56 at s = 10 loses less than these on CIFAR-10
LISTED = 8  # problems of one status that are listed
COMMON = {"optimizer": "", "scheduler": "", "optimizer.lr": "learning rate"}  # keys of the setting with their names
COMMON |= {"datamodule.batch_size": "batch", "trainer.max_epochs": "epochs"}
CHECKPOINTS = {"last": "last epoch", "best": "best epoch on the validation set"}


def summary(study: Study) -> str:
    """Summarise the differences to the baselines, with intervals."""
    if not study.variants:
        return "No run is finished yet."
    compared = [variant for variant in study.variants if variant.baseline]
    if not compared:
        return f"No comparison: {'; '.join(f'{variant.label} has {_mean(variant)}' for variant in study.variants)}."
    known = [variant for variant in compared if variant.difference and variant.difference.estimate.interval]
    below = [variant for variant in known if _interval(variant)[1] < 0]
    above = [variant for variant in known if _interval(variant)[0] > 0]
    open_ = [variant for variant in known if variant not in below + above]
    unknown = [variant for variant in compared if variant not in known]
    metric = study.metric
    given = ["in points"] * bool(metric.unit) + ["with 95 % intervals over common seeds"] * bool(known)
    against = f"Test {metric.title} against {baseline_label(study)}, {' '.join(given)}".rstrip(", ") + ", "
    against += f"{_variant_count(len(compared))} compared: "
    parts = [
        f"lower for {_list(below)}" if below else "",
        f"higher for {_list(above)}" if above else "",
        f"no difference that {_seeds(open_)} could show for {_list(open_)}" if open_ else "",
        f"without an interval (fewer than three common seeds): {_list(unknown)}" if unknown else "",
    ]
    most, word = (max, "highest") if metric.higher_is_better else (min, "lowest")
    best = most(study.variants, key=lambda variant: variant.accuracy.mean)
    return (
        f"{against}{'; '.join(part for part in parts if part)}. The {word} mean is that of {best.label}: {_mean(best)}."
    )


def _mean(variant: Variant) -> str:
    found, metric = variant.accuracy, variant.metric
    return f"{metric.text(found.mean)} {interval(found, metric) or '(no interval)'}, n = {found.n}"


def _variant_count(count: int) -> str:
    return f"{count} variant{'s' * (count > 1)}"


def _list(variants: Sequence[Variant]) -> str:
    return ", ".join(f"{variant.label} ({_difference(variant)})" for variant in variants)


def _difference(variant: Variant) -> str:
    if variant.difference is None:
        return "no common seeds"
    return difference_text(variant.difference.estimate, variant.metric)


def _seeds(variants: Sequence[Variant]) -> str:
    counts = sorted({variant.difference.estimate.n for variant in variants if variant.difference})
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _interval(variant: Variant) -> tuple[float, float]:
    assert variant.difference is not None
    assert variant.difference.estimate.interval is not None
    return variant.difference.estimate.interval


def has_claim(study: Study) -> bool:
    """Return whether there are s = 10 and its baseline at s = 1."""
    return bool(_tens(study))


def _tens(study: Study) -> list[Variant]:
    is_ratio_baseline = study.baseline.get("model.ratio") == 1 and study.metric.name == "test/acc1"
    return [
        variant
        for variant in study.variants
        if is_ratio_baseline and variant.baseline and variant.values["model.ratio"] == 10
    ]


def claim_text(study: Study) -> str:
    """State for each variant at s = 10 whether the claim of the replication holds; empty without one."""
    tens = _tens(study)
    if not tens:
        return ""
    run = tens[0].runs[0]
    is_theirs = (run.values["model"], run.values["datamodule"]) == ("ghost_resnet56", "cifar10")
    is_theirs &= run.has_original_data
    others = "" if is_theirs else " (not the network and data of the claim)"
    claim = (
        f'A public replication claims for Ghost-ResNet-56 on CIFAR-10 that "s = 10 loses less than {CLAIM} points". '
    )
    return f"{claim}For {subject(study)}{others}, this {'; '.join(map(_claim_result, tens))}."


def _claim_result(variant: Variant) -> str:
    if variant.difference is None or variant.difference.estimate.interval is None:
        return f"is **undecided** for {variant.label} ({_difference(variant)}, no interval)"
    low, high = _interval(variant)
    word = "**holds**" if low > -CLAIM else "**does not hold**" if high < -CLAIM else "is **undecided**"
    return f"{word} for {variant.label} ({_difference(variant)})"


def subject(study: Study) -> str:
    """Name the network and the data, where they are the same for all runs."""
    data = {_data(run) for run in study.runs}
    shown = data.pop() if len(data) == 1 else _common(study, "datamodule") or "several data"
    return f"{_common(study, 'model') or 'several networks'} on {shown}"


def default_title(study: Study) -> str:
    """Return the title of a report without task.title."""
    name = study.name.replace("_", " ")
    return f"{name}: {subject(study)}" if study.variants else name


def setting(study: Study) -> str:
    """Describe what all runs have in common."""
    if not study.runs:
        return ""
    parts = [subject(study)]
    for key, name in COMMON.items():
        if (value := _common(study, key)) is not None:
            parts.append(f"{name} {value}".strip())
    tested = {CHECKPOINTS.get(str(run.result.get("test_checkpoint")), CHECKPOINTS["best"]) for run in study.runs}
    return f"{', '.join(parts)}; tested at the {' or the '.join(sorted(tested))}."


def _common(study: Study, key: str) -> Any:
    """Return the value that all runs have; None if they differ."""
    values = [run.values.get(key) for run in study.runs]
    return values[0] if all(value == values[0] for value in values) else None


def _data(run: Run) -> str:
    fraction = run.values.get("datamodule.train_fraction", 1.0)
    return str(run.values["datamodule"]) + (f" ({100 * fraction:g} % of the training set)" if fraction < 1 else "")


def notes(study: Study) -> list[str]:
    """Return the notes below the table."""
    compared = [variant for variant in study.variants if variant.difference]
    found = []
    if any(variant.accuracy.interval for variant in study.variants):
        found.append(
            "Intervals are Student's, 95 %, over seeds only: another test set would shift all variants. Each is for "
            f"one comparison, not adjusted for their number ({len(compared)})."
        )
    if any(variant.accuracy.n == 1 for variant in study.variants):
        found.append("n = 1: a single seed has neither a standard deviation nor an interval.")
    if any(variant.accuracy.n == 2 for variant in study.variants):
        found.append("n = 2: {braces} have the two values; three seeds and more have an interval in [brackets].")
    found += [
        _unpaired(variant)
        for variant in study.variants
        if variant.baseline and (not variant.difference or variant.difference.left_out)
    ]
    if alone := [variant for variant in study.variants if not variant.baseline and not study.is_baseline(variant)]:
        labels = "; ".join(variant.label for variant in alone)
        found.append(f"Not compared, as no baseline with the same values of the other keys is finished: {labels}.")
    sources = sorted({f"{row.who}: {row.source}" for variant in study.variants for row in published_results(variant)})
    if sources:
        found.append(
            f"Published results of the same networks and data, but maybe of another training: {'; '.join(sources)}."
        )
    elif study.variants:
        found.append("No published results of these networks on these data are known.")
    if not all(run.has_original_data for run in study.runs):
        found.append(
            "The images are folders of image files, not the files of the data set's authors: accuracies can be "
            "compared with each other, not with published ones."
        )
    machines = hardware(study.runs)
    if machines:
        found.append(f"img/s and seconds of training are medians over runs. Hardware: {'; '.join(machines)}.")
        found.append(training_time([float(run.result.get("train_seconds") or 0.0) for run in study.runs]))
    if elsewhere := [variant.label for variant in study.variants if variant not in study.timed_variants]:
        found.append(f"Not comparable in speed, as they ran on other hardware or on several: {'; '.join(elsewhere)}.")
    if not study.has_even_speeds:
        found.append(
            f"Runs of one variant differ in img/s by a factor of up to {study.speed_spread:.1f}: other work ran on the "
            "machine, and the speeds of variants are not comparable."
        )
    return found + _without_network(study)


def _without_network(study: Study) -> list[str]:
    """State the accuracy of methods without a network; a range if the variants have different data."""
    found = []
    baselines = [[run.result.get("baselines", {}) for run in variant.runs] for variant in study.variants]
    for name in sorted({name for runs in baselines for run in runs for name in run}):
        of_variants = [[run[name] for run in runs if name in run] for runs in baselines]
        means = sorted(fmean(values) for values in of_variants if values)
        low, high = f"{means[0]:.2f}", f"{means[-1]:.2f}"
        has = f"{low} % on these data" if low == high else f"{low} to {high} %, depending on the data of a variant"
        found.append(f"Without a network: {name} has {has}.")
    return found


def training_time(seconds: Sequence[float]) -> str:
    """Return how long runs trained in all, as if one had run after the other."""
    total = sum(seconds)
    time = f"{total / 3600:.1f} hours" if total >= 3600 else f"{total / 60:.1f} minutes"
    return f"The training of {len(seconds)} run{'s' * (len(seconds) > 1)} took {time} in all, evaluation not counted."


def _unpaired(variant: Variant) -> str:
    assert variant.baseline is not None
    if variant.difference is None:
        return f"{variant.label} and {variant.baseline.label} have no common seed: they are not compared."
    seeds = variant.difference.left_out
    text = f"seed {seeds[0]} is" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))} are"
    return f"{variant.label}: {text} not common with {variant.baseline.label} and left out of the difference."


def problems(study: Study) -> list[str]:
    """List the runs that are in no variant with their status; of one status, at most LISTED."""
    lines = []
    for state in dict.fromkeys(run.state for run in study.others):
        runs = [run for run in study.others if run.state is state]
        lines += [f"{state.value}: `{run.name}`" + (f" ({run.note})" if run.note else "") for run in runs[:LISTED]]
        lines += [f"{state.value}: and {len(runs) - LISTED} more, in results.csv"] if len(runs) > LISTED else []
    return lines


def varied_keys_text(study: Study) -> str:
    """List the varied keys with their values."""
    return ", ".join(f"`{key}` ({', '.join(as_text(level) for level in study.levels(key))})" for key in study.keys)
