"""Write the config.json with which timm and the Hugging Face hub load an exported network."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ghostexp.data.image_file_dataset import EVAL_RESIZE
from ghostexp.runs.text_files import write_json
from ghostexp.tasks.common.instantiate import Config

IMAGE_FOLDER = "ghostexp.data.datasets.image_folder.ImageFolder"
LIBRARY = "ghostexp.models.torchvision_timm.timm_network"


def write_timm_config(config: Config, mean_std: Sequence[Sequence[float]], names: Sequence[str], path: Path) -> None:
    """Write architecture, arguments, classes and preprocessing of a network.

    A network of timm has its own architecture; others need `import ghostexp.timm`.
    """
    data = config["datamodule"]
    node = {key: value for key, value in config["model"].items() if key not in ("weights", "reset_head")}
    architecture, arguments = "ghostexp_network", {"model": node}
    if node["_target_"] == LIBRARY and node.get("ratio") is None and node.get("plan") is None:
        architecture, arguments = node["name"], dict(node.get("kwargs") or {})
    mean, std = (list(values) for values in mean_std)
    # Other data, and small images, are resized to the shorter side alone.
    is_cropped = data.get("_target_") == IMAGE_FOLDER and data["image_size"] > 64
    pretrained: dict[str, Any] = {
        "input_size": [data["in_chans"], data["image_size"], data["image_size"]],
        "mean": mean,
        "std": std,
        "interpolation": "bilinear",
        "crop_mode": "center",
        "crop_pct": _crop_pct(data["image_size"]) if is_cropped else 1.0,
        "num_classes": data["num_classes"],
        "custom_load": False,
        "first_conv": None,
        "classifier": None,
    }
    content = {"architecture": architecture, "num_classes": data["num_classes"], "num_features": 0}
    content |= {"model_args": arguments, "pretrained_cfg": pretrained}
    write_json(path, content | ({"label_names": list(names)} if names else {}))


def _crop_pct(size: int) -> float:
    """Return the crop_pct by which timm, which rounds size / crop_pct down, resizes as the evaluation here does."""
    resized = round(size * EVAL_RESIZE)
    exact = size / resized
    return exact if math.floor(size / exact) == resized else size / (resized + 0.5)
