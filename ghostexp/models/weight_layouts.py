"""Recognise layouts of weight files: wrapper keys, name prefixes, and the names of other repositories."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from itertools import accumulate
from typing import Any, NamedTuple

from torch import Tensor

# Keys under which training scripts save a network; averaged weights come before those of the last step.
KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model_state_dict", "model_state")
KEYS += ("model", "network", "net", "module", "weights", "params")
OWN_PREFIX = "network."  # of this project's checkpoints, which also contain a teacher and counters
MAX_PREFIX = 4  # parts

ENDS_IN_LINEAR = "CIFAR-10 ResNets that end in `linear`"
# Name patterns of other repositories, this project's (timm's) names, and the source. Used if the result is expected.
RENAMES = (
    (r"(_rpr_conv\.\d+|_rpr_scale)\.bn\.", r"\1.bn1.", "huawei-noah's GhostNetV3"),
    (r"(^|\.)primary_conv\.(weight|bias)$", r"\1primary_conv.0.\2", "bvn1904/ghostnet"),
    (r"(^|\.)cheap_operations?\.(weight|bias)$", r"\1cheap_operation.0.\2", "bvn1904/ghostnet"),
    (r"^linear\.(weight|bias)$", r"fc.\1", ENDS_IN_LINEAR),
)
# Name patterns of networks that have other layers than this project's, so that renaming cannot load them.
OTHERS = (
    (
        r"^features\.\d+\.conv\.0\.primary_conv\.",
        "the GhostNet of d-li14 and iamhankai, with BatchNorm in its head and ReLU in its shortcuts",
    ),
    (r"\.conv\d\.weight1$", "huawei-noah's Ghost-ResNet-50, without BatchNorm in its blocks"),
    (
        r"(^|\.)(bottlenecks|layers)\.\d+\.ghost1\.primary_conv\.weight$",
        "bvn1904's GhostNet, with one BatchNorm after each ghost module",
    ),
)


class Layout(NamedTuple):
    """A network's weights under this project's names, and the parts of the layout that were recognised."""

    state: dict[str, Tensor]
    recognised: tuple[str, ...]


def recognise(content: Mapping[str, Any], expected: Collection[str], optional: Collection[str] = ()) -> Layout:
    """Find the weights of one network in a file's content, and rename them to the expected names.

    Names that are neither expected nor known stay; those of `optional` may be missing.
    Raises ValueError: there are no weights, or those of several networks.
    """
    state, keys = _unwrap(content)
    names = {str(name): value for name, value in state.items() if not _is_profiling_buffer(str(name))}
    if not names or not all(isinstance(value, Tensor) for value in names.values()):
        raise ValueError(f"must contain weights by name{_extraction_hint(content)}")
    prefix = _find_prefix(names, set(expected), set(optional))
    inner = {name[len(prefix) :]: value for name, value in names.items() if name.startswith(prefix)}
    renamed = {name: _rename(name, expected) for name in inner}
    recognised = [f"under {'.'.join(keys)}"] if keys else []
    recognised += [f"without the prefix {prefix}"] if prefix else []
    left_out = len(names) - len(inner)
    recognised += [f"without {left_out} other names"] if left_out else []
    recognised += dict.fromkeys(f"names of {source}" for _, source in renamed.values() if source)
    return Layout({renamed[name][0]: value for name, value in inner.items()}, tuple(recognised))


def identify_incompatible(names: Collection[str]) -> str | None:
    """Return which incompatible network the names belong to; None if unknown."""
    return next((source for pattern, source in OTHERS if any(re.search(pattern, name) for name in names)), None)


def _unwrap(content: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """Return the innermost mapping under the keys of training scripts, and these keys."""
    keys: list[str] = []
    while key := next((key for key in KEYS if isinstance(content.get(key), Mapping) and content[key]), None):
        content = content[key]
        keys.append(key)
    return content, keys


def _is_profiling_buffer(name: str) -> bool:
    """Return whether a tensor is a counter, of thop's operations or of the steps of torch's AveragedModel."""
    return name.rpartition(".")[2] in ("total_ops", "total_params", "n_averaged")


def _extraction_hint(content: Mapping[str, Any]) -> str:
    """Suggest how to extract weights that are under an unknown key; empty if there are none."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value and all(isinstance(tensor, Tensor) for tensor in value.values()):
            return f'; found some under {key}: torch.save(torch.load(FILE)["{key}"], NEW) extracts them'
    return ""


def _find_prefix(names: Collection[str], expected: set[str], optional: set[str]) -> str:
    """Find the prefix of every name of the network, such as `module._orig_mod.`; empty without one.

    Raises ValueError: several prefixes match.
    """
    counts = Counter(prefix for name in names for prefix in _prefixes(name))
    needed = expected - optional
    large = [prefix for prefix, count in counts.items() if count >= len(needed)]
    fitting = [prefix for prefix in large if needed <= _names_after(prefix, names, expected)]
    for certain in ("", OWN_PREFIX):
        if certain in fitting:
            return certain
    if len(fitting) > 1:
        found = ", ".join(sorted(fitting))
        raise ValueError(f"must contain one network, got several, under {found}; save the intended one to a file")
    own = {name.partition(".")[0] for name in expected}
    common = [prefix for prefix, count in counts.items() if count == len(names)]
    shared = [prefix for prefix in common if prefix.partition(".")[0] not in own]
    return max(fitting or shared or [""], key=len)


def _prefixes(name: str) -> list[str]:
    """List the prefixes of a name; of `a.b.c`: empty, `a.` and `a.b.`."""
    return ["", *accumulate(f"{part}." for part in name.split(".")[:-1][:MAX_PREFIX])]


def _names_after(prefix: str, names: Collection[str], expected: set[str]) -> set[str]:
    """Return the names after a prefix, renamed to the expected ones."""
    return {_rename(name[len(prefix) :], expected)[0] for name in names if name.startswith(prefix)}


def _rename(name: str, expected: Collection[str]) -> tuple[str, str | None]:
    """Return the expected name and the source of the original one; the name itself and None without a match."""
    for pattern, ours, source in () if name in expected else RENAMES:
        renamed = re.sub(pattern, ours, name)
        if renamed in expected:
            return renamed, source
    return name, None
