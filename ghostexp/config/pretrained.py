"""Check `pretrained=NAME`: released weights fit one network only."""

from collections.abc import Mapping
from pathlib import Path

import yaml

OVERRIDE = "override /model"


def check_pretrained(choices: Mapping[str, str | None], conf: Path) -> None:
    """Raise ValueError if the chosen network is not the one of the `pretrained` weights."""
    name, model = choices.get("pretrained"), choices.get("model")
    file = conf / "pretrained" / f"{name}.yaml"
    if not name or not file.is_file():  # not set, or in a user's own folder
        return
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    theirs = next(entry[OVERRIDE] for entry in content["defaults"] if OVERRIDE in entry)
    if model != theirs:
        weights = content["model"]["weights"]
        raise ValueError(
            f"pretrained={name}: must go with model={theirs}, whose weights these are, got model={model}; "
            f"to start a detector from them: model.backbone.weights={weights}"
        )
