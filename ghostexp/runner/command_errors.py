"""What Hydra and OmegaConf say of a command line, as one line that names the key and what is allowed."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException


def explain(error: Exception, arguments: Sequence[str], conf: Path) -> Exception:
    """The same error in the user's words, as a ValueError; errors that are not Hydra's stay what they are."""
    links = list(_chain(error))
    for link in links:
        if isinstance(link, OverrideParseException):
            return ValueError(f"{link.override}: cannot be read as KEY=VALUE; quote special characters")
        if isinstance(link, MissingConfigException) and link.missing_cfg_file:
            group, _, option = link.missing_cfg_file.rpartition("/")
            there_is = f"there are {', '.join(link.options)}" if link.options else "there are none yet"
            return ValueError(f"{group}={option}: not found; {there_is}")
    if isinstance(error, OSError) and error.filename:
        return ValueError(f"{error.filename}: cannot be written ({error.strerror})")
    text = " ".join(str(link) for link in links)
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(r"Key '([^']+)' is not in struct", text)
    if unknown:
        return ValueError(_unknown_key(unknown[1], arguments, conf))
    return ValueError(text) if isinstance(error, HydraException | OmegaConfBaseException) else error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def no_such_key(text: str, key: str, siblings: Iterable[object]) -> str:
    """What to say of an override, as it was typed, whose key is not there."""
    parent, _, leaf = key.rpartition(".")
    names = ", ".join(str(name) for name in siblings if not str(name).startswith("_"))
    return f"{text}: {parent or 'the configuration'} has no {leaf}" + (f"; there is {names}" if names else "")


def _unknown_key(key: str, arguments: Sequence[str], conf: Path) -> str:
    """Name the keys beside an unknown one, as they are without it."""
    parent = key.rpartition(".")[0]
    others = [argument for argument in arguments if "=" in argument and not _sets(argument, key)]
    try:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf), version_base="1.3"):
            composed = compose("config", [argument for argument in others if not argument.startswith("-")])
        siblings = list(OmegaConf.select(composed, parent) if parent else composed)
    except Exception:  # the rest of the command is wrong too
        siblings = []
    given = next((argument for argument in arguments if _sets(argument, key)), key)
    return no_such_key(given, key, siblings)


def _sets(argument: str, key: str) -> bool:
    return argument.lstrip("+~").partition("=")[0] == key
