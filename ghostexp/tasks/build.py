"""From configuration to objects: the one place that instantiates."""

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

from ghostexp.analysis.cost import Cost, count
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.naming import run_identity, run_title
from ghostexp.tasks import weights
from ghostexp.training.checkpoints import AtomicCheckpointIO
from ghostexp.training.classifier import Classifier
from ghostexp.training.distillation import Distillation
from ghostexp.training.loggers import LoggedRun
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
        raise ValueError(f"{key}: cannot be built ({_one_line(cause or error)})") from error
    except TypeError as error:
        raise ValueError(f"{key}: cannot be built ({_one_line(error)})") from error


def _with_whole_key(cause: Exception, key: str, error: InstantiationException) -> Exception:
    """An error of a nested node with that node's own path: it says `model.shortcut` of `model.network.shortcut`."""
    nested = re.search(r"full_key: (\S+)", str(error))
    if nested is None or not str(cause).startswith(f"{key}."):
        return cause
    return type(cause)(str(cause).replace(key, f"{key}.{nested[1]}", 1))


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def datamodule_of(config: Config) -> pl.LightningDataModule:
    """The data of a run."""
    return build(config["datamodule"], "datamodule")


class Built(NamedTuple):
    """A network, what it costs on one image, and the weights that it starts from, None where they are drawn."""

    network: nn.Module
    cost: Cost
    weights: weights.Loaded | None


def network_of(config: Config, is_resumed: bool = False) -> Built:
    """The network of a run, initialised from its seed and then from `model.weights`.

    With `run=DIR`, or when a run is resumed, its checkpoint follows, so that `model.weights` is left alone.
    Raises ValueError: it does not take images of this size, or the weights are not its own.
    """
    node = dict(config["model"])
    source, partial = node.pop("weights", None), node.pop("weights_partial", None)
    if partial is not None and source is None:
        raise ValueError(f"model.weights_partial={partial}: needs model.weights")
    torch.manual_seed(config["seed"])
    network = build(node, "model")
    data = config["datamodule"]
    cost = _cost(network, (data["in_chans"], data["image_size"], data["image_size"]))
    loaded = None
    if source is not None and config["run"] is None and not is_resumed:
        loaded = weights.load(network, str(source), Path(config["data_dir"]) / "weights", partial)
    if config["channels_last"]:
        network = network.to(memory_format=torch.channels_last)
    if config["compile"]:
        network.compile()  # in place, so that the names in the state dict stay
    return Built(network, cost, loaded)


def _cost(network: nn.Module, image_shape: tuple[int, int, int]) -> Cost:
    try:
        return count(network, image_shape)
    except (RuntimeError, AssertionError) as error:  # of networks that others wrote
        shape = " x ".join(str(side) for side in image_shape)
        reason = _one_line(error)
        raise ValueError(f"model: takes no images of {shape} (datamodule.image_size): {reason}") from error


def classifier_of(config: Config, network: nn.Module, distillation: Distillation | None = None) -> Classifier:
    """The network with its loss, optimizer and schedule."""
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


def loggers_of(
    config: Config, run: RunDirectory, resumed_step: int | None = None, logged_step: int | None = None
) -> list[Logger]:
    """The loggers of a run; after a resume they go on from a step."""
    task = config["task"]["name"]
    identity, title = run_identity(run.path, config), run_title(run.path)
    logged = LoggedRun(run.path, identity, title, task, config, resumed_step, logged_step)
    return [build(node, f"logger.{name}", run=logged) for name, node in config["logger"].items()]


def trainer_of(config: Config, callbacks: list[Callback], loggers: list[Logger], run: RunDirectory) -> pl.Trainer:
    """Lightning's Trainer, without the parts that this project replaces.

    Raises ValueError: values that Lightning does not know.
    """
    try:
        return build(
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
