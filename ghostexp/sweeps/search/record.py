"""Build the record of a search from conf/search, and compare it with that of its directory."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ghostexp.runs.trials import SearchRecord
from ghostexp.sweeps.search.space import count_trials
from ghostexp.sweeps.search.specification import SearchSpec

# By which a search goes on, and does not become another.
CHANGEABLE = ("trials", "budget", "seeds", "test_seeds", "contenders", "groups")
CHANGEABLE += ("hours", "startup", "test_overrides", "tune_on_test")


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
    if ("" in before["groups"]) != ("" in record.groups):
        grids = (", ".join(filter(None, groups)) or "none" for groups in (before["groups"], record.groups))
        changed.append(f"grid: {' -> '.join(grids)}")
    if changed:
        raise ValueError(f"{directory}: contains another search ({'; '.join(changed)}); name=... starts a new one")


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key}={text}" for key, text in value.items())
    return str(value)
