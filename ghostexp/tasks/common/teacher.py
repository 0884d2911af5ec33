"""Build the teacher of a distillation, `loss.distill.teacher`: another run, or a model with weights."""

from pathlib import Path
from typing import Any

from torch import nn

from ghostexp.models.detection.base import DetectionModel
from ghostexp.runs.directory import RunDirectory
from ghostexp.tasks.common import instantiate
from ghostexp.tasks.common.build_module import check_detection
from ghostexp.tasks.common.normalisation import normalisation
from ghostexp.training.distillation import Distillation

KEY = "loss.distill.teacher"


def build_distillation(
    config: instantiate.Config, student: nn.Module
) -> tuple[Distillation, dict[str, Any]] | tuple[None, None]:
    """Build the distillation and its entry of result.json; None twice if there is no teacher.

    Raises ValueError: the student is a detector, no run there, one with another number of classes or channels or
    another normalisation, a model without weights.
    """
    distill = config["loss"].get("distill") or {}  # missing in configurations without the key
    if distill.get("teacher") is None:
        return None, None
    if isinstance(student, DetectionModel):
        check_detection(config)
    try:
        teacher = instantiate.build_network({**config, "model": _model(distill["teacher"], config), "run": None})
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith(KEY) else f"{KEY}: {message}") from error
    assert teacher.weights is not None
    record = {"source": teacher.weights.source, "sha256": teacher.weights.sha256, "params": teacher.cost.params}
    return Distillation(teacher.network, distill["temperature"], distill["weight"]), record


def _model(teacher: str | dict[str, Any], config: instantiate.Config) -> dict[str, Any]:
    """Return the teacher as a node like `model`, with weights."""
    if isinstance(teacher, dict):
        if teacher.get("weights") is None:
            raise ValueError(f"{KEY}.weights: must be set for a teacher: +{KEY}.weights=...")
        return teacher
    earlier = RunDirectory(Path(str(teacher))).read_config(KEY)
    for key in ("num_classes", "in_chans"):
        found, needed = earlier["datamodule"][key], config["datamodule"][key]
        if found != needed:
            raise ValueError(f"{KEY}={teacher}: must be trained with datamodule.{key}={needed}, got {found}")
    theirs, ours = (
        normalisation({**config, "datamodule": data}) for data in (earlier["datamodule"], config["datamodule"])
    )
    if theirs != ours and None not in (theirs, ours):
        raise ValueError(f"{KEY}={teacher}: must be trained with mean and std {ours}, as this run, got {theirs}")
    return earlier["model"] | {"weights": str(teacher), "reset_head": False}
