"""Hash the result-deciding values of a configuration: runs with equal fingerprints repeat each other."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ghostexp.runs.config_keys import IGNORED_KEYS, PLANS, RESULT_KEYS

# Keys added later, and the value with the same effect as a missing key.
ADDED = {"datamodule.mean": None, "datamodule.std": None, "lightning_module": None, "monitor": None}
ADDED |= dict.fromkeys(PLANS)
ADDED |= {"scheduler.horizon": None, "datamodule.cache_short_side": None}
ADDED |= {"loss._target_": "torch.nn.CrossEntropyLoss"}


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings, but not plans: `{"model": {"ratio": 2}}` becomes `{"model.ratio": 2}`."""
    flat = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping) and path not in PLANS else {path: value}
    return flat


BATCHNORM_IMAGES = "images per BatchNorm statistic"  # on several devices, each of which has statistics of its own


def result_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result-deciding values of a resolved configuration, by path."""
    return _batchnorm_images(config) | {
        path: value.get("layers") if path in PLANS and isinstance(value, Mapping) else value
        for path, value in flatten(config).items()
        if path not in IGNORED_KEYS
        and not (path in ADDED and value == ADDED[path])
        and any(path == key or path.startswith(f"{key}.") for key in RESULT_KEYS)
    }


def world_size(trainer: Mapping[str, Any]) -> int:
    """Return the number of processes of a run, one per device."""
    devices = trainer.get("devices", 1)
    count = len(devices) if isinstance(devices, list) else int(devices) if str(devices).isdigit() else 1
    return count * trainer.get("num_nodes", 1)


def _batchnorm_images(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return how many images share a BatchNorm statistic, where several devices without sync_batchnorm divide them."""
    trainer = config.get("trainer", {})
    parts = world_size(trainer)
    if parts == 1 or trainer.get("sync_batchnorm"):
        return {}
    accumulate = trainer.get("accumulate_grad_batches") or 1
    return {BATCHNORM_IMAGES: config["datamodule"]["batch_size"] // parts // accumulate}


def fingerprint(config: Mapping[str, Any]) -> str:
    """Return sixteen hexadecimal digits, independent of directories, loggers and names.

    Of the devices it has what decides the result: how many images share a BatchNorm statistic.
    """
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
