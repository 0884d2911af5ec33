"""Whether a configuration can be built: what a sweep asks of each of its points before it trains the first."""

from ghostexp.analysis.cost import Cost
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
