"""From what Hydra composed to the plain configuration of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.fingerprint import differences

Config = dict[str, Any]
TAKEN_FROM_COMMAND = ("task", "run", "resume", "traceback", "output_dir")


def plain(composed: DictConfig, typed: Sequence[str]) -> Config:
    """The configuration of a run as plain containers: what was composed, or with `run=` what that run was.

    `typed` are the overrides as a person typed them; with `run=` only they, and the task, change the earlier run.
    """
    config = _resolve(composed)
    if config["resume"] is not None:
        return _resumed(config, typed)
    if config["run"] is not None:
        config["run"] = str(Path(config["run"]).absolute())
        return _overlaid(RunDirectory(Path(config["run"])).read_config("run"), config, typed)
    if config["task"]["name"] == "fit":
        _check(config)
    return config


def _resolve(composed: DictConfig) -> Config:
    missing = sorted(OmegaConf.missing_keys(composed))
    if missing:
        raise ValueError(f"{missing[0]}: a value is needed; set {missing[0]}=...")
    config = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(config, dict)
    return config  # pyright: ignore[reportReturnType]


def _resumed(config: Config, typed: Sequence[str]) -> Config:
    if config["task"]["name"] != "fit":
        raise ValueError(
            f"resume={config['resume']}: continues task=fit; for task={config['task']['name']} use run=DIR"
        )
    path = Path(config["resume"]).absolute()
    earlier = RunDirectory(path).read_config("resume")
    if earlier["task"]["name"] != "fit":
        raise ValueError(f"resume={path}: a run of task={earlier['task']['name']}, only task=fit can be continued")
    merged = _overlaid(earlier, config, typed) | {"resume": str(path)}
    changed = differences(earlier, merged)
    if changed:
        raise ValueError(f"resume={path}: another result would come out ({'; '.join(changed)}); start a new run for it")
    return merged


def _overlaid(earlier: Config, config: Config, typed: Sequence[str]) -> Config:
    """An earlier run's configuration with the task, and what was typed, of this one."""
    merged = {**earlier, **{key: config[key] for key in TAKEN_FROM_COMMAND}}
    for override in typed:
        path = override.lstrip("+~").partition("=")[0].partition("@")[0]
        group = path.partition(".")[0]
        if group in ("model", "experiment", "study"):
            earlier_run = "resume=" if config["resume"] is not None else "run="
            raise ValueError(f"{override}: {earlier_run} brings its own {group}; leave it out")
        if group in config and group not in TAKEN_FROM_COMMAND:
            _set(merged, config, path.split("."))
    return merged


def _set(target: Config, source: Config, path: list[str]) -> None:
    for key in path[:-1]:
        target[key] = dict(target.get(key) or {})
        target, source = target[key], source[key]
    if path[-1] in source:
        target[path[-1]] = source[path[-1]]
    else:  # deleted with ~
        target.pop(path[-1], None)


def _check(config: Config) -> None:
    """Raise ValueError for what concerns no single part below."""
    epochs = config["trainer"].get("max_epochs")
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
        raise ValueError(f"trainer.max_epochs={epochs}: a whole number >= 1 is needed; schedules are made for it")
    seed = config["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed={seed}: a whole number >= 0 is needed")
