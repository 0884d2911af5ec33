"""Refuse a saved configuration that would call other code than networks, data and training parts of known packages.

A run directory may come from somebody else, and each `_target_` in its config.yaml is called. Targets are looked up in
the source, without an import: only what a known package itself defines counts, so that neither `torch.os.system` nor
an interpolation gets around the list.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from ghostexp.config.signatures import defined_in
from ghostexp.errors import TargetNotFoundError
from ghostexp.runs.config_keys import TRUSTED_PACKAGES
from ghostexp.runs.third_party import texts

CLASSES = ("ghostexp.models.", "ghostexp.data.", "ghostexp.training.", "torch.nn.", "torch.optim.", "torch.utils.data.")
CLASSES += ("torchvision.models.", "torchvision.transforms.", "torchvision.datasets.", "torchvision.ops.")
CLASSES += tuple(f"lightning.pytorch.{part}" for part in ("Trainer", "callbacks.", "loggers.", "strategies."))
CLASSES += tuple(f"lightning.pytorch.{part}" for part in ("plugins.", "profilers."))
CLASSES += ("torchmetrics.", "timm.")
FUNCTIONS = ("ghostexp.models.", "ghostexp.training.optimizers.", "ghostexp.training.schedulers.")
FUNCTIONS += ("ghostexp.training.callbacks.build_callbacks", "torchvision.models.", "timm.models.")
# Defined in private modules, whose other functions read and write files.
FACTORIES = (
    "timm.create_model",
    "timm.models.create_model",
    "timm.optim.create_optimizer_v2",
    "torchvision.models.get_model",
)


def check_saved_config(config: Any, path: Path, allowed: Collection[str]) -> None:
    """Raise ValueError for a target in a saved configuration that is neither known nor allowed.

    path: of the run. allowed: packages or modules that the user trusts.
    """
    for key, value in texts(config):
        if "${" in value:
            raise ValueError(f"{path}/config.yaml: {key} has an interpolation, as no saved configuration has")
        if key.rpartition(".")[2] == "_target_" and not _is_trusted(value, allowed):
            package = value.partition(".")[0]
            if value.startswith("ghostexp.") and defined_in(value) is None:
                error = TargetNotFoundError(f"{path}: {key}={value}: not found in this version of ghostexp")
                raise error.of_run(str(path))
            how = f"allow=[{package}] or --config-dir DIR, if you trust it" if package not in TRUSTED_PACKAGES else ""
            known = f"must be a network, data set or part of a training of {', '.join(TRUSTED_PACKAGES)}"
            raise ValueError(f"{path}/config.yaml: {key}={value}: {known}" + (f", or allowed by {how}" if how else ""))


def _is_trusted(target: str, allowed: Collection[str]) -> bool:
    if target in FACTORIES or any(target.startswith(f"{package}.") for package in allowed):
        return True
    if not target.startswith((*CLASSES, *FUNCTIONS)):
        return False
    found = defined_in(target)
    if found is None or found.module.partition(".")[0] != target.partition(".")[0]:
        return False
    if found.is_class:
        return target.startswith(CLASSES)
    is_private = any(part.startswith("_") for part in (*found.module.split("."), target.rpartition(".")[2]))
    return target.startswith(FUNCTIONS) and not is_private
