"""Build networks of torchvision and timm by name, with the interface of `Network`, and their ghost versions."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torchvision
from torch import nn

from .base import Network
from .ghost_module import NormAct
from .ghostify import ghostify
from .traced_network import as_network
from .validation import check_args

AUXILIARY = ("googlenet", "inception_v3")  # return more than logits unless aux_logits=False


def torchvision_network(
    name: str,
    num_classes: int = 1000,
    in_chans: int = 3,
    ratio: int | None = None,
    dw_size: int = 3,
    exclude: str | Sequence[str] = (),
    norm_act: NormAct = "none",
    kwargs: Mapping[str, Any] | None = None,
) -> Network:
    """Build a classification network with torchvision's layers and torchvision's initial weights.

    ratio: None builds the original; an integer its ghost version, by `ghostify` with dw_size, exclude and norm_act.
    kwargs: further arguments of torchvision's builder, such as `width_mult`.
    Raises ValueError for a name that torchvision does not have, and for arguments that its builder rejects.
    """
    check_args(num_classes=num_classes, in_chans=in_chans)
    check_name(name, torchvision.models.list_models(module=torchvision.models), "torchvision")
    given = ({"aux_logits": False} if name in AUXILIARY else {}) | dict(kwargs or {})
    network = _create("torchvision", torchvision.models.get_model, name, given, weights=None, num_classes=num_classes)
    if in_chans != 3:
        _set_in_channels(network, in_chans)
    return network if ratio is None else ghostify(network, ratio, dw_size, exclude=exclude, norm_act=norm_act)


def timm_network(
    name: str,
    num_classes: int = 1000,
    in_chans: int = 3,
    ratio: int | None = None,
    dw_size: int = 3,
    exclude: str | Sequence[str] = (),
    norm_act: NormAct = "none",
    kwargs: Mapping[str, Any] | None = None,
) -> Network:
    """Build a network of timm, if that is installed; arguments and errors as in `torchvision_network`."""
    try:
        import timm
    except ImportError:
        raise ValueError(f'model.name={name}: needs timm; pip install "ghostexp[timm]"') from None
    check_args(num_classes=num_classes, in_chans=in_chans)
    check_name(name, timm.list_models(), "timm")
    sizes = {"num_classes": num_classes, "in_chans": in_chans}
    network = _create("timm", timm.create_model, name, dict(kwargs or {}), pretrained=False, **sizes)
    return network if ratio is None else ghostify(network, ratio, dw_size, exclude=exclude, norm_act=norm_act)


def _create(
    library: str, create: Callable[..., nn.Module], name: str, kwargs: dict[str, Any], **arguments: Any
) -> Network:
    try:
        return as_network(create(name, **arguments, **kwargs))
    except TypeError as error:
        raise ValueError(f"model.kwargs={kwargs}: {library}'s {name} does not accept them ({error})") from error


def check_name(name: str, names: Sequence[str], library: str) -> None:
    """Raise ValueError, with the closest names, for a network that a library does not have."""
    if name not in names:
        close = difflib.get_close_matches(str(name), names, n=5, cutoff=0.4)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise ValueError(f"model.name={name}: {library} has no such network{hint}")


def _set_in_channels(network: nn.Module, in_chans: int) -> None:
    """Replace the first convolution's input channels; its new weights are as large as torchvision's are."""
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    first.in_channels = in_chans
    weight = first.weight.new_empty(first.out_channels, in_chans, *first.kernel_size)
    first.weight = nn.Parameter(nn.init.normal_(weight, std=float(first.weight.detach().std())))
