"""Names and tags as Weights & Biases takes them: up to a length, each once."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

NAME_LENGTH, TAG_LENGTH = 128, 64  # what the server takes of a name or group, and of a tag


def build_tags(config: Mapping[str, Any], typed: Sequence[str]) -> list[str]:
    """The chosen network, data and study, and what is typed, each once."""
    choices = config.get("choices", {})
    chosen = [choices.get(group) for group in ("model", "datamodule", "study")]
    return list(dict.fromkeys(_shortened(str(tag), TAG_LENGTH) for tag in (*chosen, *typed) if tag))


def check_tags(tags: Sequence[str]) -> None:
    """Raise ValueError for a tag that the server does not take."""
    for tag in tags:
        if not 1 <= len(str(tag)) <= TAG_LENGTH:
            raise ValueError(
                f"logger.wandb.tags: a tag must have 1 to {TAG_LENGTH} characters, got {len(str(tag))}: {tag}"
            )


def shorten_name(name: str) -> str:
    """A name or a group as the server takes it."""
    return _shortened(name, NAME_LENGTH)


def _shortened(text: str, length: int) -> str:
    """A text of a length at most; what is cut off is told apart by a digest of the whole."""
    if len(text) <= length:
        return text
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{text[: length - 9]}-{digest}"
