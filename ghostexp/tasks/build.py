"""From configuration to objects: the one place that instantiates."""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch import nn

from ghostexp.analysis.cost import Cost, backbone_macs, count
from ghostexp.data.detection import DetectionDataModule
from ghostexp.models.contract import Network
from ghostexp.models.detection import DetectionNetwork
from ghostexp.models.pyramid import check_maps
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.naming import run_identity, run_title
from ghostexp.tasks import weights
from ghostexp.training.checkpoints import AtomicCheckpointIO
from ghostexp.training.classifier import Classifier
from ghostexp.training.detector import Detector
from ghostexp.training.distillation import Distillation
from ghostexp.training.loggers import LoggedRun
from ghostexp.training.module import Module
from ghostexp.training.progress import Progress

Config = dict[str, Any]
USER_ERRORS = (ValueError, OSError, MisconfigurationException)  # errors that say what is wrong with the configuration


def build(node: Any, key: str, **arguments: Any) -> Any:
    """Instantiate a node of the configuration; `arguments` go to its target as they are.

    Raises what the target raised, if that says what is wrong; else ValueError that names the key.
    """
    try:
        if not arguments:
            return instantiate(node, _convert_="all")
        return instantiate(node, _convert_="all", _partial_=True)(**arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, USER_ERRORS):
            raise _with_whole_key(cause, key, error) from error
        raise ValueError(_cannot_be_built(node, key, cause or error)) from error
    except TypeError as error:
        raise ValueError(_cannot_be_built(node, key, error)) from error


def _cannot_be_built(node: Any, key: str, error: BaseException) -> str:
    """What to say of a target that refuses its arguments: the argument's own key, if it is one it does not have."""
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if unknown is None or not isinstance(node, dict) or unknown[1] not in node:
        return f"{key}: cannot be built ({_one_line(error)})"
    target = str(node["_target_"]).rpartition(".")[2]
    return f"{key}.{unknown[1]}={node[unknown[1]]}: {target} has no such argument"


def _with_whole_key(cause: Exception, key: str, error: InstantiationException) -> Exception:
    """An error of a nested node with that node's own path: it says `model.shortcut` of `model.network.shortcut`."""
    nested = re.search(r"full_key: (\S+)", str(error))
    if nested is None or not str(cause).startswith(f"{key}."):
        return cause
    return type(cause)(str(cause).replace(key, f"{key}.{nested[1]}", 1))


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def datamodule_of(config: Config) -> pl.LightningDataModule:
    """The data of a run; nothing is read yet.

    Raises ValueError: boxes for a classifier, or classes for a detector.
    """
    datamodule = build(config["datamodule"], "datamodule")
    is_detector = "backbone" in config["model"]
    if is_detector != isinstance(datamodule, DetectionDataModule):
        needed = "a detector needs boxes, as of shapes or coco" if is_detector else "a classifier needs classes"
        found = type(datamodule).__name__
        raise ValueError(f"datamodule={config['choices'].get('datamodule')}: {needed}; found those of {found}")
    return datamodule


class Built(NamedTuple):
    """A network, what it costs on one image, and the weights that it starts from, None where they are drawn.

    backbone_macs: of a detector, those of its whole backbone at 224 x 224, as the papers count them.
    """

    network: nn.Module
    cost: Cost
    weights: weights.Loaded | None
    backbone_macs: int | None = None


def network_of(config: Config, is_resumed: bool = False) -> Built:
    """The network of a run, initialised from its seed and then from `model.weights`.

    With `run=DIR`, or when a run is resumed, its checkpoint follows, so that `model.weights` is left alone.
    Raises ValueError: it does not take images of this size, or the weights are not its own.
    """
    node, data = dict(config["model"]), config["datamodule"]
    source, partial = node.pop("weights", None), node.pop("weights_partial", None)
    if partial is not None and (source is None or "backbone" in node):
        needed = "goes with classifiers" if "backbone" in node else "needs model.weights"
        raise ValueError(f"model.weights_partial={partial}: {needed}")
    has_checkpoint = config["run"] is not None or is_resumed
    torch.manual_seed(config["seed"])
    loaded, macs = None, None
    if "backbone" in node:
        network, loaded, macs = _detector_of(node, config, is_loaded=has_checkpoint or source is not None)
    else:
        network = build(node, "model")
    cost = _cost(network, (data["in_chans"], data["image_size"], data["image_size"]))
    if source is not None and not has_checkpoint:
        loaded = weights.load(network, str(source), _weights_folder(config), partial)
    if config["channels_last"]:
        network = network.to(memory_format=torch.channels_last)
    if config["compile"]:
        compiled = network.backbone if isinstance(network, DetectionNetwork) else network
        compiled.compile()  # in place, so that the names in the state dict stay
    return Built(network, cost, loaded, macs)


def _detector_of(node: Config, config: Config, is_loaded: bool) -> tuple[nn.Module, weights.Loaded | None, int]:
    """A detector on a classifier, what that was loaded from, and its MACs as the papers count them.

    Of the classifier's weights the last layer's are left out, which a detector does not have.
    is_loaded: the detector's own weights will follow.
    """
    backbone_node = dict(node.pop("backbone"))
    source, loaded = backbone_node.pop("weights", None), None
    learns = config["task"]["name"] == "fit"
    for key in ("freeze_stages", "freeze_batchnorm"):
        if learns and node.get(key) and source is None and not is_loaded:
            raise ValueError(f"model.{key}={node[key]}: needs model.backbone.weights; what is drawn has to learn")
    backbone = build(backbone_node, "model.backbone")
    if not isinstance(backbone, Network):
        raise ValueError(f"model.backbone: {type(backbone).__name__} is none of this project's networks")
    if source is not None and not is_loaded:
        loaded = weights.load(backbone, str(source), _weights_folder(config), "head", "model.backbone.weights")
    check_maps(backbone, node["strides"], node["freeze_stages"])
    macs = backbone_macs(backbone)  # before it is cut
    return build(node, "model", backbone=backbone), loaded, macs


def _weights_folder(config: Config) -> Path:
    return Path(config["data_dir"]) / "weights"


def _cost(network: nn.Module, image_shape: tuple[int, int, int]) -> Cost:
    try:
        return count(network, image_shape)
    except (RuntimeError, AssertionError) as error:  # of networks that others wrote
        shape = " x ".join(str(side) for side in image_shape)
        reason = _one_line(error)
        raise ValueError(f"model: takes no images of {shape} (datamodule.image_size): {reason}") from error


def module_of(config: Config, network: nn.Module, distillation: Distillation | None = None) -> Module:
    """The network with its loss, optimizer and schedule: a classifier, or a detector.

    Raises ValueError: the loss of a detector is said to be a classifier's, or its boxes to be in half precision.
    """
    if not isinstance(network, DetectionNetwork):
        return _classifier_of(config, network, distillation)
    precision = str(config["trainer"]["precision"])
    if precision in ("16-true", "bf16-true"):
        mixed = precision.replace("true", "mixed")
        raise ValueError(
            f"trainer.precision={precision}: rounds boxes to whole pixels; trainer.precision={mixed} does not"
        )
    label_smoothing = config["loss"]["label_smoothing"]
    if label_smoothing or distillation is not None:
        said = f"label_smoothing={label_smoothing}" if label_smoothing else "distill.teacher"
        raise ValueError(f"loss.{said}: goes with classifiers; a detector has losses of its own")
    optimizer, scheduler = build(config["optimizer"], "optimizer"), build(config["scheduler"], "scheduler")
    return Detector(network, optimizer, scheduler, loss_names=network.loss_names, seed=config["seed"])


def _classifier_of(config: Config, network: nn.Module, distillation: Distillation | None) -> Classifier:
    return Classifier(
        network,
        build(config["optimizer"], "optimizer"),
        build(config["scheduler"], "scheduler"),
        num_classes=config["datamodule"]["num_classes"],
        label_smoothing=config["loss"]["label_smoothing"],
        seed=config["seed"],
        distillation=distillation,
    )


def callbacks_of(config: Config, run: RunDirectory, score: str) -> list[Callback]:
    """What watches a training, and the best of it by a score on the validation set."""
    return build(config["callbacks"], "callbacks", folder=run.last.parent, monitor=f"val/{score}")


def loggers_of(config: Config, run: RunDirectory, resumed_step: int | None = None) -> list[Logger]:
    """The loggers of a run; after a resume they go on from a step."""
    task = config["task"]["name"]
    identity, title = run_identity(run.path, config), run_title(run.path)
    logged = LoggedRun(run.path, identity, title, task, config, resumed_step)
    return [build(node, f"logger.{name}", run=logged) for name, node in config["logger"].items()]


def trainer_of(config: Config, callbacks: list[Callback], loggers: list[Logger], run: RunDirectory) -> pl.Trainer:
    """Lightning's Trainer, without the parts that this project replaces.

    Raises ValueError: values that Lightning does not know, or a Trainer that leaves out processes of this run.
    """
    try:
        trainer = build(
            config["trainer"],
            "trainer",
            callbacks=callbacks,
            logger=loggers or False,
            plugins=[AtomicCheckpointIO()],
            default_root_dir=run.path,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_checkpointing=bool(callbacks),
            enable_progress_bar=any(isinstance(callback, Progress) for callback in callbacks),
            enable_model_summary=False,
        )
    except USER_ERRORS as error:
        message = str(error)
        raise ValueError(message if message.startswith("trainer") else f"trainer: {message}") from error
    started = int(os.environ.get("WORLD_SIZE", 1)) if "LOCAL_RANK" in os.environ else trainer.world_size
    if trainer.world_size != started:  # else each of them would train alone, all into one directory
        strategy = type(trainer.strategy).__name__
        raise ValueError(f"trainer.strategy: {strategy} uses {trainer.world_size} of the run's {started} processes")
    return trainer
