"""Released weights and one's own, loaded strictly into a network, whatever layout their file has."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor, nn

from .knobs import check_choice
from .weight_files import read

Partial = Literal["head"]


def load_weights(network: nn.Module, source: str | Path, *, partial: Partial | None = None) -> tuple[str, ...]:
    """Load a file's weights into a network, every one, and return the names of those that `partial` left out.

    Files: `.safetensors`, or what torch saved. Layouts: a plain state dict, as timm's and the official ones are; a
    checkpoint of timm's training script, of which the averaged weights are taken where it has them; a checkpoint of
    this project, whose averaged weights stand in the usual place. Official GhostNetV3 names become timm's.
    partial: `head` leaves the last linear layer as it is, for other classes, whatever the file has there.
    Raises ValueError of one line: the file is not there, not whole or not weights, or its weights are not exactly
    the network's; names that are missing or unexpected and other shapes are listed. The network is unchanged then.
    """
    if partial is not None:
        check_choice("weights_partial", partial, get_args(Partial))
    try:
        theirs = network_state(read(Path(source)), source)
    except ValueError as error:
        raise ValueError(f"model.weights={error}") from error
    ours = network.state_dict()
    head = head_names(network) if partial == "head" else ()
    for name in head:
        theirs[name] = ours[name]
    check_match(ours, theirs, f"model.weights={source}")
    network.load_state_dict(theirs)
    return head


def network_state(content: Mapping[str, Any], source: str | Path) -> dict[str, Tensor]:
    """The state dict of the one network that a file is about, under the names of this project.

    Raises ValueError that names the file when there is none.
    """
    for key in ("state_dict_ema", "state_dict"):
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    state = {str(name): value for name, value in content.items() if not _is_counter(str(name))}
    if any(name.startswith("network.") for name in state):  # a LightningModule of this project: what else it has goes
        state = {name[len("network.") :]: value for name, value in state.items() if name.startswith("network.")}
    elif all(name.startswith("module.") for name in state):  # DataParallel
        state = {name[len("module.") :]: value for name, value in state.items()}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{source}: holds no weights by name")
    return {_timms_name(name): tensor for name, tensor in state.items()}


def _timms_name(name: str) -> str:
    """Of a BatchNorm in a branch of GhostNetV3, which is called otherwise in the official file."""
    return re.sub(r"(_rpr_conv\.\d+|_rpr_scale)\.bn\.", r"\1.bn1.", name)


def _is_counter(name: str) -> bool:
    """Whether thop, with which somebody counted operations before saving, has left this tensor behind."""
    return name.rpartition(".")[2] in ("total_ops", "total_params")


def head_names(network: nn.Module) -> tuple[str, ...]:
    """The names of the weights of a network's last linear layer."""
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"model.weights_partial=head: {type(network).__name__} has no linear layer")
    return tuple(f"{linear[-1]}.{name}" for name, _ in network.get_submodule(linear[-1]).named_parameters())


def check_match(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], source: str | Path) -> None:
    """Raise ValueError, of one line, unless two state dicts have the same names and shapes."""
    shapes = [
        f"{name} {tuple(theirs[name].shape)} instead of {tuple(ours[name].shape)}"
        for name in ours
        if name in theirs and ours[name].shape != theirs[name].shape
    ]
    found = {
        "missing": [name for name in ours if name not in theirs],
        "unexpected": [name for name in theirs if name not in ours],
        "of another shape": shapes,
    }
    problems = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in found.items()
        if names
    ]
    if problems:
        raise ValueError(f"{source}: the weights of another network: {'; '.join(problems)}")
