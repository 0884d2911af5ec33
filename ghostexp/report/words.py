"""What a study shows, in sentences made from its numbers."""

from collections.abc import Sequence
from statistics import fmean

from ghostexp.report.arms import Arm, Study, as_text
from ghostexp.report.collect import Run
from ghostexp.report.published import published
from ghostexp.report.tables import baseline_label, difference_text, hardware, interval

CLAIM = 4.5  # points that s = 10 is said to lose less than, of Ghost-ResNet-56 on CIFAR-10, by a public replication
LISTED = 8  # as many problems are said of one kind


def summary(study: Study) -> str:
    """What the arms' differences to their baselines say, with their uncertainty."""
    if not study.arms:
        return "No run is finished: there is nothing to show yet."
    compared = [arm for arm in study.arms if arm.baseline]
    if not compared:
        return _alone(study.arms)
    known = [arm for arm in compared if arm.difference and arm.difference.estimate.interval]
    below = [arm for arm in known if _interval(arm)[1] < 0]
    above = [arm for arm in known if _interval(arm)[0] > 0]
    open_ = [arm for arm in known if arm not in below + above]
    unknown = [arm for arm in compared if arm not in known]
    against = f"Test {study.score} against {baseline_label(study)}, in points with 95 % intervals over equal seeds, "
    against += f"{_arms(len(compared))} compared: "
    parts = [
        f"lower for {_list(below)}" if below else "",
        f"higher for {_list(above)}" if above else "",
        f"no difference that {_seeds(open_)} could show for {_list(open_)}" if open_ else "",
        f"without an interval, for want of three equal seeds: {_list(unknown)}" if unknown else "",
    ]
    best = max(study.arms, key=lambda arm: arm.accuracy.mean)
    highest = f"The highest mean is that of {best.label}: {_mean(best)}."
    return f"{against}{'; '.join(part for part in parts if part)}. {highest}"


def _mean(arm: Arm) -> str:
    found = arm.accuracy
    return f"{found.mean:.2f} % {interval(found) or '(no interval)'}, n = {found.n}"


def _alone(arms: Sequence[Arm]) -> str:
    return f"Nothing is compared: {'; '.join(f'{arm.label} has {_mean(arm)}' for arm in arms)}."


def _arms(count: int) -> str:
    return f"{count} arm{'s' * (count > 1)}"


def _list(arms: Sequence[Arm]) -> str:
    return ", ".join(f"{arm.label} ({_difference(arm)})" for arm in arms)


def _difference(arm: Arm) -> str:
    if arm.difference is None:
        return "no equal seeds"
    return difference_text(arm.difference.estimate)


def _seeds(arms: Sequence[Arm]) -> str:
    counts = sorted({arm.difference.estimate.n for arm in arms if arm.difference})
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _interval(arm: Arm) -> tuple[float, float]:
    assert arm.difference is not None
    assert arm.difference.estimate.interval is not None
    return arm.difference.estimate.interval


def has_claim(study: Study) -> bool:
    """Whether there are s = 10 and its twin at s = 1."""
    return bool(_tens(study))


def _tens(study: Study) -> list[Arm]:
    is_ordinary = study.baseline.get("model.ratio") == 1
    return [arm for arm in study.arms if is_ordinary and arm.baseline and arm.values["model.ratio"] == 10]


def verdict(study: Study) -> str:
    """Whether s = 10 loses less than the replication says, of each arm that has it; empty where none has."""
    tens = _tens(study)
    if not tens:
        return ""
    run = tens[0].runs[0]
    is_theirs = (run.values["model"], run.values["datamodule"]) == ("ghost_resnet56", "cifar10")
    others = "" if is_theirs else " (not the network and data of the claim)"
    claim = f'A public replication says of Ghost-ResNet-56 on CIFAR-10 that "s = 10 loses less than {CLAIM} points". '
    return f"{claim}Of {subject(study)}{others}, this {'; '.join(map(_verdict, tens))}."


def _verdict(arm: Arm) -> str:
    if arm.difference is None or arm.difference.estimate.interval is None:
        return f"is **undecided** for {arm.label} ({_difference(arm)}, no interval)"
    low, high = _interval(arm)
    word = "**holds**" if low > -CLAIM else "**does not hold**" if high < -CLAIM else "is **undecided**"
    return f"{word} for {arm.label} ({_difference(arm)})"


def subject(study: Study) -> str:
    """The network and the data, those of them that are not varied."""
    run = study.runs[0]
    parts = [str(run.values["model"])] if "model" not in study.keys else ["several networks"]
    return f"{parts[0]} on {_data(run) if 'datamodule' not in study.keys else 'several data'}"


def title_of(study: Study) -> str:
    """What a report is called where nobody has said it."""
    name = study.name.replace("_", " ")
    return f"{name}: {subject(study)}" if study.arms else name


def setting(study: Study) -> str:
    """What all arms have in common."""
    if not study.runs:
        return ""
    run = study.runs[0]
    parts = [subject(study), *(str(run.values[key]) for key in ("optimizer", "scheduler") if key not in study.keys)]
    common = {"optimizer.lr": "learning rate", "datamodule.batch_size": "batch", "trainer.max_epochs": "epochs"}
    parts += [
        f"{name} {run.values[key]}" for key, name in common.items() if key in run.values and key not in study.keys
    ]
    tested = "last epoch" if run.result.get("tested") == "last" else "best epoch on the validation set"
    return f"{', '.join(parts)}; tested at the {tested}."


def _data(run: Run) -> str:
    fraction = run.values.get("datamodule.train_fraction", 1.0)
    return str(run.values["datamodule"]) + (f" ({100 * fraction:g} % of the training set)" if fraction < 1 else "")


def notes(study: Study) -> list[str]:
    """What a reader of the table has to know."""
    compared = [arm for arm in study.arms if arm.difference]
    found = []
    if any(arm.accuracy.interval for arm in study.arms):
        found.append(
            "Intervals are Student's, 95 %, over seeds alone: another test set would move all arms. Each is for one "
            f"comparison, not adjusted for their number ({len(compared)})."
        )
    if any(arm.accuracy.n == 1 for arm in study.arms):
        found.append("n = 1: a single seed has neither a standard deviation nor an interval.")
    if any(arm.accuracy.n == 2 for arm in study.arms):
        found.append("n = 2: {braces} hold the two values, where three seeds and more have an interval in [brackets].")
    found += [_unpaired(arm) for arm in study.arms if arm.baseline and (not arm.difference or arm.difference.left_out)]
    sources = sorted({f"{row.who}: {row.source}" for arm in study.arms for row in published(arm)})
    if sources:
        found.append(f"Published, of the same networks and data, if not trained alike: {'; '.join(sources)}.")
    elif study.arms:
        found.append("No published figure is known of these networks on these data.")
    machines = hardware(study.runs)
    if machines:
        found.append(f"img/s and seconds of training are medians over runs. Hardware: {'; '.join(machines)}.")
    if not study.has_even_speeds:
        found.append(
            f"Equal runs differ in img/s by a factor of up to {study.speed_spread:.1f}: the machine had other work, "
            "and the speeds of arms do not compare."
        )
    baselines = {name for run in study.runs for name in run.result.get("baselines", {})}
    for name in sorted(baselines):
        values = [run.result["baselines"][name] for run in study.runs if name in run.result.get("baselines", {})]
        found.append(f"Without a network: {name} has {fmean(values):.2f} % on these data.")
    return found


def _unpaired(arm: Arm) -> str:
    assert arm.baseline is not None
    if arm.difference is None:
        return f"{arm.label} and {arm.baseline.label} have no seed in common: they are not compared."
    seeds = arm.difference.left_out
    said = f"seed {seeds[0]} is" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))} are"
    return f"{arm.label}: {said} not in both it and {arm.baseline.label}, and no part of the difference."


def problems(study: Study) -> list[str]:
    """The runs that count nowhere, each as what it is; a long list of one kind is cut."""
    lines = []
    for state in dict.fromkeys(run.state for run in study.others):
        runs = [run for run in study.others if run.state is state]
        lines += [f"{state.value}: `{run.name}`" + (f" ({run.note})" if run.note else "") for run in runs[:LISTED]]
        lines += [f"{state.value}: and {len(runs) - LISTED} more, in results.csv"] if len(runs) > LISTED else []
    return lines


def arm_names(study: Study) -> str:
    """What a study varies."""
    return ", ".join(f"`{key}` ({', '.join(as_text(level) for level in study.levels(key))})" for key in study.keys)
