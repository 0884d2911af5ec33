"""Whether a configuration can be built: what a sweep asks of each of its points before it trains the first."""

from ghostexp.analysis.cost import Cost
from ghostexp.runs.directory import RunDirectory
from ghostexp.tasks import build


def check(config: build.Config, directory: RunDirectory) -> Cost:
    """Build all that a task builds, pass an image of the data's size through the network, and read no data.

    Raises ValueError as the task would.
    """
    build.datamodule_of(config)
    network, cost, _ = build.network_of(config, is_resumed=True)  # weights are left to the run itself
    if config["task"]["name"] == "fit":
        classifier = build.classifier_of(config, network)
        classifier.make_optimizer(network)
        classifier.make_schedule(config["trainer"]["max_epochs"], 1)
        build.trainer_of(config, build.callbacks_of(config, directory, classifier.score), [], directory)
    return cost
