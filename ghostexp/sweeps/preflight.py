"""Check all jobs of a sweep before the first starts: each distinct network is built once, in a new process."""

import importlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ghostexp.errors import format_error
from ghostexp.runner import ranks
from ghostexp.runner.fork_server import call_quietly
from ghostexp.runs.config_keys import BUILD_IRRELEVANT_KEYS
from ghostexp.runs.directory import RunDirectory
from ghostexp.sweeps.jobs import SweepJob

Run = tuple[dict[str, Any], str]  # a configuration and its directory


@dataclass(frozen=True)
class BuildCheck:
    """Result of the check of a job."""

    error: str | None = None
    processes: int = 1
    params: int | None = None
    macs: int | None = None
    monitor: str = "acc1"  # metric of the LightningModule that compares runs
    falling: tuple[str, ...] = ()  # metrics of which less is better


def check_jobs(jobs: list[SweepJob], is_here: bool) -> tuple[list[tuple[str, str]], int]:
    """Check every job and set its processes, params and macs; returns names and errors, and the number of GPUs.

    is_here: the jobs run on this machine, whose devices are checked.
    """
    runs = [(job.config, str(job.run.path)) for job in jobs]
    answers, gpus = call_quietly(_check_all, runs, is_here)
    errors = []
    for job, answer in zip(jobs, answers, strict=True):
        job.processes, job.params, job.macs = answer.processes, answer.params, answer.macs
        job.monitor, job.falling = answer.monitor, answer.falling
        if answer.error is not None:
            errors.append((job.name, answer.error))
    return errors, gpus


def _check_all(runs: list[Run], is_here: bool) -> tuple[list[BuildCheck], int]:
    """Check the jobs in the new process; each distinct network is built once."""
    warnings.simplefilter("ignore")
    task = importlib.import_module("ghostexp.tasks.common.build_check")
    checker = task.Checker()
    distinct = {_key(config): (config, RunDirectory(Path(path))) for config, path in reversed(runs)}
    by_network = sorted(distinct, key=lambda key: task.network_key(distinct[key][0]))
    answers = {key: _check(*distinct[key], checker, is_here) for key in by_network}
    return [answers[_key(config)] for config, _ in runs], ranks.count_gpus("auto")


def _key(config: dict[str, Any]) -> str:
    """Return a text that is equal for configurations that differ in seeds and directories only."""
    relevant = {key: value for key, value in config.items() if key not in BUILD_IRRELEVANT_KEYS}
    relevant["datamodule"] = {**config["datamodule"], "seed": 0}
    return json.dumps(relevant, sort_keys=True, default=str)


def _check(config: dict[str, Any], run: RunDirectory, checker: Any, is_here: bool) -> BuildCheck:
    trainer = config["trainer"]
    try:
        if is_here and trainer["num_nodes"] > 1:
            raise ValueError(
                f"trainer.num_nodes={trainer['num_nodes']}: needs hydra/launcher=submitit_slurm in a sweep"
            )
        ranks.check_strategy(trainer.get("strategy", "auto"))
        if is_here and trainer["devices"] in ("auto", -1, "-1") and ranks.num_processes(trainer) > 1:
            raise ValueError(
                f"trainer.devices={trainer['devices']}: must be a number or a list in a sweep on several GPUs"
            )
        processes = ranks.num_processes(trainer) if is_here else ranks.parse_num_devices(trainer["devices"])
        ranks.check_task(config["task"]["name"], processes, trainer["num_nodes"])
        if not is_here:
            here = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto", "sync_batchnorm": False}
            config = {**config, "trainer": {**trainer, **here}}
        cost = checker.check(config, run)
    except Exception as error:
        return BuildCheck(format_error(error))
    return BuildCheck(None, processes, cost.params, cost.macs, checker.monitor, checker.falling)
