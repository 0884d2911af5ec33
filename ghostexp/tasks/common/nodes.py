"""Instantiate nodes of a configuration, `{_target_: package.module.Name, ...}`."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import hydra.utils
from hydra.errors import InstantiationException
from lightning.fabric.utilities.exceptions import MisconfigurationException

from ghostexp.errors import TargetNotFoundError
from ghostexp.training.optimization import BUILD_ERRORS

Config = dict[str, Any]
USER_ERRORS = (ValueError, OSError, MisconfigurationException)  # their messages explain what is wrong


def instantiate_node(node: Any, key: str, is_partial: bool = False, **arguments: Any) -> Any:
    """Instantiate a node of the configuration; `arguments` are passed on unchanged.

    is_partial: return a `functools.partial` of the target, not yet called.
    Raises the target's own error if it is one of USER_ERRORS; else ValueError that names the key.
    """
    try:
        if not arguments and not is_partial:
            return hydra.utils.instantiate(node, _convert_="all")
        partial = hydra.utils.instantiate(node, _convert_="all", _partial_=True)
        return partial if is_partial else partial(**arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, USER_ERRORS):
            raise _with_full_key(cause, key, error) from error
        raise ValueError(_cannot_be_built(node, key, cause or error)) from error
    except BUILD_ERRORS as error:
        raise ValueError(_cannot_be_built(node, key, error)) from error


def find_target(node: Mapping[str, Any], key: str) -> Callable[..., Any]:
    """Import the class or function of a node.

    Raises ValueError that names the key: there is no such object.
    """
    try:
        return hydra.utils.get_object(node["_target_"])
    except Exception as error:
        raise TargetNotFoundError(
            f"{key}._target_={node['_target_']}: not found ({one_line(error.__cause__ or error)})"
        ) from error


def accepts(target: Callable[..., Any], name: str) -> bool:
    """Return whether a callable has a parameter of this name; `**kwargs` do not count."""
    try:
        return name in inspect.signature(target).parameters
    except (TypeError, ValueError):  # written in C
        return False


def build_part(node: Config, key: str, kind: type, offered: Mapping[str, Any], withheld: tuple[str, ...] = ()) -> Any:
    """Instantiate a node of a given kind, with those of the offered arguments that its target takes.

    withheld: keys of the node that are ours, and are passed on only to a target that takes them.
    Raises ValueError that names the key: the target builds something else, or refuses its arguments.
    """
    target = find_target(node, key)
    own = {name: value for name, value in node.items() if name not in withheld or accepts(target, name)}
    given = {name: value for name, value in offered.items() if name not in own and accepts(target, name)}
    built = instantiate_node(own, key, **given)
    require_kind(built, kind, f"{key}._target_={node['_target_']}")
    return built


def require_kind(built: object, kind: type, what: str) -> None:
    """Raise ValueError unless an object is of a kind."""
    if not isinstance(built, kind):
        raise ValueError(f"{what}: must build a {kind.__module__}.{kind.__qualname__}, got {type(built).__name__}")


def _cannot_be_built(node: Any, key: str, error: BaseException) -> str:
    """Format the error of a target that refuses its arguments; names the key of an unknown argument."""
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if unknown is None or not isinstance(node, dict) or unknown[1] not in node:
        return f"{key}: cannot be built ({one_line(error)})"
    target = str(node["_target_"]).rpartition(".")[2]
    return f"{key}.{unknown[1]}={node[unknown[1]]}: {target} has no such argument"


def _with_full_key(cause: Exception, key: str, error: InstantiationException) -> Exception:
    """Replace `model.shortcut` in the error of a nested node by the full key, `model.network.shortcut`."""
    nested = re.search(r"full_key: (\S+)", str(error))
    if nested is None or not str(cause).startswith(f"{key}."):
        return cause
    return type(cause)(str(cause).replace(key, f"{key}.{nested[1]}", 1))


def one_line(error: BaseException) -> str:
    """Format an error with its type, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
