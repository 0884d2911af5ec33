"""Read what a command searches: the grid, the ranges and the seeds."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override

from ghostexp.runs.config_keys import COMMAND_KEYS, IGNORED_KEYS, RESULT_KEYS, SWEEP_ONLY_KEYS
from ghostexp.runs.naming import job_dirname
from ghostexp.runs.sweep_record import is_seed
from ghostexp.sweeps.search.space import Dimension, is_searched, read_dimension

NOT_SEARCHED = ("trainer.devices", "trainer.num_nodes", "trainer.max_epochs", "metrics", "monitor")
NOT_SEARCHED += tuple(
    f"datamodule.{key}" for key in ("split_seed", "validate_on", "holdout_fraction")
)  # what is compared
OF_COMMAND = {*COMMAND_KEYS, *SWEEP_ONLY_KEYS, "name", "study"} - {"hydra", "debug"}
# Keys that need another one.
NEEDED = {"factor": "rungs", "horizon": "rungs", "test_overrides": "test_seeds", "direction": "metric"}


@dataclass(frozen=True)
class SearchSpec:
    """What a command searches.

    fixed: overrides of every trial. groups: values of the grid by their name; for each there is a search.
    """

    space: list[Dimension]
    groups: dict[str, list[str]]
    seeds: list[int]
    fixed: list[str]


def read_spec(params: Sequence[Override], typed: Sequence[Override], seed: int, sampler: str) -> SearchSpec:
    """Sort overrides; typed ones replace those of a study.

    Raises ValueError: nothing to search, or a key that cannot be searched.
    """
    for override in typed:
        if _is_of_search(override) and override.is_sweep_override():
            raise ValueError(f"{override.input_line}: must have one value")
        if override.get_key_element() in ("+seed", "++seed"):
            raise ValueError(f"{override.input_line}: must be typed as seed=...")
    of_study = {one.get_key_element(): one for one in params}
    overrides = of_study | {one.get_key_element(): one for one in typed if not _is_of_search(one)}
    space = [read_dimension(one) for one in overrides.values() if is_searched(one) and not _is_seed_range(one)]
    if not space:
        raise ValueError(f"search={sampler}: there is nothing to search; add ranges, such as KEY=interval(A,B)")
    for dimension in space:
        _check(dimension, sampler)
    grid = {
        key: _narrowed(of_study.get(key), one)
        for key, one in overrides.items()
        if key != "seed" and not is_searched(one) and (_is_grid(one) or _is_grid(of_study.get(key)))
    }
    if wrong := next((key for key in grid if _head(key) in OF_COMMAND), None):
        raise ValueError(f"{overrides[wrong].input_line}: must have one value in a search")
    seeds = _seeds(overrides["seed"]) if "seed" in overrides else [seed]
    groups: dict[str, list[str]] = {}
    for chosen in itertools.product(*grid.values()):
        pairs = list(zip(grid, chosen, strict=True))
        name = job_dirname(pairs) if pairs else ""
        groups[job_dirname(pairs, is_taken=True) if name in groups else name] = [f"{key}={text}" for key, text in pairs]
    varied = {*grid, "seed", *(dimension.key for dimension in space)}
    fixed = [str(one.input_line) for key, one in overrides.items() if key not in varied]
    return SearchSpec(space, groups, seeds, fixed)


def _is_of_search(override: Override) -> bool:
    key = override.get_key_element().lstrip("+~")
    return key == "search" or key.startswith("search.")


def _is_seed_range(override: Override) -> bool:
    return override.get_key_element() == "seed" and override.is_discrete_sweep()


def _is_grid(override: Override | None) -> bool:
    return override is not None and override.is_sweep_override() and not is_searched(override)


def _narrowed(of_study: Override | None, override: Override) -> list[str]:
    """Return the values of a key of the grid.

    Raises ValueError: a typed value that the grid of the study does not have.
    """
    values = _texts(override)
    known = _texts(of_study) if of_study is not None and _is_grid(of_study) else values
    if unknown := [value for value in values if value not in known]:
        raise ValueError(f"{override.get_key_element()}={unknown[0]}: the study has {','.join(known)}")
    return list(dict.fromkeys(values))


def _texts(override: Override) -> list[str]:
    is_sweep = override.is_sweep_override()
    return list(override.sweep_string_iterator()) if is_sweep else [override.get_value_element_as_str()]


def _seeds(override: Override) -> list[int]:
    texts = _texts(override)
    if not all(text.isdigit() for text in texts) or len({*texts}) < len(texts):
        raise ValueError(f"{override.input_line}: must be different integers >= 0")
    return [int(text) for text in texts]


def _head(key: str) -> str:
    """Return the top-level key, or the group, of an override."""
    return re.split(r"[.@]", key.lstrip("+~"), maxsplit=1)[0]


def _check(dimension: Dimension, sampler: str) -> None:
    key = dimension.key.lstrip("+")
    if key in NOT_SEARCHED or is_seed(key) or _head(key) not in RESULT_KEYS or key in IGNORED_KEYS:
        raise ValueError(f"{dimension.key}={dimension.text}: cannot be searched")
    if sampler == "grid" and not dimension.is_finite:
        raise ValueError(f"{dimension.key}={dimension.text}: search=grid needs choice(...) or range(...)")


def check_effect(typed: Sequence[Override], search: Mapping[str, Any], spec: SearchSpec) -> None:
    """Raise ValueError for a typed key without another one that it needs, or that a search sets itself."""
    needed = {key: f"search.{other}" for key, other in NEEDED.items() if not search[other]}
    if len(spec.seeds) == 1 or search["cost"]:
        needed["contenders"] = "search.cost=null" if search["cost"] else "further seeds, such as seed=0,1,2"
    for override in typed:
        key = override.get_key_element().removeprefix("search.")
        if _is_of_search(override) and key in needed:
            raise ValueError(f"{override.input_line}: needs {needed[key]}")
        if override.get_key_element().startswith("scheduler.horizon") and search["horizon"] == "rung":
            raise ValueError(f"{override.input_line}: cannot be set with search.horizon=rung, which sets it")
