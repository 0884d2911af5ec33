"""Load released or own weights strictly into a network, from files of several layouts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from .resnet_cifar import SliceAndPad
from .weight_files import read_weight_file
from .weight_layouts import ENDS_IN_LINEAR, identify_incompatible, recognise


class Weights(NamedTuple):
    """A file's weights for a network, the names that `reset_head` left out, and the recognised parts of the layout."""

    state: dict[str, Tensor]
    dropped: tuple[str, ...]
    recognised: tuple[str, ...]


def load_weights(network: nn.Module, source: str | Path, *, reset_head: bool = False) -> tuple[str, ...]:
    """Load all weights of a file into a network, and return the names that `reset_head` left out.

    For files, layouts, `reset_head` and errors see `read_weights`; after an error the network is unchanged.
    """
    weights = read_weights(network, source, reset_head)
    network.load_state_dict(weights.state)
    return weights.dropped


def read_weights(network: nn.Module, source: str | Path, reset_head: bool = False) -> Weights:
    """Read the weights of a network from a file.

    Files: `.safetensors`, or saved by torch. Layouts: a plain state dict, or one under a key of training scripts
    (`state_dict`, `model`, ...), of which averaged weights are preferred; with a prefix of DataParallel, torch.compile,
    a LightningModule or a wrapper; with timm's names, which are the official ones, or those of a replication in
    `weight_layouts.RENAMES`.
    reset_head: keep the network's last linear layer, for other classes, whatever the file has there.
    Raises ValueError of one line: the file is missing, damaged or without weights, or its weights do not match the
    network exactly; missing and unexpected names and other shapes are listed.
    """
    content, key = _read(source), f"model.weights={source}"
    ours = network.state_dict()
    head = head_parameter_names(network) if reset_head else ()
    try:
        layout = recognise(content, ours.keys(), optional=head)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    theirs = layout.state | {name: ours[name] for name in head}
    try:
        check_match(ours, theirs, key)
    except ValueError as error:
        hints = [*layout.recognised, *(f"known as {known}" for known in [identify_incompatible(theirs)] if known)]
        raise ValueError(f"{error} ({'; '.join(hints)})" if hints else str(error)) from error
    if f"names of {ENDS_IN_LINEAR}" in layout.recognised and any(
        isinstance(module, SliceAndPad) for module in network.modules()
    ):
        raise ValueError(
            f"{key}: names of {ENDS_IN_LINEAR}, whose shortcuts without parameters have zeros on both sides of the "
            "channels; those here (shortcut=A) have them at the end, which is another network"
        )
    return Weights(theirs, head, layout.recognised)


def _read(source: str | Path) -> dict[str, Any]:
    try:
        return read_weight_file(Path(source))
    except ValueError as error:
        raise ValueError(f"model.weights={error}") from error


def head_parameter_names(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the parameters of a network's last linear layer."""
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"model.reset_head=true: {type(network).__name__} has no linear layer")
    return tuple(f"{linear[-1]}.{name}" for name, _ in network.get_submodule(linear[-1]).named_parameters())


def check_match(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], source: str | Path) -> None:
    """Raise ValueError of one line unless two state dicts have the same names and shapes."""
    shapes = [
        f"{name} {tuple(theirs[name].shape)} instead of {tuple(ours[name].shape)}"
        for name in ours
        if name in theirs and ours[name].shape != theirs[name].shape
    ]
    mismatches = {
        "missing": [name for name in ours if name not in theirs],
        "unexpected": [name for name in theirs if name not in ours],
        "of another shape": shapes,
    }
    problems = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in mismatches.items()
        if names
    ]
    if problems:
        raise ValueError(f"{source}: does not match the network: {'; '.join(problems)}")
