"""Defer overrides of keys that only the options of the jobs have, not the default option of a sweep."""

import re
from collections.abc import Iterator, Sequence

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf, open_dict

from ghostexp.config.compose import CONF
from ghostexp.runs.naming import is_sweep_value

TYPED = "typed"  # key of hydra.sweeper: all overrides as typed
WITH_VALUE = re.compile(
    r"-(c|cp|cn|cd|p|-cfg|-config-\w+|-package|-experimental-rerun)"
)  # flags that the next argument is of


def defer(arguments: Sequence[str]) -> list[str]:
    """Return the arguments for Hydra's first composition, in which every swept group has its default option.

    `-m model=ghostnet,ghostnetv2 model.width=0.5` would fail there, because the default network has no width.
    All overrides are passed on as one value, for the composition of the jobs. The task is the same for all jobs.
    """
    typed = list(_overrides(arguments))
    if not any(_varies_options(override) for override in typed):
        return list(arguments)
    later = [override for override in typed if re.match(r"[~+]*(?!(task|search)\.)\w+\.[^@=/]*(=|$)", override)]
    if not later or any(
        re.match(r"(-c|--cfg)(=|$)", argument) for argument in arguments
    ):  # the configuration is only shown
        return list(arguments)
    quoted = ",".join(QuotedString(override, Quote.single).with_quotes() for override in typed)
    # First: Hydra accepts no override after a flag.
    return [f"+hydra.sweeper.{TYPED}=[{quoted}]", *(argument for argument in arguments if argument not in later)]


def typed_overrides(composed: DictConfig) -> list[str]:
    """Return the overrides of a sweep as they were typed, deferred ones too."""
    typed = composed.hydra.sweeper.get(TYPED)
    texts = OmegaConf.to_container(composed.hydra.overrides.task if typed is None else typed, resolve=False)
    assert isinstance(texts, list)
    return [str(text) for text in texts]


def without_typed(composed: DictConfig) -> DictConfig:
    """Return a copy without the value added by `defer`."""
    copy = composed.copy()
    with open_dict(copy.hydra):
        copy.hydra.sweeper.pop(TYPED, None)
        hydra = copy.hydra.overrides.hydra
        copy.hydra.overrides.hydra = [text for text in hydra if not text.startswith(f"+hydra.sweeper.{TYPED}=")]
    return copy


def _overrides(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the overrides, except those of Hydra's own configuration."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        is_flag = argument.startswith("-") or WITH_VALUE.fullmatch(before)
        if not is_flag and not re.match(r"[~+]*hydra[./@=]", argument):
            yield argument


def _varies_options(override: str) -> bool:
    """Return whether jobs may choose different options of a group: `model=a,b`, or a study."""
    key, _, value = override.lstrip("+").partition("=")
    if key == "study":
        return value != "null"
    return (CONF / key.partition("@")[0]).is_dir() and is_sweep_value(value)
