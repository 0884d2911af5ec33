"""Whether a configuration can be built: what a sweep asks of each of its points before it trains the first."""

import json

from ghostexp.analysis.cost import Cost
from ghostexp.data.base import DataModule
from ghostexp.data.digest import DataDigest, describe_difference
from ghostexp.runs.directory import RunDirectory
from ghostexp.tasks import build


def check(config: build.Config, directory: RunDirectory) -> Cost:
    """Build all that a task builds, pass an image of the data's size through the network, and read no data.

    Raises ValueError as the task would.
    """
    build.datamodule_of(config)
    built = build.network_of(config, is_resumed=True)  # weights are left to the run itself
    if config["task"]["name"] == "fit":
        module = build.module_of(config, built.network)
        module.make_optimizer(module.network)
        module.make_schedule(config["trainer"]["max_epochs"], 1)
        build.trainer_of(config, build.callbacks_of(config, directory, module.score), [], directory)
    return built.cost


def check_data(config: build.Config, directory: RunDirectory, known: dict[str, DataDigest]) -> None:
    """Raise ValueError if a finished run's data are others now; `known` keeps digests for the next run.

    Data that are gone, or were not noted, say nothing against a result.
    """
    before = (directory.read_result() or {}).get("data")
    key = json.dumps({**config["datamodule"], "seed": 0}, sort_keys=True, default=str)
    if before is not None and key not in known:
        known[key] = _digest(config)
    difference = describe_difference(before, known[key]) if before is not None else None
    if difference is not None:
        root = config["datamodule"].get("root")
        raise ValueError(
            f"datamodule.root={root}: not what this run was trained on ({difference}); name=... starts a new sweep"
        )


def _digest(config: build.Config) -> DataDigest:
    try:
        datamodule = build.datamodule_of(config)
        return datamodule.digest() if isinstance(datamodule, DataModule) else {}
    except ValueError:  # the data are gone
        return {}
