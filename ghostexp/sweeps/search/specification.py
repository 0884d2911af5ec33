"""Read what a command searches: the grid, the ranges, and the settings of conf/search."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from ghostexp.runs.config_keys import COMMAND_KEYS, IGNORED_KEYS, RESULT_KEYS, SWEEP_ONLY_KEYS
from ghostexp.runs.naming import job_dirname
from ghostexp.runs.sweep_record import is_seed
from ghostexp.runs.trials import SearchRecord
from ghostexp.sweeps.search.space import Dimension, Values, count_trials, is_searched, read_dimension

# By which a search goes on, and does not become another.
CHANGEABLE = ("trials", "budget", "seeds", "test_seeds", "contenders", "groups")
CHANGEABLE += ("hours", "startup", "test_overrides", "tune_on_test")
NOT_SEARCHED = ("trainer.devices", "trainer.num_nodes", "trainer.max_epochs", "metrics", "monitor")
NOT_SEARCHED += tuple(
    f"datamodule.{key}" for key in ("split_seed", "validate_on", "holdout_fraction")
)  # what is compared
OF_COMMAND = {*COMMAND_KEYS, *SWEEP_ONLY_KEYS, "name", "study"} - {"hydra", "debug"}
# Keys that need another one.
NEEDED = {"factor": "rungs", "horizon": "rungs", "test_overrides": "test_seeds", "direction": "metric"}


@dataclass(frozen=True)
class SearchSpec:
    """What a command searches.

    fixed: overrides of every trial. groups: values of the grid by their name; for each there is a search.
    """

    space: list[Dimension]
    groups: dict[str, list[str]]
    seeds: list[int]
    fixed: list[str]


def read_spec(params: Sequence[Override], typed: Sequence[Override], seed: int, sampler: str) -> SearchSpec:
    """Sort overrides; typed ones replace those of a study.

    Raises ValueError: nothing to search, or a key that cannot be searched.
    """
    for override in typed:
        if _is_of_search(override) and override.is_sweep_override():
            raise ValueError(f"{override.input_line}: must have one value")
    of_study = {one.get_key_element(): one for one in params}
    overrides = of_study | {one.get_key_element(): one for one in typed if not _is_of_search(one)}
    space = [read_dimension(one) for one in overrides.values() if is_searched(one) and not _is_seed_range(one)]
    if not space:
        raise ValueError(f"search={sampler}: there is nothing to search; add ranges, such as KEY=interval(A,B)")
    for dimension in space:
        _check(dimension, sampler)
    grid = {
        key: _narrowed(of_study.get(key), one)
        for key, one in overrides.items()
        if key != "seed" and not is_searched(one) and (_is_grid(one) or _is_grid(of_study.get(key)))
    }
    if wrong := next((key for key in grid if _head(key) in OF_COMMAND), None):
        raise ValueError(f"{overrides[wrong].input_line}: must have one value in a search")
    seeds = _seeds(overrides["seed"]) if "seed" in overrides else [seed]
    groups: dict[str, list[str]] = {}
    for chosen in itertools.product(*grid.values()):
        pairs = list(zip(grid, chosen, strict=True))
        name = job_dirname(pairs) if pairs else ""
        groups[job_dirname(pairs, is_taken=True) if name in groups else name] = [f"{key}={text}" for key, text in pairs]
    varied = {*grid, "seed", *(dimension.key for dimension in space)}
    fixed = [str(one.input_line) for key, one in overrides.items() if key not in varied]
    return SearchSpec(space, groups, seeds, fixed)


def _is_of_search(override: Override) -> bool:
    key = override.get_key_element().lstrip("+~")
    return key == "search" or key.startswith("search.")


def _is_seed_range(override: Override) -> bool:
    return override.get_key_element() == "seed" and override.is_discrete_sweep()


def _is_grid(override: Override | None) -> bool:
    return override is not None and override.is_sweep_override() and not is_searched(override)


def _narrowed(of_study: Override | None, override: Override) -> list[str]:
    """Return the values of a key of the grid.

    Raises ValueError: a typed value that the grid of the study does not have.
    """
    values = _texts(override)
    known = _texts(of_study) if of_study is not None and _is_grid(of_study) else values
    if unknown := [value for value in values if value not in known]:
        raise ValueError(f"{override.get_key_element()}={unknown[0]}: the study has {','.join(known)}")
    return list(dict.fromkeys(values))


def _texts(override: Override) -> list[str]:
    is_sweep = override.is_sweep_override()
    return list(override.sweep_string_iterator()) if is_sweep else [override.get_value_element_as_str()]


def _seeds(override: Override) -> list[int]:
    texts = _texts(override)
    if not all(text.isdigit() for text in texts) or len({*texts}) < len(texts):
        raise ValueError(f"{override.input_line}: must be different integers >= 0")
    return [int(text) for text in texts]


def _head(key: str) -> str:
    """Return the top-level key, or the group, of an override."""
    return re.split(r"[.@]", key.lstrip("+~"), maxsplit=1)[0]


def _check(dimension: Dimension, sampler: str) -> None:
    key = dimension.key.lstrip("+")
    if key in NOT_SEARCHED or is_seed(key) or _head(key) not in RESULT_KEYS or key in IGNORED_KEYS:
        raise ValueError(f"{dimension.key}={dimension.text}: cannot be searched")
    if sampler == "grid" and not dimension.is_finite:
        raise ValueError(f"{dimension.key}={dimension.text}: search=grid needs choice(...) or range(...)")


def check_effect(typed: Sequence[Override], search: Mapping[str, Any], spec: SearchSpec) -> None:
    """Raise ValueError for a typed key without another one that it needs, or that a search sets itself."""
    needed = {key: f"search.{other}" for key, other in NEEDED.items() if not search[other]}
    if len(spec.seeds) == 1 or search["cost"]:
        needed["contenders"] = "search.cost=null" if search["cost"] else "further seeds, such as seed=0,1,2"
    for override in typed:
        key = override.get_key_element().removeprefix("search.")
        if _is_of_search(override) and key in needed:
            raise ValueError(f"{override.input_line}: needs {needed[key]}")
        if override.get_key_element().startswith("scheduler.horizon") and search["horizon"] == "rung":
            raise ValueError(f"{override.input_line}: cannot be set with search.horizon=rung, which sets it")


def corners(space: Sequence[Dimension]) -> list[Values]:
    """Return the values to check before a search: the first corner, and from it each end or choice of each key."""
    first = {dimension.key: dimension.corners[0] for dimension in space}
    return [first, *(first | {one.key: text} for one in space for text in one.corners[1:])]


def build_record(spec: SearchSpec, search: Mapping[str, Any], config: Mapping[str, Any]) -> SearchRecord:
    """Build the record of a search from `search` and the configuration of one of its trials.

    Its metric is empty where the LightningModule decides.

    Raises ValueError: a combination of values that cannot be searched.
    """
    epochs, tests = config["trainer"]["max_epochs"], search["test_seeds"]
    rungs = _rungs(search["rungs"], config["trainer"])
    _check_metric(search)
    if search["sampler"] != "grid" and all(search[name] is None for name in ("trials", "epochs", "hours")):
        raise ValueError("search.trials=null: set search.trials, search.epochs or search.hours")
    _check_data(search, config)
    if search["cost"] and rungs:
        raise ValueError(
            f"search.cost={search['cost']}: needs search.rungs=[]; trials are compared when they are trained"
        )
    if search["cost"] and search["sampler"] == "cmaes":
        raise ValueError(f"search.cost={search['cost']}: cannot be used with search=cmaes, which has one objective")
    if not all(type(seed) is int and seed >= 0 for seed in tests) or len({*tests}) < len(tests):
        raise ValueError(f"search.test_seeds={tests}: must be different integers >= 0")
    if common := {*spec.seeds} & {*tests}:
        raise ValueError(f"search.test_seeds={tests}: must be other seeds than seed={min(common)}")
    space = {dimension.key: dimension.text for dimension in spec.space}
    named = {name: search[name] for name in ("sampler", "seed", "direction", "horizon", "trials", "contenders", "cost")}
    record = SearchRecord(
        **named,
        space=space,
        groups=spec.groups,
        metric=search["metric"] or "",
        epochs=epochs,
        rungs=rungs,
        factor=search["factor"],
        seeds=spec.seeds,
        test_seeds=tests,
        budget=search["epochs"],
        hours=search["hours"],
        startup=search.get("startup"),
        test_overrides=list(search["test_overrides"]),
        tune_on_test=search["tune_on_test"],
    )
    _check_budget(record, spec)
    return record


def _check_budget(record: SearchRecord, spec: SearchSpec) -> None:
    """Raise ValueError if the epochs are too few for one trial and the further seeds."""
    further = record.further_runs(count_trials(spec.space))
    least = record.epochs * (1 + further) * len(spec.groups)
    if record.budget is not None and record.budget < least:
        each = f" for each of {len(spec.groups)} values of the grid" if len(spec.groups) > 1 else ""
        what = f"one trial of {record.epochs} epochs" + (f" and {further} runs with further seeds" if further else "")
        raise ValueError(f"search.epochs={record.budget}: must be at least {least}, {what}{each}")


def _rungs(rungs: Sequence[Any], trainer: Mapping[str, Any]) -> list[int]:
    epochs, every = trainer["max_epochs"], trainer.get("check_val_every_n_epoch") or 1
    found = [rung for rung in rungs if rung != epochs]
    if not all(type(rung) is int and 0 < rung <= epochs for rung in rungs) or list(rungs) != sorted({*rungs}):
        raise ValueError(f"search.rungs={list(rungs)}: must be rising epochs up to trainer.max_epochs={epochs}")
    if unseen := [rung for rung in found if rung % every]:
        raise ValueError(
            f"search.rungs={list(rungs)}: there is no validation after epoch {unseen[0]}; "
            f"trainer.check_val_every_n_epoch={every}"
        )
    return found


def describe_early_rungs(record: SearchRecord, scheduler: Mapping[str, Any]) -> str | None:
    """Return a warning if trials are compared while their learning rates still rise."""
    rise = max(scheduler.get("warmup_epochs") or 0, (scheduler.get("pct_start") or 0) * record.epochs)
    early = [rung for rung in record.rungs if rung <= rise]
    if record.horizon != "final" or not early:
        return None
    return (
        f"search.rungs={list(record.rungs)}: learning rates rise until epoch {rise:g}, and metrics at epoch {early[0]} "
        "hardly tell good trials from others; search.horizon=rung, or later rungs"
    )


def _check_metric(search: Mapping[str, Any]) -> None:
    metric = search["metric"]
    if metric and not metric.startswith("val/"):
        raise ValueError(f"search.metric={metric}: must be a metric of the validation, val/...")
    if metric and metric.endswith("loss") and search["direction"] == "maximize":
        raise ValueError(f"search.metric={metric}: needs search.direction=minimize")


def _check_data(search: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    if config["task"]["name"] != "fit":
        raise ValueError(f"search={search['sampler']}: needs task=fit, got task={config['task']['name']}")
    if config["trainer"].get("limit_val_batches") == 0:
        raise ValueError("trainer.limit_val_batches=0: a search needs validation")
    if config["datamodule"].get("validate_on") == "test" and not search["tune_on_test"]:
        raise ValueError(
            "datamodule.validate_on=test: a search would tune on the test set; "
            "use datamodule.validate_on=holdout, or search.tune_on_test=true if it is meant"
        )


def check_same(directory: Path, before: Mapping[str, Any], record: SearchRecord) -> None:
    """Raise ValueError if a directory contains another search; budgets and seeds may change."""
    after = {field.name: getattr(record, field.name) for field in fields(record) if field.name not in CHANGEABLE}
    changed = [f"{name}: {_shown(before.get(name))} -> {_shown(value)}" for name, value in after.items()]
    changed = [text for text, (name, value) in zip(changed, after.items(), strict=True) if before.get(name) != value]
    changed += (
        [f"first seed: {before['seeds'][0]} -> {record.seeds[0]}"] if before["seeds"][0] != record.seeds[0] else []
    )
    if changed:
        raise ValueError(f"{directory}: contains another search ({'; '.join(changed)}); name=... starts a new one")


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key}={text}" for key, text in value.items())
    return str(value)
