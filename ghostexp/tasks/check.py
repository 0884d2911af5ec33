"""Whether a configuration can be built: what a sweep asks of each of its points before it trains the first."""

import json

from ghostexp.analysis.cost import Cost
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
