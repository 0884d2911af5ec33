"""Build the LightningModule of a run: network, loss, metrics, optimizer and learning-rate schedule."""

import inspect
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torchmetrics import Metric

from ghostexp.models.detection.base import DetectionModel
from ghostexp.tasks.common.nodes import (
    BUILD_ERRORS,
    Config,
    accepts,
    build_part,
    find_target,
    instantiate_node,
    one_line,
)
from ghostexp.training.base_module import BaseModule
from ghostexp.training.classification_module import OWN_METRICS, ClassificationModule
from ghostexp.training.detection_module import COCO_METRICS, DetectionModule
from ghostexp.training.distillation import Distillation
from ghostexp.training.distributed import check_sync_batchnorm
from ghostexp.training.optimization import Optimization

DEFAULT_LOSS = "torch.nn.CrossEntropyLoss"
HOOKS = ("training_step", "validation_step", "test_step", "configure_optimizers")  # of a LightningModule


def build_lightning_module(
    config: Config, network: nn.Module, distillation: Distillation | None = None
) -> pl.LightningModule:
    """Build the LightningModule of a classifier or a detector, or that of `lightning_module`, and try its parts.

    Raises ValueError: a part that does not do what it is used for, a classification loss for a detector, its boxes in
    half precision, or a BatchNorm that cannot be synchronised.
    """
    if config["trainer"].get("sync_batchnorm"):
        check_sync_batchnorm(network)
    is_detecting = isinstance(network, DetectionModel)
    if is_detecting:
        check_detection(config)
    arguments: dict[str, Any] = {"network": network, "seed": config["seed"], "monitor": config.get("monitor")}
    arguments |= build_factories(config)
    if is_detecting:
        arguments["loss_names"] = network.loss_names
    else:
        num_classes = config["datamodule"]["num_classes"]
        metrics = build_metrics(config, num_classes)
        arguments |= {"num_classes": num_classes, "criterion": build_loss(config, num_classes), "metrics": metrics}
        arguments |= {"distillation": distillation}
    node = config.get("lightning_module")
    if node is None:
        _check_monitor(config, arguments)
        module = (DetectionModule if is_detecting else ClassificationModule)(**arguments)
    else:
        module = _build_own_module(node, arguments, ClassificationModule if not is_detecting else DetectionModule)
    if isinstance(module, BaseModule) and config["task"]["name"] == "fit":
        module.optimization.check(network, config["trainer"]["max_epochs"])
    return module


def build_factories(config: Config) -> dict[str, Any]:
    """Build the factories of optimizer and schedule, which need the network and the length of an epoch.

    See `Optimization` for the arguments of a LightningModule that this returns.
    """
    scheduler = dict(config["scheduler"])
    is_ours = accepts(find_target(scheduler, "scheduler"), "interval")
    interval = None if is_ours else scheduler.pop("interval", None)
    return {
        "optimizer": instantiate_node(config["optimizer"], "optimizer", is_partial=True),
        "schedule": instantiate_node(scheduler, "scheduler", is_partial=True),
        "interval": interval,
    }


def build_loss(config: Config, num_classes: int) -> nn.Module:
    """Build the loss of a classifier, and try it on logits (N, num_classes) and targets as training has them.

    Raises ValueError: it does not return a number with a gradient.
    """
    node = {"_target_": DEFAULT_LOSS} | {key: value for key, value in config["loss"].items() if key != "distill"}
    if not node.get("label_smoothing") and not accepts(find_target(node, "loss"), "label_smoothing"):
        node.pop("label_smoothing", None)
    criterion = build_part(node, "loss", nn.Module, {})
    if getattr(criterion, "reduction", "mean") == "sum":
        raise ValueError("loss.reduction=sum: must be mean: losses are averaged over images")
    mixes = any(config["datamodule"].get(key) for key in ("mixup_alpha", "cutmix_alpha"))
    logits = torch.linspace(-1, 1, 2 * num_classes).reshape(2, num_classes).requires_grad_()
    targets = torch.full((2, num_classes), 1 / num_classes) if mixes else torch.arange(2) % num_classes
    kind = "probabilities (N, num_classes), as Mixup makes them" if mixes else "classes (N,)"
    needed = f"loss: {type(criterion).__name__} must map logits (N, num_classes) and {kind} to one number"
    try:
        value = criterion(logits, targets)
    except (*BUILD_ERRORS, ValueError) as error:
        raise ValueError(f"{needed}, got {one_line(error)}") from error
    if not isinstance(value, Tensor) or value.ndim or not value.requires_grad:
        found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{needed} with a gradient, got {found}")
    return criterion


def build_metrics(config: Config, num_classes: int) -> dict[str, Metric]:
    """Build the metrics of `metrics.NAME`, and try each on logits and classes.

    Raises ValueError: a name that the module has already, or a metric that is not one number.
    """
    metrics = {}
    for name, node in (config.get("metrics") or {}).items():
        key = f"metrics.{name}"
        if name in OWN_METRICS:
            raise ValueError(f"{key}: already exists; choose another name")
        metric = build_part(dict(node), key, Metric, {"num_classes": num_classes})
        try:
            metric.update(torch.linspace(-1, 1, 2 * num_classes).reshape(2, num_classes), torch.arange(2) % num_classes)
            float(metric.compute())
        except (*BUILD_ERRORS, ValueError) as error:
            needed = f"{type(metric).__name__} must be one number of logits (N, num_classes) and classes (N,)"
            raise ValueError(f"{key}: {needed}, got {one_line(error)}") from error
        metric.reset()
        metrics[name] = metric
    return metrics


def _check_monitor(config: Config, arguments: dict[str, Any]) -> None:
    """Raise ValueError for a `monitor` that our modules do not compute."""
    monitor = config.get("monitor")
    known = COCO_METRICS
    if "num_classes" in arguments:
        left_out = () if arguments["num_classes"] > 5 else ("acc5",)
        known = [name for name in (*OWN_METRICS, *arguments["metrics"]) if name not in left_out]
    if monitor is not None and monitor not in known:
        raise ValueError(f"monitor={monitor}: must be one of {', '.join(known)}, or null")


def check_detection(config: Config) -> None:
    """Raise ValueError for keys of a classifier's training that a detector does not have, and for half precision."""
    precision, loss = str(config["trainer"]["precision"]), config["loss"]
    if precision in ("16-true", "bf16-true"):
        mixed = precision.replace("true", "mixed")
        raise ValueError(f"trainer.precision={precision}: rounds boxes of a detector; use trainer.precision={mixed}")
    typed = [f"loss.label_smoothing={loss['label_smoothing']}"] if loss.get("label_smoothing") else []
    typed += [f"loss._target_={loss['_target_']}"] if loss.get("_target_", DEFAULT_LOSS) != DEFAULT_LOSS else []
    teacher = (loss.get("distill") or {}).get("teacher")
    typed += [] if teacher is None else ["loss.distill.teacher"]
    typed += [f"metrics.{name}" for name in config.get("metrics") or {}]
    if typed:
        has = "metrics" if typed[0].startswith("metrics") else "losses"
        raise ValueError(f"{typed[0]}: must not be set for a detector, which has its own {has}")


def _build_own_module(node: Config, arguments: dict[str, Any], ours: type[BaseModule]) -> pl.LightningModule:
    """Build the LightningModule of `lightning_module`, with those of our arguments that it takes."""
    target = find_target(node, "lightning_module")
    if isinstance(target, type) and issubclass(target, BaseModule):
        named = {name for name in arguments if name in inspect.signature(ours).parameters}
        module = instantiate_node(node, "lightning_module", **{name: arguments[name] for name in named})
    else:
        optimization = Optimization(*(arguments[name] for name in ("optimizer", "schedule", "interval")))
        factories = {"optimizer": optimization.build_optimizer, "scheduler": optimization.build_scheduler}
        module = build_part(node, "lightning_module", pl.LightningModule, arguments | factories)
    name, network = type(module).__name__, arguments["network"]
    if getattr(module, "network", None) is not network:
        raise ValueError(f"lightning_module: {name} must take the argument network, and keep it as self.network")
    missing = [hook for hook in HOOKS if not is_overridden(hook, module, pl.LightningModule)]
    if missing:
        raise ValueError(f"lightning_module: {name} must define {', '.join(HOOKS)}; it lacks {', '.join(missing)}")
    if arguments["monitor"] is not None:
        module.monitor = arguments["monitor"]
    if not isinstance(getattr(module, "monitor", None), str):
        raise ValueError(f"monitor: must be set for {name}: NAME of the metric that it logs as val/NAME and test/NAME")
    return module
