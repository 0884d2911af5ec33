"""Build the network of a configuration: a classifier of any origin, or a detector on one."""

import inspect
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ghostexp.analysis.cost import Cost, backbone_macs, count_cost
from ghostexp.models.base import Network, meta_copy
from ghostexp.models.detection.base import DetectionModel
from ghostexp.models.detection.fpn import check_strides
from ghostexp.models.plan import apply_plan
from ghostexp.models.traced_network import TracedNetwork, as_network
from ghostexp.tasks.common import weights_source
from ghostexp.tasks.common.acceleration import allow_tf32, compile_network
from ghostexp.tasks.common.nodes import BUILD_ERRORS, Config, build_part, find_target, instantiate_node, one_line

OF_IMAGES = ("num_classes", "in_chans", "image_size")  # passed from the data to a network that takes them


class BuiltModel(NamedTuple):
    """A network, its cost on one image, and the weights that it starts from, None if randomly initialised.

    backbone_macs: of a detector's full backbone at 224 x 224, as the papers count them.
    """

    network: Network | DetectionModel
    cost: Cost
    weights: weights_source.WeightsRecord | None
    backbone_macs: int | None = None


def is_detector(model: Config) -> bool:
    """Return whether the target of a model builds a detector: a DetectionModel, or a function annotated with one."""
    target = find_target(model, "model")
    try:
        made = target if isinstance(target, type) else inspect.signature(target, eval_str=True).return_annotation
    except (NameError, TypeError, ValueError):
        return False
    return isinstance(made, type) and issubclass(made, DetectionModel)


def build_network(config: Config, is_resumed: bool = False) -> BuiltModel:
    """Build the network, initialise it from the seed, and load `model.weights`.

    With `run=DIR`, or on a resume, a checkpoint is loaded later, so that `model.weights` is not.
    Raises ValueError: it does not support images of this size, or the weights do not match.
    """
    node = dict(config["model"])
    is_detecting = is_detector(node)
    source, reset_head = node.pop("weights", None), bool(node.pop("reset_head", False))
    if reset_head and (source is None or is_detecting):
        needed = "must be false for a detector" if is_detecting else "needs model.weights"
        raise ValueError(f"model.reset_head=true: {needed}")
    if is_detecting and node.pop("plan", None) is not None:
        raise ValueError("model.plan: a detector has that of its backbone; model.backbone.plan=...")
    has_checkpoint = config["run"] is not None or is_resumed
    if not has_checkpoint:
        check_freezing(config)
    allow_tf32(config.get("tf32", True))
    torch.manual_seed(config["seed"])
    loaded, macs = None, None
    if is_detecting:
        network, loaded, macs = _build_detector(node, config, is_loaded=has_checkpoint or source is not None)
    else:
        network = build_classifier(node, config)
    cost = _cost(network, image_shape(config))
    if source is not None and not has_checkpoint:
        loaded = weights_source.load_weights_source(network, str(source), weights_folder(config), reset_head)
    if config["channels_last"]:
        network = network.to(memory_format=torch.channels_last)
    compile_network(network, config.get("compile", False))
    return BuiltModel(network, cost, loaded, macs)


def check_freezing(config: Config) -> None:
    """Raise ValueError if a fit, which starts from no checkpoint, would freeze a detector's random weights."""
    model = config["model"]
    if config["task"]["name"] != "fit" or not is_detector(model):
        return
    has_weights = model.get("weights") is not None or model["backbone"].get("weights") is not None
    for key in ("freeze_stages", "freeze_batchnorm"):
        if model.get(key) and not has_weights:
            raise ValueError(f"model.{key}={model[key]}: needs model.backbone.weights, to freeze pretrained weights")


def build_classifier(node: Config, config: Config, key: str = "model") -> Network:
    """Build a classifier; a module that is no `Network` gets its interface, and is checked on images of the data.

    Raises ValueError: it builds no module, or does not map images to logits.
    """
    offered = {name: value for name in OF_IMAGES if (value := config["datamodule"].get(name)) is not None}
    plan = node.get("plan")
    network = build_part({name: value for name, value in node.items() if name != "plan"}, key, nn.Module, offered)
    if isinstance(network, Network) and not isinstance(network, TracedNetwork):
        return with_plan(network, plan, key)
    if isinstance(network, DetectionModel):
        raise ValueError(f"{key}._target_={node['_target_']}: annotate what it returns, a DetectionModel")
    _check_logits(network, image_shape(config), config["datamodule"]["num_classes"], key)
    return with_plan(as_network(network), plan, key)


def with_plan(network: Network, plan: Config | None, key: str) -> Network:
    """Apply a plan to a network, if there is one."""
    return network if plan is None else apply_plan(network, plan, f"{key}.plan")


def _check_logits(network: nn.Module, shape: tuple[int, int, int], num_classes: int, key: str) -> None:
    """Raise ValueError unless a module maps images to logits (N, num_classes); runs on the meta device."""
    try:
        with torch.no_grad():
            output = meta_copy(network)(torch.empty(2, *shape, device="meta"))
    except BUILD_ERRORS as error:
        raise ValueError(_unsupported(shape, error, key)) from error
    found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if found != (2, num_classes):
        raise ValueError(
            f"{key}: {type(network).__name__} must map images (N, {shape[0]}, {shape[1]}, {shape[2]}) to logits "
            f"(N, {num_classes}); for N = 2 got {found}"
        )


def _build_detector(
    node: Config, config: Config, is_loaded: bool
) -> tuple[DetectionModel, weights_source.WeightsRecord | None, int]:
    """Build a detector on a classifier; returns it, the backbone's weights, and its MACs as the papers count them.

    The weights of the classifier's last layer are left out.
    is_loaded: the detector's own weights are loaded later.
    """
    backbone_node = dict(node.pop("backbone"))
    if (in_chans := backbone_node.get("in_chans", 3)) != 3:
        raise ValueError(f"model.backbone.in_chans={in_chans}: must be 3; detectors read images in colour")
    source, plan, loaded = backbone_node.pop("weights", None), backbone_node.pop("plan", None), None
    backbone = as_network(build_part(backbone_node, "model.backbone", nn.Module, {}))
    backbone = with_plan(backbone, plan, "model.backbone")
    if source is not None and not is_loaded:
        loaded = weights_source.load_weights_source(
            backbone, str(source), weights_folder(config), True, "model.backbone.weights"
        )
    check_strides(backbone, node["strides"], node["freeze_stages"])
    macs = backbone_macs(backbone)  # before layers are pruned
    return instantiate_node(node, "model", backbone=backbone), loaded, macs


def weights_folder(config: Config) -> Path:
    return Path(config["data_dir"]) / "weights"


def image_shape(config: Config) -> tuple[int, int, int]:
    """Return the shape of an image of the datamodule: (in_chans, image_size, image_size)."""
    data = config["datamodule"]
    return data["in_chans"], data["image_size"], data["image_size"]


def _cost(network: nn.Module, image_shape: tuple[int, int, int]) -> Cost:
    try:
        return count_cost(network, image_shape)
    except (RuntimeError, AssertionError) as error:  # raised by networks of other libraries
        raise ValueError(_unsupported(image_shape, error, "model")) from error


def _unsupported(image_shape: tuple[int, int, int], error: Exception, key: str) -> str:
    shape = " x ".join(str(side) for side in image_shape)
    return f"{key}: must support images of {shape} (datamodule.image_size), got {one_line(error)}"
