"""Whether a configuration can be built: what a sweep asks of each of its points before it trains the first."""

import json

from ghostexp.analysis.cost import Cost
from ghostexp.data.base import DataModule
from ghostexp.data.digest import DataDigest, describe_difference
from ghostexp.runs.directory import RunDirectory
from ghostexp.tasks import build

LEARNING = ("optimizer", "scheduler", "loss", "callbacks", "trainer", "logger")  # sections that no network is built of
IMAGES = ("in_chans", "num_classes", "image_size")  # all of its data that a network is built of


def check(config: build.Config, directory: RunDirectory) -> Cost:
    """Build all that a task builds, pass an image of the data's size through the network, and read no data.

    Raises ValueError as the task would.
    """
    return Checker().check(config, directory)


def network_key(config: build.Config) -> str:
    """Return a text that is equal for configurations of one network."""
    return json.dumps(_network_config(config), sort_keys=True, default=str)


class Checker:
    """Checks configurations, and builds a network once for all that follow each other and have the same."""

    def __init__(self) -> None:
        self.key = ""
        self.built: build.Built | None = None
        self.trainers: set[str] = set()

    def check(self, config: build.Config, directory: RunDirectory) -> Cost:
        """Check a configuration; see the function `check`."""
        build.datamodule_of(config)
        built = self._network(config)
        if config["task"]["name"] == "fit":
            module = build.module_of(config, built.network)
            module.make_optimizer(module.network)
            module.make_schedule(config["trainer"]["max_epochs"], 1)
            self._trainer(config, directory, module.score)
        return built.cost

    def _network(self, config: build.Config) -> build.Built:
        key = network_key(config)
        if self.built is None or key != self.key:
            self.built = None  # before the next is there too
            self.built, self.key = build.network_of(_network_config(config), is_resumed=True), key
        return self.built

    def _trainer(self, config: build.Config, directory: RunDirectory, score: str) -> None:
        key = json.dumps([score, config["trainer"], config["callbacks"]], sort_keys=True, default=str)
        if key not in self.trainers:
            build.trainer_of(config, build.callbacks_of(config, directory, score), [], directory)
            self.trainers.add(key)


def _network_config(config: build.Config) -> build.Config:
    """All of a configuration that a network is built of; its weights are left to the run itself."""
    left_out = (*LEARNING, "seed", "name", "resume", "output_dir", "threads", "traceback")
    data = {key: config["datamodule"].get(key) for key in IMAGES}
    return {key: value for key, value in config.items() if key not in left_out} | {"datamodule": data, "seed": 0}


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
