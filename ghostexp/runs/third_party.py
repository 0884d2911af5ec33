"""Find what a configuration uses of other packages than ours and torch's."""

from collections.abc import Iterator, Mapping
from typing import Any

from ghostexp.runs.config_keys import TRUSTED_PACKAGES


def third_party_targets(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield key and target of each node whose target is of another package."""
    children = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if isinstance(target, str) and target.partition(".")[0] not in TRUSTED_PACKAGES:
        yield path, target
    for key, child in children:
        yield from third_party_targets(child, f"{path}.{key}" if path else str(key))


def arguments_for(config: Mapping[str, Any]) -> list[str]:
    """Return the arguments with which `run=` and `resume=` find and trust the code that a run used."""
    packages = sorted({target.partition(".")[0] for _, target in third_party_targets(config)})
    allow = [f"allow=[{','.join(packages)}]"] if packages else []
    return ["--config-dir", config["config_dir"]] if config.get("config_dir") else allow
