"""All jobs of a sweep are built once, in a process of their own, before the first is trained."""

import importlib
import json
import logging
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ghostexp.errors import format_error
from ghostexp.runner import ranks
from ghostexp.runner.fork_server import call_in_process
from ghostexp.runs.directory import RunDirectory
from ghostexp.sweeps.jobs import SweepJob

BUILD_IRRELEVANT_KEYS = (
    "seed",
    "name",
    "choices",
    "resume",
    "logger",
    "output_dir",
    "threads",
)  # for what can be built
Run = tuple[dict[str, Any], str]  # a configuration and its directory


@dataclass(frozen=True)
class BuildCheck:
    """What was found out of a job."""

    error: str | None = None
    processes: int = 1
    params: int | None = None
    macs: int | None = None


def check_jobs(jobs: list[SweepJob], is_here: bool) -> tuple[list[tuple[str, str]], int]:
    """Build every job, and write into it what was found; returns names and errors, and how many GPUs there are.

    is_here: the jobs will run on this machine, which has to have the devices for them.
    """
    runs = [(job.config, str(job.run.path)) for job in jobs]
    answers, gpus = call_in_process(_check_all, runs, is_here)
    errors = []
    for job, answer in zip(jobs, answers, strict=True):
        job.processes, job.params, job.macs = answer.processes, answer.params, answer.macs
        if answer.error is not None:
            errors.append((job.name, answer.error))
    return errors, gpus


def _check_all(runs: list[Run], is_here: bool) -> tuple[list[BuildCheck], int]:
    """What happens in the other process; each distinct network is built once."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # warnings are for the runs' own logs
    logging.disable()
    warnings.simplefilter("ignore")
    task = importlib.import_module("ghostexp.tasks.common.instantiate")
    checker = task.Checker()
    distinct = {_key(config): (config, RunDirectory(Path(path))) for config, path in reversed(runs)}
    by_network = sorted(distinct, key=lambda key: task.network_key(distinct[key][0]))
    answers = {key: _check(*distinct[key], checker, is_here) for key in by_network}
    return [answers[_key(config)] for config, _ in runs], ranks.count_gpus("auto")


def _key(config: dict[str, Any]) -> str:
    """A text that is equal for configurations that differ in seeds and places only."""
    decides = {key: value for key, value in config.items() if key not in BUILD_IRRELEVANT_KEYS}
    decides["datamodule"] = {**config["datamodule"], "seed": 0}
    return json.dumps(decides, sort_keys=True, default=str)


def _check(config: dict[str, Any], run: RunDirectory, checker: Any, is_here: bool) -> BuildCheck:
    trainer = config["trainer"]
    try:
        if is_here and trainer["num_nodes"] > 1:
            raise ValueError(
                f"trainer.num_nodes={trainer['num_nodes']}: needs hydra/launcher=submitit_slurm in a sweep"
            )
        ranks.check_strategy(trainer.get("strategy", "auto"))
        processes = ranks.num_processes(trainer) if is_here else ranks.parse_num_devices(trainer["devices"])
        ranks.check_task(config["task"]["name"], processes, trainer["num_nodes"])
        if not is_here:
            here = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto", "sync_batchnorm": False}
            config = {**config, "trainer": {**trainer, **here}}
        cost = checker.check(config, run)
    except Exception as error:
        return BuildCheck(format_error(error))
    return BuildCheck(None, processes, cost.params, cost.macs)
