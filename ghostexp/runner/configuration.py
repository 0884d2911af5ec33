"""From what Hydra composed to the plain configuration of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ghostexp.runner.command import Command
from ghostexp.runner.command_errors import no_such_key
from ghostexp.runner.ranks import ON_SEVERAL_DEVICES
from ghostexp.runs.fingerprint import differences

Config = dict[str, Any]
PACKAGE = Path(__file__).parent.parent
# In a wheel conf/ is inside the package, in the source tree beside it. An absolute path works from any directory.
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if path.is_dir())
OF_SWEEPS = ("n_jobs", "fail_fast", "plan")  # keys that are nothing to a single run
GROUPS = ("model", "datamodule", "optimizer", "scheduler", "experiment", "study")


def plain(composed: DictConfig, choices: Mapping[str, str | None], command: Command | None = None) -> Config:
    """The configuration of a run as plain containers: what was composed, or what an earlier run was, with changes.

    choices: the option that was taken of each group.
    """
    try:
        composed.data_dir = str(Path(composed.data_dir).absolute())
        config = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException:
        if missing := sorted(OmegaConf.missing_keys(composed)):
            raise ValueError(f"{missing[0]}: a value is needed; set {missing[0]}=...") from None
        raise
    assert isinstance(config, dict)
    for key in OF_SWEEPS:
        del config[key]
    config["choices"] = {group: choices.get(group) for group in GROUPS}
    if command is not None and command.earlier is not None:
        config = _of_earlier_run(command, config)  # pyright: ignore[reportArgumentType]
    if "root" in config["datamodule"]:
        config["datamodule"]["root"] = str(Path(config["datamodule"]["root"]).absolute())
    if config["task"]["name"] == "fit":
        _check(config)  # pyright: ignore[reportArgumentType]
    return config  # pyright: ignore[reportReturnType]


def _of_earlier_run(command: Command, composed: Config) -> Config:
    """An earlier run's configuration with the task, and what was typed, of this command."""
    assert command.earlier is not None
    task = composed["task"]["name"]
    if (command.key == "resume") != (task == "fit"):
        use = "task=fit" if command.key == "resume" else "another task, as task=test; to continue, use resume="
        raise ValueError(f"{command.key}={command.earlier.path}: goes with {use}")
    before = command.config
    if command.key == "resume" and before["task"]["name"] != "fit":
        raise ValueError(f"resume={command.earlier.path}: a run of task={before['task']['name']} cannot be continued")
    if task not in ON_SEVERAL_DEVICES:
        before = {**before, "trainer": {**before["trainer"], "devices": 1, "num_nodes": 1}}
    taken = ("task", "run", "resume", "traceback", "output_dir", *command.groups)
    merged = OmegaConf.create({**before, **{key: composed[key] for key in taken}})
    for text in command.changes:
        _change(merged, text)
    config = OmegaConf.to_container(merged, resolve=True)
    assert isinstance(config, dict)
    changed = differences(before, config)  # pyright: ignore[reportArgumentType]
    if command.key == "resume" and changed:
        where = f"resume={command.earlier.path}"
        raise ValueError(f"{where}: another result would come out ({'; '.join(changed)}); start a new run for it")
    return config  # pyright: ignore[reportReturnType]


def _change(config: DictConfig, text: str) -> None:
    override = OverridesParser.create().parse_override(text)
    key = override.key_or_group
    parent, _, leaf = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, DictConfig) or (leaf not in node and not override.is_add()):
        raise ValueError(no_such_key(text, key, node if isinstance(node, DictConfig) else ()))
    if override.is_delete():
        del node[leaf]
    else:
        OmegaConf.update(config, key, override.value(), force_add=True)


def _check(config: Config) -> None:
    """Raise ValueError for what concerns no single part below."""
    trainer, split = config["trainer"], config["datamodule"].get("split")
    epochs = trainer.get("max_epochs")
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
        raise ValueError(f"trainer.max_epochs={epochs}: a whole number >= 1 is needed; schedules are made for it")
    seed = config["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed={seed}: a whole number >= 0 is needed")
    if trainer.get("limit_test_batches") == 0:
        raise ValueError("trainer.limit_test_batches=0: a run ends with its test figure; 1 measures it on one batch")
    every = trainer.get("check_val_every_n_epoch") or 1
    validates = trainer.get("limit_val_batches") != 0 and every <= epochs
    needs = "datamodule.split=val" if split == "val" else "callbacks.patience"
    if not validates and (split == "val" or config["callbacks"].get("patience") is not None):
        raise ValueError(f"{needs}: needs validation; see trainer.limit_val_batches, trainer.check_val_every_n_epoch")
