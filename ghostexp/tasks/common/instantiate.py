"""Build every object of a run from its configuration: the only place that instantiates."""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import hydra.utils
import lightning.pytorch as pl
import torch
from hydra.errors import InstantiationException
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch import nn

from ghostexp.analysis.cost import Cost, backbone_macs, count_cost
from ghostexp.data.detection_datamodule import DetectionDataModule
from ghostexp.models.detection.base import DetectionModel
from ghostexp.models.detection.fpn import check_strides
from ghostexp.models.traced_network import as_network
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.fingerprint import world_size
from ghostexp.runs.naming import run_identity, run_title
from ghostexp.tasks.common import weights_source
from ghostexp.tasks.common.acceleration import allow_tf32, compile_network
from ghostexp.training.base_module import BaseModule
from ghostexp.training.callbacks.checkpoint import AtomicCheckpointIO
from ghostexp.training.callbacks.progress_bar import EpochProgressBar
from ghostexp.training.classification_module import ClassificationModule
from ghostexp.training.detection_module import DetectionModule
from ghostexp.training.distillation import Distillation
from ghostexp.training.distributed import check_sync_batchnorm
from ghostexp.training.loggers import RunInfo

Config = dict[str, Any]
USER_ERRORS = (ValueError, OSError, MisconfigurationException)  # their messages explain what is wrong


def instantiate_node(node: Any, key: str, **arguments: Any) -> Any:
    """Instantiate a node of the configuration; `arguments` are passed on unchanged.

    Raises the target's own error if it is one of USER_ERRORS; else ValueError that names the key.
    """
    try:
        if not arguments:
            return hydra.utils.instantiate(node, _convert_="all")
        return hydra.utils.instantiate(node, _convert_="all", _partial_=True)(**arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, USER_ERRORS):
            raise _with_full_key(cause, key, error) from error
        raise ValueError(_cannot_be_built(node, key, cause or error)) from error
    except TypeError as error:
        raise ValueError(_cannot_be_built(node, key, error)) from error


def _cannot_be_built(node: Any, key: str, error: BaseException) -> str:
    """Format the error of a target that refuses its arguments; names the key of an unknown argument."""
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if unknown is None or not isinstance(node, dict) or unknown[1] not in node:
        return f"{key}: cannot be built ({_one_line(error)})"
    target = str(node["_target_"]).rpartition(".")[2]
    return f"{key}.{unknown[1]}={node[unknown[1]]}: {target} has no such argument"


def _with_full_key(cause: Exception, key: str, error: InstantiationException) -> Exception:
    """Replace `model.shortcut` in the error of a nested node by the full key, `model.network.shortcut`."""
    nested = re.search(r"full_key: (\S+)", str(error))
    if nested is None or not str(cause).startswith(f"{key}."):
        return cause
    return type(cause)(str(cause).replace(key, f"{key}.{nested[1]}", 1))


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def build_datamodule(config: Config) -> pl.LightningDataModule:
    """Build the datamodule; nothing is read yet.

    Raises ValueError: boxes for a classifier, or classes for a detector.
    """
    datamodule = instantiate_node(config["datamodule"], "datamodule")
    is_detector = "backbone" in config["model"]
    if is_detector != isinstance(datamodule, DetectionDataModule):
        needed = (
            "must have boxes for a detector, as shapes or coco do"
            if is_detector
            else "must have classes for a classifier"
        )
        found = type(datamodule).__name__
        raise ValueError(f"datamodule={config['choices'].get('datamodule')}: {needed}, got {found}")
    return datamodule


class BuiltModel(NamedTuple):
    """A network, its cost on one image, and the weights that it starts from, None if randomly initialised.

    backbone_macs: of a detector's full backbone at 224 x 224, as the papers count them.
    """

    network: nn.Module
    cost: Cost
    weights: weights_source.WeightsRecord | None
    backbone_macs: int | None = None


def build_network(config: Config, is_resumed: bool = False) -> BuiltModel:
    """Build the network, initialise it from the seed, and load `model.weights`.

    With `run=DIR`, or on a resume, a checkpoint is loaded later, so that `model.weights` is not.
    Raises ValueError: it does not support images of this size, or the weights do not match.
    """
    node, data = dict(config["model"]), config["datamodule"]
    source, reset_head = node.pop("weights", None), bool(node.pop("reset_head", False))
    if reset_head and (source is None or "backbone" in node):
        needed = "must be false for a detector" if "backbone" in node else "needs model.weights"
        raise ValueError(f"model.reset_head=true: {needed}")
    has_checkpoint = config["run"] is not None or is_resumed
    allow_tf32(config.get("tf32", True))
    torch.manual_seed(config["seed"])
    loaded, macs = None, None
    if "backbone" in node:
        network, loaded, macs = _build_detector(node, config, is_loaded=has_checkpoint or source is not None)
    else:
        network = instantiate_node(node, "model")
    cost = _cost(network, (data["in_chans"], data["image_size"], data["image_size"]))
    if source is not None and not has_checkpoint:
        loaded = weights_source.load_weights_source(network, str(source), _weights_folder(config), reset_head)
    if config["channels_last"]:
        network = network.to(memory_format=torch.channels_last)
    compile_network(network, config.get("compile", False))
    return BuiltModel(network, cost, loaded, macs)


def _build_detector(
    node: Config, config: Config, is_loaded: bool
) -> tuple[nn.Module, weights_source.WeightsRecord | None, int]:
    """Build a detector on a classifier; returns it, the backbone's weights, and its MACs as the papers count them.

    The weights of the classifier's last layer are left out.
    is_loaded: the detector's own weights are loaded later.
    """
    backbone_node = dict(node.pop("backbone"))
    source, loaded = backbone_node.pop("weights", None), None
    is_trained = config["task"]["name"] == "fit"
    for key in ("freeze_stages", "freeze_batchnorm"):
        if is_trained and node.get(key) and source is None and not is_loaded:
            raise ValueError(f"model.{key}={node[key]}: needs model.backbone.weights, to freeze pretrained weights")
    backbone = instantiate_node(backbone_node, "model.backbone")
    if not isinstance(backbone, nn.Module):
        raise ValueError(f"model.backbone: {type(backbone).__name__} must be an nn.Module")
    backbone = as_network(backbone)
    if source is not None and not is_loaded:
        loaded = weights_source.load_weights_source(
            backbone, str(source), _weights_folder(config), True, "model.backbone.weights"
        )
    check_strides(backbone, node["strides"], node["freeze_stages"])
    macs = backbone_macs(backbone)  # before layers are pruned
    return instantiate_node(node, "model", backbone=backbone), loaded, macs


def _weights_folder(config: Config) -> Path:
    return Path(config["data_dir"]) / "weights"


def _cost(network: nn.Module, image_shape: tuple[int, int, int]) -> Cost:
    try:
        return count_cost(network, image_shape)
    except (RuntimeError, AssertionError) as error:  # raised by networks of other libraries
        shape = " x ".join(str(side) for side in image_shape)
        reason = _one_line(error)
        raise ValueError(f"model: must support images of {shape} (datamodule.image_size), got {reason}") from error


def build_lightning_module(config: Config, network: nn.Module, distillation: Distillation | None = None) -> BaseModule:
    """Build the LightningModule of a classifier or a detector: network, loss, optimizer and schedule.

    Raises ValueError: a classification loss for a detector, or its boxes in half precision, or a BatchNorm that cannot
    be synchronised.
    """
    if config["trainer"].get("sync_batchnorm"):
        check_sync_batchnorm(network)
    if not isinstance(network, DetectionModel):
        return _build_classification_module(config, network, distillation)
    precision = str(config["trainer"]["precision"])
    if precision in ("16-true", "bf16-true"):
        mixed = precision.replace("true", "mixed")
        raise ValueError(f"trainer.precision={precision}: rounds boxes of a detector; use trainer.precision={mixed}")
    label_smoothing = config["loss"]["label_smoothing"]
    if label_smoothing or distillation is not None:
        key = f"label_smoothing={label_smoothing}" if label_smoothing else "distill.teacher"
        raise ValueError(f"loss.{key}: must not be set for a detector, which has its own losses")
    optimizer, scheduler = (
        instantiate_node(config["optimizer"], "optimizer"),
        instantiate_node(config["scheduler"], "scheduler"),
    )
    return DetectionModule(network, optimizer, scheduler, loss_names=network.loss_names, seed=config["seed"])


def _build_classification_module(
    config: Config, network: nn.Module, distillation: Distillation | None
) -> ClassificationModule:
    return ClassificationModule(
        network,
        instantiate_node(config["optimizer"], "optimizer"),
        instantiate_node(config["scheduler"], "scheduler"),
        num_classes=config["datamodule"]["num_classes"],
        label_smoothing=config["loss"]["label_smoothing"],
        seed=config["seed"],
        distillation=distillation,
    )


def build_callbacks(config: Config, run: RunDirectory, metric: str) -> list[Callback]:
    """Build the callbacks; the best epoch is selected by a metric on the validation set."""
    return instantiate_node(config["callbacks"], "callbacks", folder=run.last.parent, monitor=f"val/{metric}")


def build_loggers(config: Config, run: RunDirectory, resumed_step: int | None = None) -> list[Logger]:
    """Build the loggers; after a resume they continue from a step."""
    task = config["task"]["name"]
    identity, title = run_identity(run.path, config), run_title(run.path)
    logged = RunInfo(run.path, identity, title, task, config, resumed_step)
    return [instantiate_node(node, f"logger.{name}", run=logged) for name, node in config["logger"].items()]


def build_trainer(config: Config, callbacks: list[Callback], loggers: list[Logger], run: RunDirectory) -> pl.Trainer:
    """Build Lightning's Trainer, without the parts that this project replaces.

    Raises ValueError: values that Lightning refuses, or a Trainer that does not use all processes of this run.
    """
    node = dict(config["trainer"])
    if world_size(node) > 1 and isinstance(node.get("strategy"), str):
        unused = node["strategy"].endswith("_true")
        node["strategy"] = {"_target_": "ghostexp.training.distributed.DDP", "find_unused_parameters": unused}
    try:
        trainer = instantiate_node(
            node,
            "trainer",
            callbacks=callbacks,
            logger=loggers or False,
            plugins=[AtomicCheckpointIO()],
            default_root_dir=run.path,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_checkpointing=bool(callbacks),
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
