"""Layouts of files of weights: where in a file a network is, what stands before its names, and who names otherwise."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from itertools import accumulate
from typing import Any, NamedTuple

from torch import Tensor

# Keys under which people's scripts save a network; averaged weights go before those of the last step.
KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model_state_dict", "model_state")
KEYS += ("model", "network", "net", "module", "weights", "params")
OWN_PREFIX = "network."  # of this project's checkpoints, whose other names are a teacher's and counters
MAX_PREFIX = 4  # parts

# Names of others and those of this project, which has timm's, and whose they are. Used where the result is wanted.
RENAMES = (
    (r"(_rpr_conv\.\d+|_rpr_scale)\.bn\.", r"\1.bn1.", "huawei-noah's GhostNetV3"),
    (r"(^|\.)primary_conv\.(weight|bias)$", r"\1primary_conv.0.\2", "bvn1904/ghostnet"),
    (r"(^|\.)cheap_operations?\.(weight|bias)$", r"\1cheap_operation.0.\2", "bvn1904/ghostnet"),
    (r"^linear\.(weight|bias)$", r"fc.\1", "CIFAR-10 ResNets that end in `linear`"),
)
# Names by which networks are known that have other layers than this project's, so that no renaming helps.
OTHERS = (
    (
        r"^features\.\d+\.conv\.0\.primary_conv\.",
        "the GhostNet of d-li14 and iamhankai, with BatchNorm in its head and ReLU in its shortcuts",
    ),
    (r"\.conv\d\.weight1$", "huawei-noah's Ghost-ResNet-50, without BatchNorm in its blocks"),
    (
        r"(^|\.)(bottlenecks|layers)\.\d+\.ghost1\.primary_conv\.weight$",
        "bvn1904's GhostNet, with one BatchNorm behind each ghost module",
    ),
)


class Layout(NamedTuple):
    """A network's weights under this project's names, and what was recognised on the way to them."""

    state: dict[str, Tensor]
    recognised: tuple[str, ...]


def recognise(content: Mapping[str, Any], wanted: Collection[str], optional: Collection[str] = ()) -> Layout:
    """Find the weights of one network in what a file holds, and give them the names that are wanted.

    Names that are neither wanted nor explained stay as they are; those of `optional` may be missing.
    Raises ValueError: there are none, or those of several networks.
    """
    found, keys = _unwrap(content)
    names = {str(name): value for name, value in found.items() if not _is_profiling_buffer(str(name))}
    if not names or not all(isinstance(value, Tensor) for value in names.values()):
        raise ValueError(f"holds no weights by name{_elsewhere(content)}")
    prefix = _find_prefix(names, set(wanted), set(optional))
    inner = {name[len(prefix) :]: value for name, value in names.items() if name.startswith(prefix)}
    renamed = {name: _rename(name, wanted) for name in inner}
    recognised = [f"under {'.'.join(keys)}"] if keys else []
    recognised += [f"without the prefix {prefix}"] if prefix else []
    left_out = len(names) - len(inner)
    recognised += [f"without {left_out} other names"] if left_out else []
    recognised += dict.fromkeys(f"names of {whose}" for _, whose in renamed.values() if whose)
    return Layout({renamed[name][0]: value for name, value in inner.items()}, tuple(recognised))


def known_as(names: Collection[str]) -> str | None:
    """Whose network the names are of, which has other layers; None where that is not known."""
    return next((whose for pattern, whose in OTHERS if any(re.search(pattern, name) for name in names)), None)


def _unwrap(content: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """What stands under the keys of a script, however deep, and these keys."""
    keys: list[str] = []
    while key := next((key for key in KEYS if isinstance(content.get(key), Mapping) and content[key]), None):
        content = content[key]
        keys.append(key)
    return content, keys


def _is_profiling_buffer(name: str) -> bool:
    """Whether a tensor counts: operations, which thop leaves behind, or the steps of torch's AveragedModel."""
    return name.rpartition(".")[2] in ("total_ops", "total_params", "n_averaged")


def _elsewhere(content: Mapping[str, Any]) -> str:
    """How to save tensors alone that stand under a key which no script is known for."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value and all(isinstance(tensor, Tensor) for tensor in value.values()):
            return f'; there are some under {key}: torch.save(torch.load(FILE)["{key}"], NEW) makes a file of them'
    return ""


def _find_prefix(names: Collection[str], wanted: set[str], optional: set[str]) -> str:
    """What stands before every name of the network, such as `module._orig_mod.`; empty where nothing does.

    Raises ValueError: names under several prefixes would do.
    """
    counts = Counter(prefix for name in names for prefix in _prefixes(name))
    needed = wanted - optional
    large = [prefix for prefix, count in counts.items() if count >= len(needed)]
    fitting = [prefix for prefix in large if needed <= _names_behind(prefix, names, wanted)]
    for certain in ("", OWN_PREFIX):
        if certain in fitting:
            return certain
    if len(fitting) > 1:
        places = ", ".join(sorted(fitting))
        raise ValueError(f"holds several such networks, under {places}; make a file of the one that is meant")
    own = {name.partition(".")[0] for name in wanted}
    whole = [prefix for prefix, count in counts.items() if count == len(names)]
    shared = [prefix for prefix in whole if prefix.partition(".")[0] not in own]
    return max(fitting or shared or [""], key=len)


def _prefixes(name: str) -> list[str]:
    """Of `a.b.c`: nothing, `a.` and `a.b.`."""
    return ["", *accumulate(f"{part}." for part in name.split(".")[:-1][:MAX_PREFIX])]


def _names_behind(prefix: str, names: Collection[str], wanted: set[str]) -> set[str]:
    """The names behind a prefix, as they are wanted."""
    return {_rename(name[len(prefix) :], wanted)[0] for name in names if name.startswith(prefix)}


def _rename(name: str, wanted: Collection[str]) -> tuple[str, str | None]:
    """A name as it is wanted, and whose name it was; itself and None where it is wanted already, or never."""
    for pattern, ours, whose in () if name in wanted else RENAMES:
        renamed = re.sub(pattern, ours, name)
        if renamed in wanted:
            return renamed, whose
    return name, None
