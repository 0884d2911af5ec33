"""Register the networks that timm lacks: `import ghostexp.timm`, then `timm.create_model("ghost_resnet56", ratio=3)`.

A folder of task=export with safetensors is loaded by `timm.create_model("local-dir:FOLDER", pretrained=True)`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import timm
from timm.models import build_model_with_cfg, register_model
from torch import nn

from ghostexp.api import create_model
from ghostexp.config.compose import CONF
from ghostexp.config.config_files import list_options
from ghostexp.config.trust import check_saved_config

EXPORTED = "ghostexp_network"  # architecture of an exported network, whose arguments are its node of the configuration
ALWAYS = ("num_classes", "in_chans")  # arguments that timm passes on always
IGNORED = ("global_pool",)  # arguments that timm passes on and these networks do not have


def _exported(model: Mapping[str, Any], **others: Any) -> nn.Module:
    """Build an exported network; raises ValueError for a target that is no part of a known package."""
    from ghostexp.tasks.common.build_network import with_plan
    from ghostexp.tasks.common.nodes import instantiate_node

    check_saved_config(model, Path("model_args"), ())
    node = {**model, **({"network": {**model["network"]}} if isinstance(model.get("network"), Mapping) else {})}
    for key, value in others.items():
        # A ghostified network has the arguments of the ordinary one in a node of its own.
        parts = [part for part in (node, node.get("network", {})) if key in part]
        if not parts and value is not None and key not in ALWAYS:
            raise ValueError(f"{key}={value}: the exported network has no such argument")
        for part in parts:
            part[key] = value
    plan = node.pop("plan", None)
    return with_plan(instantiate_node(node, "model"), plan, "model")


def _named(name: str) -> Callable[..., nn.Module]:
    return lambda **keys: create_model(name, **keys)


def _register(name: str, build: Callable[..., nn.Module]) -> None:
    """Register a function under a name, as timm's decorator does with a module's functions."""

    def entrypoint(pretrained: bool = False, **keys: Any) -> nn.Module:
        return build_model_with_cfg(build, name, pretrained, kwargs_filter=IGNORED, **keys)  # pyright: ignore

    entrypoint.__name__ = name
    register_model(entrypoint)


def _register_all() -> None:
    _register(EXPORTED, _exported)
    known = set(timm.list_models())
    for name in list_options("model", CONF):
        if name not in {*known, "timm", "torchvision"} and "rcnn" not in name and "retinanet" not in name:
            _register(name, _named(name))


_register_all()
