"""Run a sweep, or a report on one, in place of Hydra's sweeper."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from ghostexp.config.compose import CONF, checked
from ghostexp.config.config_files import naming_files
from ghostexp.config.hydra_errors import to_user_error
from ghostexp.errors import print_error
from ghostexp.runner.execute import execute
from ghostexp.runs.config_keys import REPORT_KEYS, STUDY_TASKS
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.sweep_record import check_study
from ghostexp.sweeps.deferred import typed_overrides
from ghostexp.sweeps.grid import Grid


class SweepCallback(Callback):
    """Callback before a multirun that runs the whole sweep; Hydra's own sweeper is not used."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Run the sweep; raises SystemExit with the exit code."""
        try:
            code = _report(config) if config.task.name in STUDY_TASKS else _sweep(config)
        except Exception as error:  # Hydra would turn it into a warning
            print_error(to_user_error(error, typed_overrides(config), CONF), config.traceback)
            code = 1
        raise SystemExit(code)


def _sweep(composed: DictConfig) -> int:
    """Run all jobs; after profiles, print the table that compares them."""
    code = Grid(composed).sweep()
    if code or composed.dry_run or composed.task.name != "profile":
        return code
    return _report_on(
        Path(composed.hydra.sweep.dir).absolute(), OmegaConf.load(CONF / "task" / "report.yaml"), composed
    )


def _report(composed: DictConfig) -> int:
    """Report on the runs of a sweep, which is one job without keys of a training."""
    typed = typed_overrides(composed)
    others = [text for text in typed if text.lstrip("+~").partition("=")[0].partition(".")[0] not in REPORT_KEYS]
    if others:
        allowed = ", ".join(REPORT_KEYS)
        raise ValueError(f"{others[0]}: cannot be set with task={composed.task.name} of a study; allowed: {allowed}")
    with naming_files(composed.hydra.overrides.hydra, typed):
        checked(composed)
    if composed.task.runs is not None:
        raise ValueError("task.runs: selects the runs; leave out study= and -m")
    directory = Path(composed.hydra.sweep.dir).absolute()
    if not directory.is_dir():
        raise ValueError(
            f"task={composed.task.name}: there is no {directory}; run the study first, or set name= or output_dir="
        )
    check_study(directory, composed.hydra.runtime.choices.get("study"))
    return _report_on(directory, composed.task, composed)


def _report_on(directory: Path, task: Any, composed: DictConfig) -> int:
    part = OmegaConf.masked_copy(composed, ["seed", "output_dir", "threads", "traceback"])
    part.task = task
    resolved = OmegaConf.to_container(part, resolve=True)
    assert isinstance(resolved, dict)
    config = {str(key): value for key, value in resolved.items()} | {"name": directory.name}
    baseline = composed.hydra.sweeper.get("report_baseline")
    config["report_baseline"] = None if baseline is None else OmegaConf.to_container(baseline)
    run = RunDirectory(directory / task.name)
    run.write_config(config)
    return execute(config, run)
