"""Build every object of a run from its configuration: the only place that instantiates."""

import json
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
from ghostexp.data.base import DataModule
from ghostexp.data.detection_datamodule import DetectionDataModule
from ghostexp.data.digest import DataDigest, describe_difference
from ghostexp.models.base import Network
from ghostexp.models.detection.base import DetectionModel
from ghostexp.models.detection.fpn import check_strides
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.naming import run_identity, run_title
from ghostexp.tasks.common import weights_source
from ghostexp.training.base_module import BaseModule
from ghostexp.training.callbacks.checkpoint import AtomicCheckpointIO
from ghostexp.training.callbacks.progress_bar import EpochProgressBar
from ghostexp.training.classification_module import ClassificationModule
from ghostexp.training.detection_module import DetectionModule
from ghostexp.training.distillation import Distillation
from ghostexp.training.loggers import RunInfo

Config = dict[str, Any]
USER_ERRORS = (ValueError, OSError, MisconfigurationException)  # errors that say what is wrong with the configuration


def instantiate_node(node: Any, key: str, **arguments: Any) -> Any:
    """Instantiate a node of the configuration; `arguments` go to its target as they are.

    Raises what the target raised, if that says what is wrong; else ValueError that names the key.
    """
    try:
        if not arguments:
            return hydra.utils.instantiate(node, _convert_="all")
        return hydra.utils.instantiate(node, _convert_="all", _partial_=True)(**arguments)
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


def build_datamodule(config: Config) -> pl.LightningDataModule:
    """The data of a run; nothing is read yet.

    Raises ValueError: boxes for a classifier, or classes for a detector.
    """
    datamodule = instantiate_node(config["datamodule"], "datamodule")
    is_detector = "backbone" in config["model"]
    if is_detector != isinstance(datamodule, DetectionDataModule):
        needed = "a detector needs boxes, as of shapes or coco" if is_detector else "a classifier needs classes"
        found = type(datamodule).__name__
        raise ValueError(f"datamodule={config['choices'].get('datamodule')}: {needed}; found those of {found}")
    return datamodule


class BuiltModel(NamedTuple):
    """A network, what it costs on one image, and the weights that it starts from, None where they are drawn.

    backbone_macs: of a detector, those of its whole backbone at 224 x 224, as the papers count them.
    """

    network: nn.Module
    cost: Cost
    weights: weights_source.WeightsRecord | None
    backbone_macs: int | None = None


def build_network(config: Config, is_resumed: bool = False) -> BuiltModel:
    """The network of a run, initialised from its seed and then from `model.weights`.

    With `run=DIR`, or when a run is resumed, its checkpoint follows, so that `model.weights` is left alone.
    Raises ValueError: it does not take images of this size, or the weights are not its own.
    """
    node, data = dict(config["model"]), config["datamodule"]
    source, reset_head = node.pop("weights", None), bool(node.pop("reset_head", False))
    if reset_head and (source is None or "backbone" in node):
        needed = "goes with classifiers" if "backbone" in node else "needs model.weights"
        raise ValueError(f"model.reset_head=true: {needed}")
    has_checkpoint = config["run"] is not None or is_resumed
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
    if config["compile"]:
        compiled = network.backbone if isinstance(network, DetectionModel) else network
        compiled.compile()  # in place, so that the names in the state dict stay
    return BuiltModel(network, cost, loaded, macs)


def _build_detector(
    node: Config, config: Config, is_loaded: bool
) -> tuple[nn.Module, weights_source.WeightsRecord | None, int]:
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
    backbone = instantiate_node(backbone_node, "model.backbone")
    if not isinstance(backbone, Network):
        raise ValueError(f"model.backbone: {type(backbone).__name__} is none of this project's networks")
    if source is not None and not is_loaded:
        loaded = weights_source.load_weights_source(
            backbone, str(source), _weights_folder(config), True, "model.backbone.weights"
        )
    check_strides(backbone, node["strides"], node["freeze_stages"])
    macs = backbone_macs(backbone)  # before it is cut
    return instantiate_node(node, "model", backbone=backbone), loaded, macs


def _weights_folder(config: Config) -> Path:
    return Path(config["data_dir"]) / "weights"


def _cost(network: nn.Module, image_shape: tuple[int, int, int]) -> Cost:
    try:
        return count_cost(network, image_shape)
    except (RuntimeError, AssertionError) as error:  # of networks that others wrote
        shape = " x ".join(str(side) for side in image_shape)
        reason = _one_line(error)
        raise ValueError(f"model: takes no images of {shape} (datamodule.image_size): {reason}") from error


def build_lightning_module(config: Config, network: nn.Module, distillation: Distillation | None = None) -> BaseModule:
    """The network with its loss, optimizer and schedule: a classifier, or a detector.

    Raises ValueError: the loss of a detector is said to be a classifier's, or its boxes to be in half precision.
    """
    if not isinstance(network, DetectionModel):
        return _build_classification_module(config, network, distillation)
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


def build_callbacks(config: Config, run: RunDirectory, score: str) -> list[Callback]:
    """What watches a training, and the best of it by a score on the validation set."""
    return instantiate_node(config["callbacks"], "callbacks", folder=run.last.parent, monitor=f"val/{score}")


def build_loggers(config: Config, run: RunDirectory, resumed_step: int | None = None) -> list[Logger]:
    """The loggers of a run; after a resume they go on from a step."""
    task = config["task"]["name"]
    identity, title = run_identity(run.path, config), run_title(run.path)
    logged = RunInfo(run.path, identity, title, task, config, resumed_step)
    return [instantiate_node(node, f"logger.{name}", run=logged) for name, node in config["logger"].items()]


def build_trainer(config: Config, callbacks: list[Callback], loggers: list[Logger], run: RunDirectory) -> pl.Trainer:
    """Lightning's Trainer, without the parts that this project replaces.

    Raises ValueError: values that Lightning does not know, or a Trainer that leaves out processes of this run.
    """
    try:
        trainer = instantiate_node(
            config["trainer"],
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
    if trainer.world_size != started:  # else each of them would train alone, all into one directory
        strategy = type(trainer.strategy).__name__
        raise ValueError(f"trainer.strategy: {strategy} uses {trainer.world_size} of the run's {started} processes")
    return trainer


LEARNING = ("optimizer", "scheduler", "loss", "callbacks", "trainer", "logger")  # sections that no network is built of
IMAGES = ("in_chans", "num_classes", "image_size")  # all of its data that a network is built of


def build_all(config: Config, directory: RunDirectory) -> Cost:
    """Build all that a task builds, pass an image of the data's size through the network, and read no data.

    Raises ValueError as the task would.
    """
    return Checker().check(config, directory)


def network_key(config: Config) -> str:
    """Return a text that is equal for configurations of one network."""
    return json.dumps(_network_config(config), sort_keys=True, default=str)


class Checker:
    """Checks configurations, and builds a network once for all that follow each other and have the same."""

    def __init__(self) -> None:
        self.key = ""
        self.built: BuiltModel | None = None
        self.trainers: set[str] = set()

    def check(self, config: Config, directory: RunDirectory) -> Cost:
        """Check a configuration; see `build_all`."""
        build_datamodule(config)
        built = self._network(config)
        if config["task"]["name"] == "fit":
            module = build_lightning_module(config, built.network)
            module.build_optimizer(module.network)
            module.build_lr_factor(config["trainer"]["max_epochs"], 1)
            self._trainer(config, directory, module.score)
        return built.cost

    def _network(self, config: Config) -> BuiltModel:
        key = network_key(config)
        if self.built is None or key != self.key:
            self.built = None  # before the next is there too
            self.built, self.key = build_network(_network_config(config), is_resumed=True), key
        return self.built

    def _trainer(self, config: Config, directory: RunDirectory, score: str) -> None:
        key = json.dumps([score, config["trainer"], config["callbacks"]], sort_keys=True, default=str)
        if key not in self.trainers:
            build_trainer(config, build_callbacks(config, directory, score), [], directory)
            self.trainers.add(key)


def _network_config(config: Config) -> Config:
    """All of a configuration that a network is built of; its weights are left to the run itself."""
    left_out = (*LEARNING, "seed", "name", "resume", "output_dir", "threads", "traceback")
    data = {key: config["datamodule"].get(key) for key in IMAGES}
    return {key: value for key, value in config.items() if key not in left_out} | {"datamodule": data, "seed": 0}


def check_data(config: Config, directory: RunDirectory, known: dict[str, DataDigest]) -> None:
    """Raise ValueError if a finished run's data are others now; `known` keeps digests for the next run.

    Data that are gone, or were not noted, say nothing against a result.
    """
    before = (directory.read_result() or {}).get("data")
    key = json.dumps({**config["datamodule"], "seed": 0}, sort_keys=True, default=str)
    if before is not None and key not in known:
        known[key] = _digest(config)
    difference = describe_difference(before, known[key]) if before is not None else None
    if difference is not None:
        root = config["datamodule"].get("root")
        raise ValueError(
            f"datamodule.root={root}: not what this run was trained on ({difference}); name=... starts a new sweep"
        )


def _digest(config: Config) -> DataDigest:
    try:
        datamodule = build_datamodule(config)
        return datamodule.digest() if isinstance(datamodule, DataModule) else {}
    except ValueError:  # the data are gone
        return {}
