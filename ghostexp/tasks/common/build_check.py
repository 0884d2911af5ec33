"""Check configurations before anything runs: build all objects, and compare the data with a finished run's."""

import json

from ghostexp.analysis.cost import Cost
from ghostexp.data.base import DataModule
from ghostexp.data.digest import DataDigest, describe_difference
from ghostexp.runs.directory import RunDirectory
from ghostexp.tasks.common import instantiate
from ghostexp.tasks.common.build_network import check_freezing

TRAINING_KEYS = ("optimizer", "scheduler", "loss", "callbacks", "trainer", "logger")  # irrelevant to the network
IMAGE_KEYS = ("in_chans", "num_classes", "image_size")  # all keys of the data that the network depends on


def network_key(config: instantiate.Config) -> str:
    """Return a text that is equal for configurations of one network."""
    return json.dumps(_network_config(config), sort_keys=True, default=str)


class Checker:
    """Checks configurations; consecutive ones with the same network build it once."""

    def __init__(self) -> None:
        self.key = ""
        self.built: instantiate.BuiltModel | None = None
        self.trainers: set[str] = set()
        self.monitor = "acc1"  # of the last LightningModule
        self.falling: tuple[str, ...] = ()  # its metrics of which less is better, as far as they are known

    def check(self, config: instantiate.Config, directory: RunDirectory) -> Cost:
        """Check a configuration: weights to freeze are given, or resumed, and all is built."""
        is_resumed = config["resume"] and directory.last.exists()
        if config["run"] is None and not is_resumed:
            check_freezing(config)
        return self.build(config, directory)

    def build(self, config: instantiate.Config, directory: RunDirectory) -> Cost:
        """Build all objects of a task, and pass one image through the network; reads no data.

        Raises ValueError as the task would, except for weights that a recipe leaves to the command.
        """
        instantiate.build_datamodule(config)
        built = self._network(config)
        if config["task"]["name"] == "fit":
            module = instantiate.build_lightning_module(config, built.network)
            self.monitor, falls = str(module.monitor), getattr(module, "monitor_mode", "max") == "min"
            self.falling = (*getattr(module, "falling_metrics", ()), *[self.monitor] * falls)
            self._trainer(config, directory, self.monitor)
        return built.cost

    def _network(self, config: instantiate.Config) -> instantiate.BuiltModel:
        key = network_key(config)
        if self.built is None or key != self.key:
            self.built = None  # freed before the next is built
            self.built, self.key = instantiate.build_network(_network_config(config), is_resumed=True), key
        return self.built

    def _trainer(self, config: instantiate.Config, directory: RunDirectory, metric: str) -> None:
        key = json.dumps([metric, config["trainer"], config["callbacks"]], sort_keys=True, default=str)
        if key not in self.trainers:
            instantiate.build_trainer(config, instantiate.build_callbacks(config, directory, metric), [], directory)
            self.trainers.add(key)


def _network_config(config: instantiate.Config) -> instantiate.Config:
    """Select the part of a configuration that the network depends on; weights are loaded by the run itself."""
    left_out = (*TRAINING_KEYS, "seed", "name", "resume", "output_dir", "threads", "traceback")
    data = {key: config["datamodule"].get(key) for key in IMAGE_KEYS}
    return {key: value for key, value in config.items() if key not in left_out} | {"datamodule": data, "seed": 0}


def check_data(config: instantiate.Config, directory: RunDirectory, known: dict[str, DataDigest]) -> None:
    """Raise ValueError if a finished run's data have changed; `known` caches digests for the next run.

    Missing data, or a result without a digest, are no error.
    """
    before = (directory.read_result() or {}).get("data")
    key = json.dumps({**config["datamodule"], "seed": 0}, sort_keys=True, default=str)
    if before is not None and key not in known:
        known[key] = _digest(config)
    difference = describe_difference(before, known[key]) if before is not None else None
    if difference is not None:
        root = config["datamodule"].get("root")
        raise ValueError(
            f"datamodule.root={root}: must be the data of this run ({difference}); name=... starts a new sweep"
        )


def _digest(config: instantiate.Config) -> DataDigest:
    try:
        datamodule = instantiate.build_datamodule(config)
        return datamodule.digest() if isinstance(datamodule, DataModule) else {}
    except ValueError:  # the data are missing
        return {}
