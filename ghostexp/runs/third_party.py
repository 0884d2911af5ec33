"""Walk the texts of a configuration, and find what it uses of other packages than ours and torch's."""

from collections.abc import Iterator, Mapping
from typing import Any

from ghostexp.runs.config_keys import TRUSTED_PACKAGES


def texts(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and value of every text in nested containers, keys included."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from texts(str(key), path)
            yield from texts(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from texts(value, f"{path}[{number}]")
    elif isinstance(node, str):
        yield path, node


def third_party_targets(node: Any) -> Iterator[tuple[str, str]]:
    """Yield key and target of each node whose target is of another package."""
    for path, target in texts(node):
        key, _, last = path.rpartition(".")
        if last == "_target_" and target.partition(".")[0] not in TRUSTED_PACKAGES:
            yield key, target


def arguments_for(config: Mapping[str, Any]) -> list[str]:
    """Return the arguments with which `run=` and `resume=` find and trust the code that a run used."""
    packages = sorted({target.partition(".")[0] for _, target in third_party_targets(config)})
    allow = [f"allow=[{','.join(packages)}]"] if packages else []
    return ["--config-dir", config["config_dir"]] if config.get("config_dir") else allow
