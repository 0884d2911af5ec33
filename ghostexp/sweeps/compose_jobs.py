"""Compose the jobs of a sweep: YAML files are read once per choice of options, not once per job."""

import copy
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from ghostexp.config.hydra_errors import unknown_key_message
from ghostexp.sweeps.deferred import without_typed


@dataclass(frozen=True)
class Base:
    """Configuration composed from the options of groups, pickled, and Hydra's own part of it."""

    config: bytes  # unpickling takes a third of the time of a deep copy
    hydra: DictConfig


class Composer:
    """Composer of configurations that differ in overrides; each equals the one that Hydra composes.

    The configuration of each choice of options is cached; overrides of values are applied to a copy of it.
    """

    def __init__(self, master: DictConfig, loader: ConfigLoader) -> None:
        self.master, self.loader = without_typed(master), loader
        self.bases: dict[tuple[str, ...], Base] = {}
        self.sets_value: dict[tuple[str, bool], bool] = {}  # by key, and whether the value is a mapping

    def compose(self, overrides: Sequence[Override]) -> tuple[DictConfig, Mapping[str, str | None]]:
        """Return the configuration of a job, without Hydra's own, and the option chosen in each group.

        Raises ValueError: an unknown key, or an added key that exists already; Hydra's errors for the rest.
        """
        base = self._base(overrides)
        composed: DictConfig = pickle.loads(base.config)
        for override in overrides:
            if self.sets_value[_kind(override)]:
                _apply(override, composed, overrides)
        return composed, base.hydra.runtime.choices

    def record(self, overrides: Sequence[Override], directory: Path) -> dict[str, str]:
        """Return the files that Hydra writes to .hydra/ for a job, by name."""
        lines = [str(override.input_line) for override in overrides]
        hydra = copy.deepcopy(self._base(overrides).hydra)
        with open_dict(hydra):
            hydra.overrides.task = lines
            hydra.job.override_dirname = ",".join(sorted(lines))
            hydra.runtime.output_dir = str(directory)
        nodes = {"config": self.compose(overrides)[0], "hydra": {"hydra": hydra}, "overrides": hydra.overrides.task}
        return {f"{name}.yaml": OmegaConf.to_yaml(node) for name, node in nodes.items()}

    def _base(self, overrides: Sequence[Override]) -> Base:
        """Compose the options alone, cached."""
        if any(_kind(override) not in self.sets_value for override in overrides):
            self._sort(overrides)
        options = tuple(str(one.input_line) for one in overrides if not self.sets_value[_kind(one)])
        if options not in self.bases:
            composed = self.loader.load_sweep_config(self.master, list(options))
            hydra = composed.hydra
            with open_dict(composed):
                del composed["hydra"]
            self.bases[options] = Base(pickle.dumps(composed), hydra)
        return self.bases[options]

    def _sort(self, overrides: Sequence[Override]) -> None:
        """Find out which overrides set values, and which choose options of groups."""
        hydra = self.master.hydra
        lines = [*hydra.overrides.hydra, *(str(override.input_line) for override in overrides)]
        found = self.loader.compute_defaults_list(hydra.job.config_name, lines, RunMode.RUN)
        values = {_kind(override) for override in found.config_overrides}
        self.sets_value |= {kind: kind in values for kind in map(_kind, overrides)}


def _kind(override: Override) -> tuple[str, bool]:
    return override.get_key_element(), isinstance(override.value(), dict)


def _apply(override: Override, composed: DictConfig, overrides: Sequence[Override]) -> None:
    try:
        ConfigLoaderImpl._apply_overrides_to_config([override], composed)
    except ConfigCompositionException:
        key, typed = _first_missing(composed, override.key_or_group), str(override.input_line)
        parent, _, leaf = key.rpartition(".")
        node = OmegaConf.select(composed, parent) if parent else composed
        siblings = [str(name) for name in node] if isinstance(node, DictConfig) else []
        if leaf in siblings and override.is_add():
            raise ValueError(f"{typed}: {key} already exists; leave out the +") from None
        if leaf not in siblings:
            raise ValueError(_no_such_key(typed, key, siblings, overrides)) from None
        raise


def _first_missing(composed: DictConfig, key: str) -> str:
    """Return the part of a key whose last name its parent does not have: `modl` of `modl.ratio`."""
    parts, node = key.split("."), composed
    for count, part in enumerate(parts, start=1):
        if not isinstance(node, DictConfig) or part not in node:
            return ".".join(parts[:count])
        node = node._get_node(part)
    return key


def _no_such_key(typed: str, key: str, siblings: Sequence[str], overrides: Sequence[Override]) -> str:
    """Build the message for an unknown key; it names the option that lacks it, if the override chose one."""
    head, _, rest = key.partition(".")
    option = next((one.input_line for one in overrides if rest and one.get_key_element() == head), None)
    if option is None:
        return unknown_key_message(typed, key, siblings)
    names = ", ".join(str(name) for name in siblings if not str(name).startswith("_"))
    return f"{option}: has no {rest}, which {typed} sets; there is {names}"
