"""Compare searches with the exhaustive grid at a third of its epochs: python experiments/search/compare.py OUTPUT_DIR

The grid, learning rates x weight decays, is trained with fresh seeds and tested once. Each search then chooses one of
its configurations on a validation part, and is worth what that configuration has in the table of the grid.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ghostexp.report.search_runs import load_search, test_figure
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.text_files import markdown_table
from ghostexp.runs.trials import TrialName, TrialRun

RATES = ("0.003", "0.01", "0.02", "0.05", "0.1", "0.2", "0.4", "0.8", "1.6")
DECAYS = ("1e-4", "5e-4", "2e-3")
FACTOR = 3
COMMON = ("trainer.check_val_every_n_epoch=1", "callbacks.progress=false", "threads=1")
# Training images by name: the recipe, and the fractions of all images and of those that are not held out.
IMAGES = {"tenth": ("digits/tenth", 0.1, 0.2), "half": ("digits/full", 0.5, 1.0)}
METHODS = {  # sampler, and with rungs their schedule of learning rates
    "random search": ("random", None),
    "TPE": ("tpe", None),
    "halving": ("random", "final"),
    "TPE with halving": ("tpe", "final"),
    "halving, a schedule for each rung": ("random", "rung"),
    "TPE with halving, a schedule for each rung": ("tpe", "rung"),
}
Configuration = tuple[str, str]


def main() -> None:
    """Run what is not finished, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--images", choices=IMAGES, default="half", help="of the digits' training set")
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--repetitions", type=int, default=5, help="of each search, with other seeds of the sampler")
    parser.add_argument("--seeds", type=int, default=5, help="fresh seeds of each configuration of the grid")
    parser.add_argument("--rates", type=int, default=len(RATES), help="learning rates, of which the first are taken")
    arguments = parser.parse_args()
    by_seed = run_grid(arguments)
    grid = {configuration: statistics.fmean(of_seeds.values()) for configuration, of_seeds in by_seed.items()}
    best, epochs = max(grid.values()), len(grid) * arguments.epochs
    rows = []
    for method, (sampler, horizon) in METHODS.items():
        repetitions = range(arguments.repetitions)
        found = [run_search(arguments, epochs // FACTOR, sampler, horizon, repetition) for repetition in repetitions]
        rows.append(row(method, found, grid, best))
    rows.append(["grid", epochs, len(grid), f"{best:.2f}", "0.00", "0.00"])
    if arguments.seeds > 1:
        worth = leave_one_out(by_seed, fresh_seeds(arguments))
        rows.append(["grid, its choice tested with another seed", "", "", f"{worth:.2f}", f"{best - worth:.2f}", ""])
    head = ["search", "epochs", "trials", "test accuracy of its choice, %", "points below the best, mean", "worst"]
    print(markdown_table(head, rows))


def leave_one_out(by_seed: Mapping[Configuration, Mapping[int, float]], seeds: Sequence[int]) -> float:
    """Return the mean, over seeds, of a seed's figure of the configuration that is the best with the other seeds.

    The best of many means is partly luck; this is what it is worth. Configurations that diverged with a seed are out.
    """
    complete = [figures for figures in by_seed.values() if figures.keys() >= set(seeds)]
    found = []
    for seed in seeds:
        others = [other for other in seeds if other != seed]
        best = max(complete, key=lambda figures: statistics.fmean(figures[other] for other in others))
        found.append(best[seed])
    return statistics.fmean(found)


def row(
    method: str, found: Sequence[tuple[Configuration, int, int]], grid: Mapping[Configuration, float], best: float
) -> list[object]:
    """Return the row of a method: what its choices have with fresh seeds."""
    chosen = [grid[configuration] for configuration, _, _ in found]
    epochs, trials = (statistics.fmean(values) for values in list(zip(*found, strict=True))[1:])
    below = [best - value for value in chosen]
    figures = [statistics.fmean(chosen), statistics.fmean(below), max(below)]
    return [method, f"{epochs:.0f}", f"{trials:.1f}", *(f"{value:.2f}" for value in figures)]


def run_grid(arguments: argparse.Namespace) -> dict[Configuration, dict[int, float]]:
    """Train every configuration with fresh seeds; returns the test accuracy of each by seed."""
    fresh = ",".join(map(str, fresh_seeds(arguments)))
    rates, fraction = RATES[: arguments.rates], IMAGES[arguments.images][1]
    values = (f"optimizer.lr={','.join(rates)}", f"optimizer.weight_decay={','.join(DECAYS)}", f"seed={fresh}")
    ghostexp(arguments, "grid", *values, f"datamodule.train_fraction={fraction}")
    figures: dict[Configuration, dict[int, float]] = {}
    for path in sorted((arguments.output_dir / "grid").glob("*/result.json")):
        run = RunDirectory(path.parent)
        config = run.read_config()
        optimizer = config["optimizer"]
        key = nearest(rates, optimizer["lr"]), nearest(DECAYS, optimizer["weight_decay"])
        figure = test_figure(TrialRun(TrialName("", 0, 0), run, result=run.read_result()))
        figures.setdefault(key, {})[config["seed"]] = figure
    return figures


def fresh_seeds(arguments: argparse.Namespace) -> list[int]:
    """Return the seeds of the grid, which no search uses."""
    return [100 + seed for seed in range(arguments.seeds)]


def run_search(
    arguments: argparse.Namespace, budget: int, sampler: str, horizon: str | None, repetition: int
) -> tuple[Configuration, int, int]:
    """Search once; returns the configuration of the winner, the epochs trained, and the number of trials."""
    rates = RATES[: arguments.rates]
    space = (f"optimizer.lr=choice({','.join(rates)})", f"optimizer.weight_decay=choice({','.join(DECAYS)})")
    settings = [f"search={sampler}", f"search.seed={repetition}", f"search.epochs={budget}", "search.trials=null"]
    settings += [f"seed={repetition}", "datamodule.validate_on=holdout", "datamodule.holdout_fraction=0.5"]
    settings += [f"datamodule.train_fraction={IMAGES[arguments.images][2]}"]
    if sampler == "tpe":
        settings.append("search.startup=4")  # of nine trials
    if horizon is not None:
        rungs = [max(1, arguments.epochs // FACTOR**2), max(2, arguments.epochs // FACTOR)]
        settings += [f"search.rungs={rungs}".replace(" ", ""), f"search.horizon={horizon}"]
        sampler += "_halving" if horizon == "final" else "_halving_rung"
    name = f"{sampler}_{repetition}"
    ghostexp(arguments, name, *space, *settings)
    (group,) = load_search(arguments.output_dir / name)
    lr, decay = group.values[group.finalists[0]].values()
    return (nearest(rates, float(lr)), nearest(DECAYS, float(decay))), group.epochs, len(group.trials)


def nearest(texts: Sequence[str], value: float) -> str:
    """Return the text of a number, however it was written."""
    return min(texts, key=lambda text: abs(float(text) - value))


def ghostexp(arguments: argparse.Namespace, name: str, *overrides: str) -> None:
    """Run a sweep or a search, which continues where an earlier command ended."""
    own = (f"experiment={IMAGES[arguments.images][0]}", f"trainer.max_epochs={arguments.epochs}", f"name={name}")
    command = [sys.executable, "-m", "ghostexp", "-m", *own, f"output_dir={arguments.output_dir}", *COMMON, *overrides]
    # The smallest rates and the largest may diverge, which is a result.
    subprocess.run(command, check=not name.startswith("grid"), stdout=sys.stderr)


if __name__ == "__main__":
    main()
