"""Released weights and one's own, loaded strictly into a network, whatever layout their file has."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from .weight_files import read
from .weight_layouts import known_as, recognise


class Weights(NamedTuple):
    """The weights that a file has for a network, the names that `reset_head` left out, and what was recognised."""

    state: dict[str, Tensor]
    dropped: tuple[str, ...]
    recognised: tuple[str, ...]


def load_weights(network: nn.Module, source: str | Path, *, reset_head: bool = False) -> tuple[str, ...]:
    """Load a file's weights into a network, every one, and return the names of those that `reset_head` left out.

    For files, layouts, `reset_head` and errors see `read_weights`; after an error the network is unchanged.
    """
    weights = read_weights(network, source, reset_head)
    network.load_state_dict(weights.state)
    return weights.dropped


def read_weights(network: nn.Module, source: str | Path, reset_head: bool = False) -> Weights:
    """Read from a file what is to be loaded into a network.

    Files: `.safetensors`, or what torch saved. Layouts: a plain state dict, or one under a key of people's training
    scripts (`state_dict`, `model`, ...), of which averaged weights are taken where there are such; with a prefix that
    DataParallel, torch.compile, a LightningModule or a wrapper has put before each name; under timm's names, which
    are the official ones, or those of a replication that `weight_layouts.RENAMES` knows.
    reset_head: leave the last linear layer as it is, for other classes, whatever the file has there.
    Raises ValueError of one line: the file is not there, not whole or not weights, or its weights are not exactly
    the network's; names that are missing or unexpected and other shapes are listed.
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
        hints = [*layout.recognised, *(f"known as {whose}" for whose in [known_as(theirs)] if whose)]
        raise ValueError(f"{error} ({'; '.join(hints)})" if hints else str(error)) from error
    return Weights(theirs, head, layout.recognised)


def _read(source: str | Path) -> dict[str, Any]:
    try:
        return read(Path(source))
    except ValueError as error:
        raise ValueError(f"model.weights={error}") from error


def head_parameter_names(network: nn.Module) -> tuple[str, ...]:
    """The names of the weights of a network's last linear layer."""
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"model.reset_head=true: {type(network).__name__} has no linear layer")
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
