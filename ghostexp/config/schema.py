"""Validate a composed configuration: known keys, types and ranges."""

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from ghostexp.config.key import Key, Keys
from ghostexp.config.keys import DISTILL, GROUPS, LAUNCHER, LOSS, ROOT, SET_HERE, SWEEPER
from ghostexp.config.search_keys import SEARCH
from ghostexp.config.signatures import signature
from ghostexp.config.task_keys import NAME, TASKS
from ghostexp.runs.config_keys import THIRD_PARTY_DATA_KEYS

OF_HYDRA = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")  # keys of every node with a target
OWN = ("ghostexp.", "lightning.pytorch.Trainer")  # targets whose arguments are in the tables
CALLBACKS_TARGET, LOSS_TARGET = "ghostexp.training.callbacks.build_callbacks", "torch.nn.CrossEntropyLoss"
# Keys beside the arguments of a target, by group.
MORE = {"model": ("weights", "reset_head", "plan"), "datamodule": THIRD_PARTY_DATA_KEYS, "scheduler": ("interval",)}
WORDS = {
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "string": "text",
    "null": "null",
}
MANY = 30  # maximum number of names listed in an error
Node = Mapping[str, Any]


class Fault(NamedTuple):
    """Error of one config key. is_value: the value is wrong, and is shown in the message."""

    path: str
    text: str
    is_value: bool = False


class SchemaError(ValueError):
    """Unknown key or invalid value."""

    def __init__(self, fault: Fault, value: object = None) -> None:
        self.fault, self.value = fault, value
        label = f"{fault.path}={value}" if fault.is_value else fault.path
        super().__init__(f"{label}: {fault.text}")


def check(config: Node, variables: Collection[str] = ()) -> None:
    """Raise SchemaError for the first fault of a resolved configuration.

    variables: further top-level keys that others refer to as `${KEY}`.
    """
    fault = next(faults(config, variables), None)
    if fault is not None:
        raise SchemaError(fault, _value(config, fault.path) if fault.is_value else None)


def faults(config: Node, variables: Collection[str] = ()) -> Iterator[Fault]:
    """Yield the errors of a resolved configuration."""
    yield from _missing(config)
    yield from _keys({key: value for key, value in config.items() if key in ROOT or key not in variables}, ROOT, "")
    for group in ("model", "datamodule", "optimizer", "scheduler", "trainer", "lightning_module"):
        if isinstance(config.get(group), Mapping):
            yield from _node(config[group], group, group, MORE.get(group, ()))
    yield from _callbacks(config.get("callbacks"))
    for group in ("logger", "metrics"):
        for name, node in _items(config, group):
            yield from _part(node, group, f"{group}.{name}")
    yield from _task(config.get("task"))
    if isinstance(config.get("search"), Mapping):
        yield from _keys(config["search"], SEARCH, "search")
    yield from _loss(config.get("loss"))


def check_sweeper(sweeper: Node) -> None:
    """Raise SchemaError for an invalid `hydra.sweeper`, which has the grid of a study."""
    fault = next(_keys(sweeper, SWEEPER, "hydra.sweeper"), None)
    if fault is not None:
        raise SchemaError(fault, sweeper.get(fault.path.rpartition(".")[2]))


def check_search(search: Node) -> None:
    """Raise SchemaError for an invalid or missing key of a search."""
    missing = [name for name in SEARCH if name not in search and name != "startup"]
    if missing:
        raise SchemaError(Fault(f"search.{missing[0]}", "is required"))
    fault = next(_keys(search, SEARCH, "search"), None)
    if fault is not None:
        raise SchemaError(fault, search.get(fault.path.rpartition(".")[2]))


def check_launcher(launcher: Node) -> None:
    """Raise SchemaError for an invalid `hydra.launcher`; launchers of clusters may have further keys."""
    is_local = launcher.get("backend") == "local"
    known = {name: value for name, value in launcher.items() if is_local or name in LAUNCHER}
    fault = next(_keys(known, {"backend": LAUNCHER["backend"]} if is_local else LAUNCHER, "hydra.launcher"), None)
    if fault is not None:
        raise SchemaError(fault, launcher.get(fault.path.rpartition(".")[2]))


def key_of(path: str, task: str = "fit") -> Key | None:
    """Return the description of a key by its path, as on a command line; None if unknown."""
    parts = path.split(".")
    if len(parts) == 1:
        return ROOT.get(path)
    if parts[0] == "task":
        return (NAME | TASKS.get(task, {})).get(parts[1]) if len(parts) == 2 else None
    if parts[0] == "search":
        return SEARCH.get(parts[1]) if len(parts) == 2 else None
    if parts[0] == "loss":
        if parts[:3] == ["loss", "distill", "teacher"] and len(parts) > 3:
            return GROUPS["model"].get(parts[-1])
        return {**LOSS, **{f"distill.{key}": value for key, value in DISTILL.items()}}.get(".".join(parts[1:]))
    if parts[:2] in (["hydra", "run"], ["hydra", "sweep"]) and parts[-1] == "dir":
        return ROOT["output_dir"]
    return GROUPS.get(parts[0], {}).get(parts[-1])


def unknown_key_message(override: str, path: str, siblings: Collection[str]) -> str:
    """Build the message for an unknown key; override: as typed."""
    parent, _, leaf = path.rpartition(".")
    names = [str(name) for name in siblings if not str(name).startswith("_")]
    near = difflib.get_close_matches(leaf, names, 1)
    text = f"{override}: {parent or 'the configuration'} has no {leaf}"
    if names and (len(names) <= MANY or not near):
        text += f"; there is {', '.join(names)}"
    return text + (f"; did you mean {'.'.join(filter(None, (parent, near[0])))}?" if near else "")


def _missing(config: Node) -> Iterator[Fault]:
    needed = [key for key in ROOT if key not in config]
    if needed:
        yield Fault(needed[0], "is required")


def _items(config: Node, group: str) -> Iterator[tuple[str, Any]]:
    node = config.get(group)
    if isinstance(node, Mapping):
        yield from node.items()


def _part(node: object, group: str, path: str) -> Iterator[Fault]:
    """Yield the errors of a named part of a group."""
    yield from _node(node, group, path) if isinstance(node, Mapping) else [_of_type(path, ROOT["logger"])]


def _callbacks(callbacks: object) -> Iterator[Fault]:
    """Yield the errors of the callbacks: ours are values, others are nodes by name."""
    if isinstance(callbacks, Mapping):
        named = {name: node for name, node in callbacks.items() if isinstance(node, Mapping)}
        ours = {name: value for name, value in callbacks.items() if name not in named}
        if callbacks.get("_target_") != CALLBACKS_TARGET:
            yield Fault(
                "callbacks._target_", f"must be {CALLBACKS_TARGET}; others are added as callbacks.NAME._target_"
            )
        yield from _node(ours, "callbacks", "callbacks")
        for name, node in named.items():
            yield from _part(node, "", f"callbacks.{name}")


def _keys(node: Node, keys: Keys, path: str) -> Iterator[Fault]:
    """Yield the errors of a node with these allowed keys."""
    for name, value in node.items():
        full_path = f"{path}.{name}" if path else str(name)
        if "." in str(name):
            yield Fault(full_path, "nested keys are written as model: {ratio: 2}, without a dot")
        elif name not in keys:
            yield _unknown(full_path, keys)
        elif not keys[name].allows(value):
            yield _of_type(full_path, keys[name])


def _unknown(path: str, names: Collection[str]) -> Fault:
    return Fault(path, unknown_key_message("", path, names).removeprefix(": "))


def _of_type(path: str, key: Key) -> Fault:
    return Fault(path, key.needed, is_value=True)


def _node(node: Node, group: str, path: str, more: Collection[str] = ()) -> Iterator[Fault]:
    """Yield the errors of a node with a `_target_`, whose keys are the target's arguments and `more`.

    Types of third-party targets are those of simple annotations.
    """
    target = node.get("_target_")
    if not isinstance(target, str):
        yield Fault(f"{path}._target_", "must be a class or a function, such as package.module.Name")
        return
    found, instead = signature(target), SET_HERE.get(group, {})
    own = GROUPS.get(group, {}) if target.startswith(OWN) else {}
    more = () if group == "datamodule" and target.startswith(OWN) else more  # which takes them itself
    names = [*more, *(found.arguments if found else ())]
    for name, value in node.items():
        full_path = f"{path}.{name}"
        if name in OF_HYDRA:
            continue
        if name in instead:
            yield Fault(full_path, f"is set by the program; {instead[name]}")
        elif found is not None and not found.is_open and name not in names:
            yield _unknown(full_path, [one for one in names if one not in instead])
        else:
            yield from _argument(full_path, value, _key(name, own, found.arguments if found else {}, group, more))


def _key(name: str, own: Keys, arguments: Mapping[str, tuple[str, ...]], group: str, more: Collection[str]) -> Key:
    known = GROUPS.get(group, {})
    if name in own or (name in more and name in known):
        return known[name]
    kinds = arguments.get(name, ())
    return Key("", kinds, f"must be {' or '.join(WORDS[kind] for kind in kinds)}")


def _argument(path: str, value: object, key: Key) -> Iterator[Fault]:
    if not key.allows(value):
        yield _of_type(path, key)
    elif isinstance(value, Mapping) and "_target_" in value and path.startswith(("model.", "loss.")):
        yield from _node(value, "model", path, ("weights", "plan") if path.endswith(".backbone") else ())
    elif isinstance(value, Mapping) and path == "datamodule.transforms":
        for name, node in value.items():
            yield from _part(node, "", f"{path}.{name}")
    elif isinstance(value, Mapping) and value and path in ("datamodule.train", "datamodule.test"):
        yield from _node(value, "", path)


def _task(task: object) -> Iterator[Fault]:
    if not isinstance(task, Mapping):
        return
    if "_target_" in task:
        yield from _node(task, "task", "task", tuple(task))
        if not isinstance(task.get("name"), str) or task["name"] in TASKS:
            yield Fault("task.name", f"must be set, to another name than {', '.join(TASKS)}", is_value=True)
    elif task.get("name") not in TASKS:
        yield Fault("task.name", f"must be one of {', '.join(TASKS)}", is_value=True)
    else:
        yield from _keys(task, NAME | TASKS[task["name"]], "task")


def _loss(loss: object) -> Iterator[Fault]:
    if not isinstance(loss, Mapping):
        return
    if loss.get("_target_", LOSS_TARGET) == LOSS_TARGET:
        yield from _keys(loss, LOSS, "loss")
    else:
        yield from _node(
            {key: value for key, value in loss.items() if key not in LOSS or key == "_target_"}, "", "loss"
        )
    distill = loss.get("distill")
    if isinstance(distill, Mapping):
        yield from _keys(distill, DISTILL, "loss.distill")
        if isinstance(distill.get("teacher"), Mapping):
            yield from _node(distill["teacher"], "model", "loss.distill.teacher", ("weights", "reset_head"))


def _value(config: Node, path: str) -> object:
    node: Any = config
    for part in path.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node
