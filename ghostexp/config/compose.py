"""Convert a configuration composed by Hydra to the plain configuration of a run."""

import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ghostexp.config.config_files import describe_groups
from ghostexp.config.hydra_errors import to_user_error
from ghostexp.config.keys import ROOT
from ghostexp.config.plan_file import read_plans
from ghostexp.config.plugins import installed_packages, modules_in, typed_config_dir
from ghostexp.config.pretrained import check_pretrained
from ghostexp.config.run_overlay import ParsedCommand
from ghostexp.config.schema import check, unknown_key_message
from ghostexp.config.trainer_arguments import check_trainer
from ghostexp.config.trust import check_saved_config
from ghostexp.runner.ranks import ON_SEVERAL_DEVICES
from ghostexp.runs import naming
from ghostexp.runs.config_keys import ADDED_KEYS, COMMAND_KEYS, STUDY_TASKS, SWEEP_ONLY_KEYS
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.fingerprint import differences
from ghostexp.runs.third_party import texts

Config = dict[str, Any]
PACKAGE = Path(__file__).parent.parent
# In a wheel conf/ is inside the package, in the source tree beside it. An absolute path works from any directory.
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if path.is_dir())
GROUPS = ("model", "datamodule", "optimizer", "scheduler", "experiment", "study")


def register_resolvers() -> None:
    """Register the resolvers of names, `${run_name:...}`, and of the groups in `--help`."""
    for name in ("run_dir", "run_name", "record_subdir", "sweep_dir"):
        OmegaConf.register_new_resolver(name, getattr(naming, name), replace=True)
    OmegaConf.register_new_resolver("config_groups", describe_groups, replace=True)


def resolve_config(
    composed: DictConfig, choices: Mapping[str, str | None], command: ParsedCommand | None = None
) -> Config:
    """Return the configuration of a run as plain containers: the composed one, or an earlier run's with overrides.

    choices: the option chosen in each group.
    """
    check_pretrained(choices, CONF)
    config = checked(composed)
    for key in SWEEP_ONLY_KEYS:
        del config[key]
    config["choices"] = {group: choices.get(group) or _target_name(config, group) for group in GROUPS}
    if command is not None and command.earlier is not None:
        config = _overlay_earlier_run(command, config)
        check({**SWEEP_ONLY_KEYS, **config}, variables=command.config)
    read_plans(config)
    config_dir = typed_config_dir(sys.argv)
    config["config_dir"] = str(config_dir) if config_dir else config.get("config_dir")
    if "root" in config["datamodule"]:
        config["datamodule"]["root"] = str(Path(config["datamodule"]["root"]).absolute())
    if config["task"]["name"] in ON_SEVERAL_DEVICES:  # the tasks of Lightning's Trainer
        check_trainer(config["trainer"], config["task"]["name"])
    if config["task"]["name"] == "fit":
        _check(config)
        _check_teacher(config)
    return config


def _target_name(config: Config, group: str) -> str | None:
    """Return the name of a typed `_target_` in place of an option: `package.module.Net` is Net."""
    target = (config.get(group) or {}).get("_target_")
    return None if target is None else str(target).rpartition(".")[2]


def checked(composed: DictConfig) -> Config:
    """Validate a composed configuration and return it as plain containers, without Hydra's own part.

    Raises ValueError: a missing or wrong value, a broken reference or an unknown key.
    """
    if "hydra" in composed:
        composed = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    if isinstance(composed.get("data_dir"), str):
        composed.data_dir = str(Path(composed.data_dir).absolute())
    config = plain_node(composed)
    missing = sorted(key for key, text in texts(config) if text == "???")  # OmegaConf's search would resolve again
    if missing:
        raise ValueError(f"{missing[0]}: must be set; {missing[0]}=...")
    check(config, variables=_referred(composed) if config.keys() - ROOT.keys() else ())
    return config


def plain_node(node: DictConfig) -> Config:
    """Resolve a configuration, or a part of one, to plain containers.

    Raises ValueError: a reference to an unknown key.
    """
    try:
        config = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        raise to_user_error(error, (), CONF) from error
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def _referred(composed: DictConfig) -> set[str]:
    """Return the top-level keys that others refer to as `${KEY}`."""
    text = str(OmegaConf.to_container(composed, resolve=False))
    return set(re.findall(r"\$\{(\w+)[}.]", text))


def _overlay_earlier_run(command: ParsedCommand, composed: Config) -> Config:
    """Overlay the task and overrides of this command on an earlier run's configuration."""
    assert command.earlier is not None
    task = composed["task"]["name"]
    if task in STUDY_TASKS:
        runs = shlex.quote(f"task.runs={command.earlier.path}")
        raise ValueError(f"{command.key}={command.earlier.path}: task={task} reads several runs; use {runs}")
    if (command.key == "resume") != (task == "fit"):
        use = "task=fit" if command.key == "resume" else "another task, such as task=test; use resume= to continue"
        raise ValueError(f"{command.key}={command.earlier.path}: must be used with {use}")
    before = ADDED_KEYS | command.config
    if command.key == "resume" and before["task"]["name"] != "fit":
        raise ValueError(f"resume={command.earlier.path}: a run of task={before['task']['name']} cannot be continued")
    if task not in ON_SEVERAL_DEVICES:
        before = {**before, "trainer": {**before["trainer"], "devices": 1, "num_nodes": 1}}
    if task != "fit":  # which alone computes the statistics of BatchNorm
        before = {**before, "trainer": {**before["trainer"], "sync_batchnorm": False}}
    from_command = [key for key in (*COMMAND_KEYS, *command.groups) if key in composed]
    merged = OmegaConf.create({**before, **{key: composed[key] for key in from_command}})
    for text in command.changes:
        _apply_override(merged, text)
    config = plain_node(merged)
    chosen = {group: composed["choices"][group] for group in command.groups if group in GROUPS}
    config["choices"] = {**config.get("choices", {}), **chosen}
    changed = differences(before, config)
    if command.key == "resume" and changed:
        where = f"resume={command.earlier.path}"
        raise ValueError(f"{where}: overrides change the result ({'; '.join(changed)}); start a new run")
    return config


def _apply_override(config: DictConfig, text: str) -> None:
    try:
        (override,) = OverridesParser.create().parse_overrides([text])
    except HydraException as error:
        raise to_user_error(error, [text], CONF) from error
    if override.is_sweep_override():
        raise ValueError(f"{text}: must be a single value with run= and resume=")
    key = override.key_or_group
    parent, _, leaf = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    is_new = override.is_add() or override.is_force_add()
    if is_new and node is None:
        node = OmegaConf.create()  # callbacks.NAME._target_ adds callbacks.NAME
    if not isinstance(node, DictConfig) or (leaf not in node and not is_new):
        siblings = [str(name) for name in node] if isinstance(node, DictConfig) else []
        raise ValueError(unknown_key_message(text, key, siblings))
    if override.is_delete():
        del node[leaf]
    else:
        OmegaConf.update(config, key, override.value(), force_add=True)


def _check_teacher(config: Config) -> None:
    """Raise ValueError for a teacher's run whose configuration calls code that is not trusted."""
    teacher = (config["loss"].get("distill") or {}).get("teacher")
    if isinstance(teacher, str) and (run := RunDirectory(Path(teacher))).config.is_file():
        folder, allow = config["config_dir"], config["allow"]
        allowed = {*([allow] if isinstance(allow, str) else allow), *(modules_in(Path(folder)) if folder else ())}
        check_saved_config(run.read_config("loss.distill.teacher"), run.path, allowed | installed_packages())


def _check(config: Config) -> None:
    """Raise ValueError for invalid combinations of keys."""
    trainer, validate_on = config["trainer"], config["datamodule"].get("validate_on")
    epochs = trainer["max_epochs"]
    every = trainer.get("check_val_every_n_epoch") or 1
    validates = trainer.get("limit_val_batches") != 0 and every <= epochs
    needs = "datamodule.validate_on=holdout" if validate_on == "holdout" else "callbacks.patience"
    if not validates and (validate_on == "holdout" or config["callbacks"].get("patience") is not None):
        raise ValueError(f"{needs}: needs validation; see trainer.limit_val_batches, trainer.check_val_every_n_epoch")
