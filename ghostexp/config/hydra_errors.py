"""Convert errors of Hydra and OmegaConf to one line that names the key and what is allowed."""

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError, InterpolationResolutionError, OmegaConfBaseException

from ghostexp.config.arguments import form_to_type, quoted
from ghostexp.config.config_files import list_options
from ghostexp.config.plugins import typed_config_dir
from ghostexp.config.schema import unknown_key_message

RANGE = re.compile(r"[\w/@.+]+=(?:(?:tag|int|float|shuffle|sort)\(.*?)?(interval|range|choice)\(.*", re.DOTALL)
RANGES = {
    "interval": "an interval of numbers, interval(A,B), tag(log,interval(A,B)) or int(interval(A,B))",
    "range": "a range of numbers, range(A,B) or range(A,B,STEP)",
    "choice": "a choice of values, choice(A,B,C)",
}


def to_user_error(error: Exception, arguments: Sequence[str], conf: Path) -> Exception:
    """Convert an error of Hydra to a ValueError with a message for users; return other errors unchanged."""
    links = list(_chain(error))
    for link in links:
        if isinstance(link, OverrideParseException):
            if link.override and (found := RANGE.fullmatch(link.override)):
                return ValueError(f"{link.override}: must be {RANGES[found[1]]}")
            form = f"; type {form_to_type(link.override)}" if link.override and "=" in link.override else ""
            return ValueError(f"{link.override}: cannot be read as KEY=VALUE{form}")
        if isinstance(link, MissingConfigException) and link.missing_cfg_file:
            typed = typed_config_dir(arguments)
            return ValueError(_unknown_option(link.missing_cfg_file, [conf, *([typed] if typed else [])]))
        if isinstance(link, InterpolationKeyError | InterpolationResolutionError):
            return ValueError(f"{link.full_key}: {str(link).splitlines()[0]}")
    if isinstance(error, OSError) and error.filename:
        return ValueError(f"{_typed_path(str(error.filename), arguments)}: cannot be written ({error.strerror})")
    text = " ".join(str(link) for link in links)
    if missing := re.search(r"Additional config directory '(.+)' not found", text):
        return ValueError(f"--config-dir={missing[1]}: no such folder")
    several = re.search(r"Ambiguous value for argument '(.+?)'\s", text)
    if several:
        return ValueError(f"{several[1]}: several values need -m (a sweep); a list is typed as KEY=[A,B]")
    ranges = re.search(r"Sweep parameters '(.+)' requires --multirun", text)
    if ranges:
        return ValueError(f"{ranges[1]}: needs -m (a sweep); to search an interval, add search=tpe too")
    if "Config group override must be a string or a list" in text:
        typed = next((one for one in arguments if re.fullmatch(r"[\w/@.]+=null", one)), text)
        options = list_options(typed.partition("=")[0].partition("@")[0], conf)
        return ValueError(f"{typed}: must be one of {', '.join(options)}")
    added = re.search(r"Could not append to config. An item is already at '([^']+)'", text)
    if added:
        return ValueError(f"+{added[1]}: already exists; leave out the plus")
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(r"Key '([^']+)' is not in struct", text)
    if unknown:
        return ValueError(_unknown_key(unknown[1], arguments, conf))
    return ValueError(text) if isinstance(error, HydraException | OmegaConfBaseException) else error


def _unknown_option(file: str, folders: Sequence[Path]) -> str:
    """Build the message for a missing option; file: GROUP/OPTION."""
    group, option = re.fullmatch(r"((?:hydra/)?[^/]+)/?(.*)", file).groups()  # pyright: ignore[reportOptionalMemberAccess]
    options = list_options(group, *folders)
    verb = "is" if len(options) == 1 else "are"
    there_is = f"there {verb} {', '.join(options) or 'none yet'}"
    near = difflib.get_close_matches(option, options, 1)
    hint = f"; did you mean {group}={near[0]}?" if near else ""
    return f"{group}={option}: not found; {there_is}{hint}"


def _typed_path(file: str, arguments: Sequence[str]) -> str:
    """Return the override of a directory of outputs that a file is in, or else the file."""
    pairs = {text: text.split("=", 1)[1] for text in arguments if re.match(r"[\w.]*dir=.", text)}
    return next((text for text, value in pairs.items() if Path(file).is_relative_to(Path(value).absolute())), file)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _unknown_key(key: str, arguments: Sequence[str], conf: Path) -> str:
    """Build the message for an unknown key: compose without it and list its siblings."""
    given = next((argument for argument in arguments if _sets(argument, key)), key)
    others = [argument for argument in arguments if "=" in argument and not _sets(argument, key)]
    others = [argument for argument in others if not argument.startswith("-")]
    try:
        folder = typed_config_dir(arguments)
        others += [f"hydra.searchpath=[{quoted(str(folder))}]"] if folder else []
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf), version_base="1.3"):
            composed = compose("config", [_first_value(other) for other in others])
        if key.startswith("search.") and OmegaConf.select(composed, "search") is None:
            return f"{given}: needs a search; add search=tpe"
        while "." in key and OmegaConf.select(composed, key.rpartition(".")[0]) is None:
            key = key.rpartition(".")[0]
        parent = key.rpartition(".")[0]
        siblings = list(OmegaConf.select(composed, parent) if parent else composed)
    except Exception:  # the rest of the command is invalid too
        siblings = []
    return unknown_key_message(given, key, siblings)


def _first_value(override: str) -> str:
    """Return the override of the first job of a sweep."""
    parsed = OverridesParser.create().parse_override(override)
    value = parsed.value()
    if isinstance(value, IntervalSweep):
        return f"{parsed.get_key_element()}={value.start}"
    if not parsed.is_sweep_override():
        return override
    return f"{parsed.get_key_element()}={next(parsed.sweep_string_iterator())}"


def _sets(argument: str, key: str) -> bool:
    return argument.lstrip("+~").partition("=")[0] == key
