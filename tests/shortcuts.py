"""Spare a process that runs hundreds of commands what takes time at each of them and is the same each time."""

import functools
import pickle
import re
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.hydra import Hydra
from matplotlib.figure import Figure
from omegaconf import _utils, base, grammar_parser

_load_yaml = yaml.load
_get_mode = Hydra.get_mode
savefig = Figure.savefig  # with all pixels
PARSED: dict[str, bytes] = {}  # pickled content of YAML texts


def install() -> None:
    """Parse each text once, compose once where `hydra.mode` is known, and draw figures with fewer pixels."""
    yaml.load = _load_once
    Hydra.get_mode = _known_mode
    parse = functools.cache(grammar_parser.parse)  # of interpolations; the trees are only read
    for module in (base, _utils):
        setattr(module, "parse", parse)  # noqa: B010
    setattr(Figure, "savefig", _save_small)  # noqa: B010


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


def _known_mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
    """Return `hydra.mode`: null, unless a study, an override or a file from elsewhere sets it.

    Hydra composes the whole configuration to learn this, and then again to run it.
    """
    sources = {source.provider for source in self.config_loader.get_search_path().get_path()}
    if sources == {"hydra", "main", "schema"} and not any(map(MAY_SET_MODE.match, overrides)):
        return None
    return _get_mode(self, config_name, overrides)


MAY_SET_MODE = re.compile(r"[+~]*(study\b|hydra(?!\.(run|sweep)\.dir=))")
