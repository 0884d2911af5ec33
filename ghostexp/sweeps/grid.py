"""Convert grids of overrides to the jobs of a sweep, which are run here instead of by Hydra's launchers."""

import itertools
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from ghostexp.config.compose import CONF, plain_node, resolve_config
from ghostexp.config.config_files import naming_files
from ghostexp.config.hydra_errors import to_user_error
from ghostexp.config.schema import check_launcher, check_search, check_sweeper
from ghostexp.errors import format_error
from ghostexp.runner.fork_server import targets, warm_up
from ghostexp.runner.ranks import is_started_by_slurm
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.naming import check_directory, job_dirname
from ghostexp.runs.sweep_record import check_study, read_sweep
from ghostexp.sweeps.compose_jobs import Composer
from ghostexp.sweeps.deferred import typed_overrides, without_typed
from ghostexp.sweeps.jobs import SweepJob
from ghostexp.sweeps.scheduler import Sweep

if TYPE_CHECKING:
    from ghostexp.sweeps.search.run import SearchCommand

Values = dict[str, list[str]]  # by key, as typed
REPEAT_KEYS = ("seed",)  # keys of a study that may have other values than its grid: they repeat it


class GridPoint(NamedTuple):
    """Name and overrides of a job; distinguishing_overrides: those that differ between jobs."""

    name: str
    overrides: list[str]
    distinguishing_overrides: list[str]


class Grid:
    """Grid of a sweep: every combination of its values, and of a second grid for the baseline of a study.

    `hydra.sweeper.params` is the grid, values by key as in Hydra: `model.ratio: 1,2,3`. Typed overrides replace them.
    `hydra.sweeper.baseline_grid` is the grid of the baseline; see `combinations`.
    """

    def __init__(self, composed: DictConfig) -> None:
        self.composed = composed
        loader = GlobalHydra.instance().config_loader()
        self.composer = Composer(composed, loader)
        self.parser = OverridesParser.create(config_loader=loader)
        self.parsed: dict[str, Override] = {}
        self.directory = Path(composed.hydra.sweep.dir).absolute()
        self.study: str | None = composed.hydra.runtime.choices.get("study")

    def sweep(self) -> int:
        """Run every job and return the exit code."""
        if is_started_by_slurm():
            raise ValueError("-m under srun: start the sweep without srun, with hydra/launcher=submitit_slurm")
        composed, launcher = self.composed, self._launcher()
        with naming_files(composed.hydra.overrides.hydra, typed_overrides(composed)):
            check_sweeper(plain_node(without_typed(composed).hydra.sweeper))
            check_launcher(launcher)
        check_directory(self.directory)
        if launcher["backend"] != "local" and "%" in str(self.directory):
            raise ValueError(f"{self.directory}: must not contain %, which SLURM replaces; set name= or output_dir=")
        check_study(self.directory, self.study)
        if several := [text for text in typed_overrides(composed) if re.match(r"search=.*,", text)]:
            raise ValueError(f"{several[0]}: only one search at a time")
        if composed.search is not None:
            command = self.search_command()
            warm_up(["ghostexp.tasks.common.instantiate", *targets(OmegaConf.to_container(composed))])
            return command.run(composed, launcher)
        if read_sweep(self.directory).search:
            raise ValueError(f"{self.directory}: contains a search; repeat its command, or set another name=...")
        warm_up(["ghostexp.tasks.common.instantiate", *targets(OmegaConf.to_container(composed))])
        jobs, errors, all_jobs = self.jobs()
        sweep = Sweep(self.directory, self.study, composed.n_jobs, composed.fail_fast, composed.dry_run, launcher)
        return sweep.run(jobs, errors, all_jobs)

    def search_command(self) -> "SearchCommand":
        """Return the search of this command.

        Raises ValueError: wrong values, or Optuna is not installed.
        """
        from ghostexp.sweeps.search.run import SearchCommand
        from ghostexp.sweeps.search.specification import check_effect, read_spec

        composed, search = self.composed, plain_node(self.composed.search)
        if "sampler" not in search:
            raise ValueError(f"study={self.study}: needs a search; add search=tpe, or leave out ~search")
        with naming_files(composed.hydra.overrides.hydra, typed_overrides(composed)):
            check_search(search)
        if composed.hydra.sweeper.get("baseline_grid"):
            raise ValueError("hydra.sweeper.baseline_grid: must be empty with a search; see hydra.sweeper.params")
        params = [f"{key}={value}" for key, value in (composed.hydra.sweeper.get("params") or {}).items()]
        given, typed = (self.parser.parse_overrides(lines) for lines in (params, typed_overrides(composed)))
        spec = read_spec(given, typed, composed.seed, search["sampler"])
        check_effect(typed, search, spec)

        def compose(name: str, overrides: list[str], distinguishing: list[str]) -> SweepJob:
            return self.compose(GridPoint(name, overrides, distinguishing))

        return SearchCommand(self.directory, self.study, spec, search, compose)

    def jobs(self) -> tuple[list[SweepJob], list[tuple[str, str]], dict[str, list[str]]]:
        """Return the jobs, name and error of those that cannot be composed, and overrides by name of all of a study."""
        overrides = self.parser.parse_overrides(typed_overrides(self.composed))
        typed = {override.get_key_element(): _values(override) for override in overrides}
        params, baseline = self._values_of("params"), self._values_of("baseline_grid")
        self._check(overrides, params, baseline)
        swept = {override.get_key_element() for override in overrides if override.is_sweep_override()}
        not_narrowed = {key: values for key, values in typed.items() if key not in params}
        names: dict[str, list[str]] = {}
        all_jobs = _distinct(combinations(params, baseline, not_narrowed, swept), names)
        wanted = _distinct(combinations(params, baseline, typed, swept), names)
        jobs, errors = [], []
        for combination in wanted:
            try:
                jobs.append(self.compose(combination))
            except Exception as error:
                errors.append((combination.name, format_error(to_user_error(error, combination.overrides, CONF))))
        return (
            jobs,
            errors,
            {combination.name: combination.distinguishing_overrides for combination in [*all_jobs, *wanted]},
        )

    def _values_of(self, grid: str) -> Values:
        lines = {key: f"{key}={value}" for key, value in (self.composed.hydra.sweeper.get(grid) or {}).items()}
        return {key: _values(self.parser.parse_override(line)) for key, line in lines.items()}

    def _launcher(self) -> dict[str, Any]:
        launcher = plain_node(self.composed.hydra.launcher)
        if "backend" not in launcher:
            chosen = self.composed.hydra.runtime.choices["hydra/launcher"]
            raise ValueError(f"hydra/launcher={chosen}: must be one of local, submitit_local, submitit_slurm")
        return launcher

    def _check(self, overrides: list[Override], params: Values, baseline: Values) -> None:
        """Raise ValueError for invalid overrides of a sweep."""
        for override in overrides:
            text, key, values = override.input_line, override.get_key_element(), _values(override)
            if not values:
                raise ValueError(f"{text}: empty grid")
            if key == "study" and len(values) > 1:
                raise ValueError(f"{text}: only one study at a time")
            known = list(dict.fromkeys([*params[key], *baseline.get(key, ())])) if key in params else values
            for value in values:
                if key not in REPEAT_KEYS and value not in known:
                    raise ValueError(f"{key}={value}: study={self.study} has {key}={','.join(known)}")

    def compose(self, combination: GridPoint) -> SweepJob:
        """Compose one job."""
        path = self.directory / combination.name
        overrides = [self._parse(text) for text in combination.overrides]
        composed, choices = self.composer.compose(overrides)
        with naming_files(self.composed.hydra.overrides.hydra, combination.overrides):
            config = resolve_config(composed, choices)
        config["name"] = self.directory.name
        record = partial(self.composer.record, overrides, path)
        return SweepJob(RunDirectory(path), tuple(combination.distinguishing_overrides), config, record)

    def _parse(self, text: str) -> Override:
        if text not in self.parsed:
            self.parsed[text] = self.parser.parse_override(text)
        return self.parsed[text]


def combinations(params: Values, baseline: Values, typed: Values, swept: set[str]) -> Iterator[GridPoint]:
    """Yield the combinations of a study's grid with the typed values, then those of its baseline.

    Typed values narrow those of `params`, replace repetitions (REPEAT_KEYS) and add other keys. Of the baseline, they
    replace repetitions, narrow other keys that `params` has too to the values in common, if there are any, and add keys
    that neither has. Values that the baseline alone has leave `params` without a combination.
    """
    narrowed = {key: [value for value in params[key] if value in typed[key]] for key in typed.keys() & params.keys()}
    own = {**params, **typed, **{key: values for key, values in narrowed.items() if key not in REPEAT_KEYS}}
    yield from _product(own, swept | params.keys())
    if baseline:
        shared = {key: values for key, values in typed.items() if key not in params and key not in baseline}
        for key in typed.keys() & params.keys() & baseline.keys():
            common = [value for value in baseline[key] if value in typed[key]]
            shared[key] = typed[key] if key in REPEAT_KEYS else common or baseline[key]
        yield from _product({**baseline, **shared}, swept | baseline.keys())


def _product(values: Values, distinguishing_overrides: set[str]) -> Iterator[GridPoint]:
    """Yield every combination, named by the distinguishing keys."""
    for chosen in itertools.product(*values.values()):
        pairs = list(zip(values, chosen, strict=True))
        distinguishing = [pair for pair in pairs if pair[0] in distinguishing_overrides]
        yield GridPoint(
            job_dirname(distinguishing),
            *([_as_override(*pair) for pair in some] for some in (pairs, distinguishing)),
        )


def _as_override(key: str, value: str) -> str:
    return key if key.startswith("~") and not value else f"{key}={value}"  # ~optimizer has no value


def _distinct(combinations: Iterable[GridPoint], names: dict[str, list[str]]) -> list[GridPoint]:
    """Rename combinations with equal names but different values; names: distinguishing overrides by name."""
    distinct = []
    for combination in combinations:
        if (
            names.setdefault(combination.name, combination.distinguishing_overrides)
            != combination.distinguishing_overrides
        ):
            pairs = [
                (key, value) for key, _, value in (text.partition("=") for text in combination.distinguishing_overrides)
            ]
            combination = combination._replace(name=job_dirname(pairs, is_taken=True))
            names[combination.name] = combination.distinguishing_overrides
        distinct.append(combination)
    return distinct


def _values(override: Override) -> list[str]:
    """Return the values of an override.

    Raises ValueError: an interval of real numbers.
    """
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    if not override.is_discrete_sweep():
        raise ValueError(
            f"{override.input_line}: must be single values, such as 1,2,3 or range(0,5), without a search; "
            "to search the interval, add search=tpe"
        )
    return list(override.sweep_string_iterator())
