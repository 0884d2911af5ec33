"""Define the keys of conf/search, the search for hyperparameters: type, range and description."""

from ghostexp.config.key import Keys, array, boolean, choice, integer, number, string

SAMPLERS = ("tpe", "gp", "cmaes", "qmc", "random", "grid")
SEARCH: Keys = {
    "sampler": choice("How values are chosen; all but grid are Optuna's.", *SAMPLERS),
    "seed": integer("Seed of the sampler.", least=0),
    "startup": integer("Trials with random values before the sampler learns from their results.", least=1),
    "trials": integer("Number of trials; null: no limit, or of a grid, all combinations.", least=1).or_null(),
    "epochs": integer("Epochs that all trials train together; null: no limit.", least=1).or_null(),
    "hours": number("Time of one command, after which no trial starts or goes on; null: no limit.", above=0).or_null(),
    "rungs": array("Epochs after which trials are compared, and only the best go on; []: all are trained to the end."),
    "factor": number("Of the trials that have reached a rung, one in so many goes on.", above=1),
    "horizon": choice(
        "Learning-rate schedule: final, that of the whole training; rung, one that ends at each rung.", "final", "rung"
    ),
    "metric": string(
        "Column of metrics.csv that is compared, val/...; null: accuracy, mAP, or that of monitor, in its direction."
    ).or_null(),
    "direction": choice("Whether more or less of the metric is better.", "maximize", "minimize"),
    "cost": choice(
        "Second objective, the less the better: the search finds the Pareto set; latency_ms is measured.",
        "macs",
        "params",
        "latency_ms",
        needed="must be macs, params, latency_ms or null",
        also=["null"],
    ),
    "contenders": integer("Number of trials that further seeds compare.", least=1),
    "test_seeds": array(
        "Seeds with which the winner is trained anew, without holding out a validation part, and tested."
    ),
    "test_overrides": array("Overrides of these trainings, [KEY=VALUE], beside datamodule.validate_on=test."),
    "tune_on_test": boolean("Search with datamodule.validate_on=test all the same."),
}
