"""The variants of a study: runs of equal configuration, one per seed."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ghostexp.report.load_runs import Run
from ghostexp.report.statistics import Estimate, Paired, Seed, estimate
from ghostexp.runs.metrics import Metric
from ghostexp.runs.sweep_record import RECIPES

RATIO = "model.ratio"
SYMBOLS = {RATIO: "s", "model.dw_size": "d"}
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
        return self.label_without() or str(self.runs[0].config["choices"]["model"])

    def label_without(self, *omitted: str | None) -> str:
        """Return the label without some keys."""
        keys = [key for key in self.label_keys if key not in omitted and self.values[key] is not None]
        texts = {key: as_text(self.values[key]) for key in keys}
        options = {*self.runs[0].config["choices"], *RECIPES}
        is_option = {key: key in options or "@" in key for key in texts}
        return ", ".join(text if is_option[key] else f"{symbol(key)} = {text}" for key, text in texts.items())

    @property
    def is_ordinary(self) -> bool:
        """Return whether its networks have no ghosts, where the ratio is varied."""
        has_plan = self.runs[0].values.get("model.plan") is not None
        return RATIO in self.values and self.values[RATIO] in (1, None) and not has_plan

    @property
    def metric(self) -> Metric:
        """Return the compared metric."""
        return self.runs[0].metric

    @property
    def by_seed(self) -> dict[Seed, float]:
        """Return the test accuracy in percent, by seed."""
        return {run.seed: run.accuracy for run in self.runs}

    @cached_property
    def accuracy(self) -> Estimate:
        """Return mean and interval of the test accuracy in percent, or of another compared metric, over seeds."""
        return estimate([run.accuracy for run in self.runs], self.metric.range)

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
    def metric(self) -> Metric:
        """Return the compared metric: `test/acc1`, `test/map` or that of `monitor`; without runs, `test/acc1`."""
        return self.runs[0].metric if self.runs else Metric("test/acc1")

    def is_baseline(self, variant: Variant) -> bool:
        """Return whether a variant has the values of the baselines."""
        return variant.values.items() >= self.baseline.items()

    @cached_property
    def timed_variants(self) -> list[Variant]:
        """Return the variants whose speeds can be compared: every run on the machine that has the most of them."""
        machines = [{run.machine for run in variant.runs} for variant in self.variants]
        single = [machine for found in machines if len(found) == 1 for machine in found]
        most = {max(single, key=single.count)} if single else None
        return [variant for variant, found in zip(self.variants, machines, strict=True) if found == most]

    @property
    def speed_spread(self) -> float:
        """Return the largest ratio of training speeds, fastest to slowest run, within one of the timed variants."""
        rates = [
            [run.result["images_per_second"] for run in variant.runs if run.result.get("images_per_second")]
            for variant in self.timed_variants
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
