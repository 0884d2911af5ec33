"""All points of a sweep are built once, in a process of their own, before the first is trained."""

import importlib
import json
import logging
import os
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ghostexp.runner import ranks
from ghostexp.runner.errors import one_line
from ghostexp.runner.fork_server import CONTEXT
from ghostexp.runner.points import Point
from ghostexp.runs.directory import RunDirectory

NO_CONCERN = ("seed", "name", "choices", "resume", "logger", "output_dir", "threads")  # for what can be built


@dataclass(frozen=True)
class Answer:
    """What was found out of a point."""

    error: str | None = None
    processes: int = 1
    params: int | None = None
    macs: int | None = None


def check(points: list[Point], is_here: bool) -> tuple[list[tuple[str, str]], int]:
    """Build every point, and write into it what was found; returns names and errors, and how many GPUs there are.

    is_here: the jobs will run on this machine, which has to have the devices for them.
    """
    jobs = [(point.config, str(point.run.path)) for point in points]
    with ProcessPoolExecutor(1, mp_context=CONTEXT) as pool:
        try:
            answers, gpus = pool.submit(_check_all, jobs, is_here).result()
        except BrokenProcessPool:
            raise ValueError("the process that builds every point once was ended (out of memory?)") from None
    errors = []
    for point, answer in zip(points, answers, strict=True):
        point.processes, point.params, point.macs = answer.processes, answer.params, answer.macs
        if answer.error is not None:
            errors.append((point.name, answer.error))
    return errors, gpus


def _check_all(jobs: list[tuple[dict[str, Any], str]], is_here: bool) -> tuple[list[Answer], int]:
    """What happens in the other process; points that differ in seeds and places only are built once."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # warnings are for the runs' own logs
    logging.disable()
    warnings.simplefilter("ignore")
    answers: dict[str, Answer] = {}
    keys = []
    for config, path in jobs:
        decides = {key: value for key, value in config.items() if key not in NO_CONCERN}
        decides["datamodule"] = {**config["datamodule"], "seed": 0}
        keys.append(json.dumps(decides, sort_keys=True, default=str))
        if keys[-1] not in answers:
            answers[keys[-1]] = _check(config, RunDirectory(Path(path)), is_here)
    return [answers[key] for key in keys], ranks.count_gpus("auto")


def _check(config: dict[str, Any], run: RunDirectory, is_here: bool) -> Answer:
    trainer = config["trainer"]
    try:
        if is_here and trainer["num_nodes"] > 1:
            raise ValueError(
                f"trainer.num_nodes={trainer['num_nodes']}: needs hydra/launcher=submitit_slurm in a sweep"
            )
        ranks.check_strategy(trainer.get("strategy", "auto"))
        processes = ranks.processes(trainer) if is_here else ranks.stated(trainer["devices"])
        ranks.check_task(config["task"]["name"], processes, trainer["num_nodes"])
        if not is_here:
            here = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto", "sync_batchnorm": False}
            config = {**config, "trainer": {**trainer, **here}}
        cost = importlib.import_module("ghostexp.tasks.check").check(config, run)
    except Exception as error:
        return Answer(one_line(error))
    return Answer(None, processes, cost.params, cost.macs)
