"""Build the datamodule, callbacks, loggers and trainer of a run from its configuration.

The network is built by `build_network`, the LightningModule by `build_module`; all parts, ours and others', are found
by their `_target_` alone.
"""

import os
from collections.abc import Mapping

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.loggers import Logger

from ghostexp.data.base import DataModule
from ghostexp.data.detection_datamodule import DetectionDataModule
from ghostexp.data.sampling import DistributedBatches
from ghostexp.data.third_party_datamodule import ThirdPartyDataModule, as_datamodule
from ghostexp.runs.config_keys import THIRD_PARTY_DATA_KEYS
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.fingerprint import world_size
from ghostexp.runs.naming import run_identity, run_title
from ghostexp.tasks.common.build_module import build_lightning_module
from ghostexp.tasks.common.build_network import BuiltModel, build_network, is_detector
from ghostexp.tasks.common.nodes import (
    USER_ERRORS,
    Config,
    accepts,
    build_part,
    find_target,
    instantiate_node,
    one_line,
)
from ghostexp.training.callbacks.checkpoint import AtomicCheckpointIO
from ghostexp.training.callbacks.progress_bar import EpochProgressBar
from ghostexp.training.distributed import BATCH_SECONDS
from ghostexp.training.loggers import RunInfo

__all__ = ["BuiltModel", "Config", "build_lightning_module", "build_network", "instantiate_node"]


def build_datamodule(config: Config) -> pl.LightningDataModule:
    """Build the datamodule; nothing is read yet.

    Raises ValueError: boxes for a classifier, or classes for a detector.
    """
    node, is_detecting = config["datamodule"], is_detector(config["model"])
    target = find_target(node, "datamodule")
    is_third_party = isinstance(target, type) and not issubclass(target, DataModule)
    if is_third_party and not is_detecting:
        given = {key: node.get(key) for key in THIRD_PARTY_DATA_KEYS}
        per_device = _per_device_batch_size(config)
        part = build_part(
            {**node, "batch_size": per_device}, "datamodule", pl.LightningDataModule, {}, THIRD_PARTY_DATA_KEYS
        )
        return as_datamodule(part, given)
    datamodule = build_part(node, "datamodule", pl.LightningDataModule, {})
    if is_detecting != isinstance(datamodule, DetectionDataModule):
        needed = (
            "must have boxes for a detector, as shapes or coco do"
            if is_detecting
            else "must have classes for a classifier"
        )
        found = type(datamodule).__name__
        raise ValueError(f"datamodule={config['choices'].get('datamodule')}: {needed}, got {found}")
    return datamodule


def _per_device_batch_size(config: Config) -> int | None:
    """Return the images of one device and accumulation step; None if the datamodule's batch_size is not set."""
    if config["datamodule"].get("batch_size") is None:
        return None
    devices, steps = int(os.environ.get("WORLD_SIZE", 1)), config["trainer"].get("accumulate_grad_batches") or 1
    return DistributedBatches(config["datamodule"]["batch_size"], 0, devices, steps).per_device_batch_size


def build_callbacks(config: Config, run: RunDirectory, metric: str, mode: str = "max") -> list[Callback]:
    """Build the callbacks, and those of `callbacks.NAME` before them.

    metric: on the validation set, by which the best epoch is selected; mode: max or min.
    """
    named = {name: node for name, node in config["callbacks"].items() if isinstance(node, Mapping)}
    node = {name: value for name, value in config["callbacks"].items() if name not in named}
    more = [build_part(dict(one), f"callbacks.{name}", Callback, {}) for name, one in named.items()]
    set_here = {"monitor": f"val/{metric}", "mode": mode, "pause_after": config.get("pause_after")}
    own = instantiate_node(node, "callbacks", folder=run.last.parent, **set_here)
    return [*more, *own]


def batch_timeout(config: Config) -> float:
    """Return the time limit of a batch; that of an older run's configuration is the default."""
    return config["callbacks"].get("batch_timeout", BATCH_SECONDS)


def build_loggers(config: Config, run: RunDirectory, resumed_step: int | None = None) -> list[Logger]:
    """Build the loggers; after a resume ours continue from a step.

    A logger of another library gets the run's directory as `save_dir`, if it takes one, and the configuration.
    """
    task = config["task"]["name"]
    identity, title = run_identity(run.path, config), run_title(run.path)
    logged = RunInfo(run.path, identity, title, task, config, resumed_step)
    return [_build_logger(dict(node), f"logger.{name}", logged) for name, node in config["logger"].items()]


def _build_logger(node: Config, key: str, run: RunInfo) -> Logger:
    if accepts(find_target(node, key), "run"):
        return build_part(node, key, Logger, {"run": run})
    logger = build_part(node, key, Logger, {"save_dir": str(run.folder)})
    try:
        logger.log_hyperparams(dict(run.config))  # many open their files or connections only here
    except Exception as error:
        raise ValueError(f"{key}: cannot be used ({one_line(error)})") from error
    return logger


def build_trainer(
    config: Config,
    callbacks: list[Callback],
    loggers: list[Logger],
    run: RunDirectory,
    datamodule: pl.LightningDataModule | None = None,
) -> pl.Trainer:
    """Build Lightning's Trainer, without the parts that this project replaces.

    datamodule: gets distributed samplers, if it does not divide its batches among the devices itself.
    Raises ValueError: values that Lightning refuses, or a Trainer that does not use all processes of this run.
    """
    node = dict(config["trainer"])
    is_third_party = isinstance(datamodule, ThirdPartyDataModule)
    if is_third_party:
        os.environ["PL_GLOBAL_SEED"] = str(config["seed"])  # of the order in Lightning's distributed sampler; else 0
    if world_size(node) > 1 and isinstance(node.get("strategy"), str):
        unused, limit = node["strategy"].endswith("_true"), batch_timeout(config)
        arguments = {"find_unused_parameters": unused, "batch_timeout": limit}
        node["strategy"] = {"_target_": "ghostexp.training.distributed.DDP", **arguments}
    try:
        trainer = instantiate_node(
            node,
            "trainer",
            callbacks=callbacks,
            logger=loggers or False,
            plugins=[AtomicCheckpointIO()],
            default_root_dir=run.path,
            num_sanity_val_steps=0,
            use_distributed_sampler=is_third_party,
            enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
            enable_progress_bar=any(isinstance(callback, EpochProgressBar) for callback in callbacks),
            enable_model_summary=False,
        )
    except USER_ERRORS as error:
        message = str(error)
        raise ValueError(message if message.startswith("trainer") else f"trainer: {message}") from error
    started = int(os.environ.get("WORLD_SIZE", 1)) if "LOCAL_RANK" in os.environ else trainer.world_size
    if trainer.world_size != started:  # else each would train alone, all in one directory
        strategy = type(trainer.strategy).__name__
        raise ValueError(
            f"trainer.strategy: must use all {started} processes of the run, got {strategy} with {trainer.world_size}"
        )
    return trainer
