"""Build names and tags for Weights & Biases, which limits their length."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

NAME_LENGTH, TAG_LENGTH = 128, 64  # limits of the server, in characters
FRESH_SEED = "fresh-seed"  # tag of the runs that test the winner of a search


def build_tags(config: Mapping[str, Any], typed: Sequence[str]) -> list[str]:
    """Return the chosen model, datamodule and study, where a trial of a search goes, and the typed tags, each once."""
    choices = config.get("choices", {})
    chosen = [*(choices.get(group) for group in ("model", "datamodule", "study")), *config.get("job_tags", ())]
    return list(dict.fromkeys(_shortened(str(tag), TAG_LENGTH) for tag in (*chosen, *typed) if tag))


def check_tags(tags: Sequence[str]) -> None:
    """Raise ValueError for a tag that the server rejects."""
    for tag in tags:
        if not 1 <= len(str(tag)) <= TAG_LENGTH:
            raise ValueError(
                f"logger.wandb.tags: a tag must have 1 to {TAG_LENGTH} characters, got {len(str(tag))}: {tag}"
            )


def shorten_name(name: str) -> str:
    """Shorten a name or group to the limit of the server."""
    return _shortened(name, NAME_LENGTH)


def _shortened(text: str, length: int) -> str:
    """Truncate a text to a length, with a digest of the full text at the end."""
    if len(text) <= length:
        return text
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{text[: length - 9]}-{digest}"
