"""Hash the result-deciding values of a configuration: runs with equal fingerprints repeat each other."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ghostexp.runs.config_keys import IGNORED_KEYS, RESULT_KEYS

# Keys added later, and the value with the same effect as a missing key.
ADDED = {"datamodule.mean": None, "datamodule.std": None, "lightning_module": None, "monitor": None}
ADDED |= {"loss._target_": "torch.nn.CrossEntropyLoss"}


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings: `{"model": {"ratio": 2}}` becomes `{"model.ratio": 2}`."""
    flat = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return flat


def result_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result-deciding values of a resolved configuration, by path."""
    return {
        path: value
        for path, value in flatten(config).items()
        if path not in IGNORED_KEYS
        and not (path in ADDED and value == ADDED[path])
        and any(path == key or path.startswith(f"{key}.") for key in RESULT_KEYS)
    }


def fingerprint(config: Mapping[str, Any]) -> str:
    """Return sixteen hexadecimal digits, independent of directories, devices, loggers and names."""
    text = json.dumps(result_config(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """List differences of result-deciding values: `model.ratio: 2 -> 3`."""
    old, new = result_config(before), result_config(after)
    return [
        f"{path}: {old.get(path)} -> {new.get(path)}"
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]
