"""Spare a process that runs hundreds of commands what takes time at each of them and is the same each time."""

import functools
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides
from hydra._internal.hydra import Hydra
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override
from matplotlib.figure import Figure
from omegaconf import DictConfig, _utils, base, grammar_parser

from ghostexp.config.compose import CONF
from tests.warm_process import fork_jobs_from_server

_load_yaml = yaml.load
list_defaults = defaults_list.create_defaults_list
merge = ConfigLoaderImpl._compose_config_from_defaults_list
_get_mode = Hydra.get_mode
savefig = Figure.savefig  # with all pixels
PARSED: dict[str, bytes] = {}  # pickled content of YAML texts


def install() -> None:
    """Parse each text once, merge the same options once, and draw figures with fewer pixels."""
    yaml.load = _load_once
    setattr(config_loader_impl, "create_defaults_list", _list_defaults_once)  # noqa: B010
    ConfigLoaderImpl._compose_config_from_defaults_list = _merge_once
    Hydra.get_mode = _known_mode
    parse = functools.cache(grammar_parser.parse)  # of interpolations; the trees are only read
    for module in (base, _utils):
        setattr(module, "parse", parse)  # noqa: B010
    setattr(Figure, "savefig", _save_small)  # noqa: B010
    fork_jobs_from_server()


def _save_small(figure: Figure, path: Path, dpi: int) -> None:
    savefig(figure, path, dpi=min(dpi, 40))


def _load_once(stream: Any, Loader: type) -> Any:
    """Load YAML; OmegaConf's texts from a cache."""
    if Loader.__name__ != "OmegaConfLoader":
        return _load_yaml(stream, Loader)
    text = stream if isinstance(stream, str) else stream.read()
    if text not in PARSED:
        PARSED[text] = pickle.dumps(_load_yaml(text, Loader))
    return pickle.loads(PARSED[text])


LISTED: dict[object, DefaultsList] = {}
MERGED: dict[object, bytes] = {}


def _list_defaults_once(
    repo: IConfigRepository, config_name: str | None, overrides_list: list[Override], *flags: bool, **named: bool
) -> DefaultsList:
    """Return the files that make a configuration, which follow from the options chosen; values are applied later."""
    if not _has_own_files_only(repo):
        return list_defaults(repo, config_name, overrides_list, *flags, **named)
    values = Overrides(repo, overrides_list).config_overrides
    options = tuple(str(one.input_line) for one in overrides_list if not any(one is value for value in values))
    key = (config_name, options, flags, tuple(named.items()))
    if key not in LISTED:
        LISTED[key] = list_defaults(repo, config_name, overrides_list, *flags, **named)
    known = LISTED[key]
    return DefaultsList(known.defaults, known.defaults_tree, values, known.overrides)


def _merge_once(self: ConfigLoaderImpl, defaults: Sequence[ResultDefault], repo: IConfigRepository) -> DictConfig:
    """Merge the files of a configuration; a copy, to which values are applied."""
    if not _has_own_files_only(repo):
        return merge(self, list(defaults), repo)
    key = repr(defaults)
    if key not in MERGED:
        MERGED[key] = pickle.dumps(merge(self, list(defaults), repo))
    return pickle.loads(MERGED[key])


def _has_own_files_only(repo: IConfigRepository) -> bool:
    """Return whether all files are in conf/, which no test changes, or Hydra's own."""
    own = {f"file://{CONF}", "pkg://hydra.conf", "structured://"}
    return {source.full_path() for source in repo.get_sources()} <= own


def _known_mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
    """Return `hydra.mode`: null, unless a study, an override or a file from elsewhere sets it.

    Hydra composes the whole configuration to learn this, and then again to run it.
    """
    sources = {source.provider for source in self.config_loader.get_search_path().get_path()}
    if sources == {"hydra", "main", "schema"} and not any(map(MAY_SET_MODE.match, overrides)):
        return None
    return _get_mode(self, config_name, overrides)


MAY_SET_MODE = re.compile(r"[+~]*(study\b|hydra(?!\.(run|sweep)\.dir=))")
