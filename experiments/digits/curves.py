"""Draw what a ghost network and its ordinary twin learn on the digits, and write their test figures.

    python -m ghostexp -m model=ghost_resnet20,resnet20 seed=0,1,2,3,4 trainer.max_epochs=25 threads=1 name=digits
    python experiments/digits/curves.py outputs/digits

Writes curves.png and results.csv beside this file, and prints the table of the README.
"""

import csv
import statistics
import sys
from pathlib import Path

import matplotlib.pyplot as plt

from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.table import read

HERE = Path(__file__).parent
ARMS = {"ghost_resnet20": ("Ghost-ResNet-20, s = 2, d = 3", "-", "C0"), "resnet20": ("ResNet-20", "--", "C1")}


def main() -> None:
    """Read the runs of a sweep, draw and write."""
    sweep = Path(sys.argv[1])
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    rows = []
    for arm, (label, line, colour) in ARMS.items():
        runs = [RunDirectory(path) for path in sorted(sweep.glob(f"model-{arm}_seed-*"))]
        results = [result for run in runs if (result := run.read_result())]
        curves = [[100 - float(row["val/acc1"]) for row in read(run.metrics) if row["val/acc1"]] for run in runs]
        epochs = range(1, len(curves[0]) + 1)
        columns = list(zip(*curves, strict=True))
        middle = [statistics.median(column) for column in columns]
        axes.plot(epochs, middle, line, color=colour, label=f"{label}: median of {len(curves)} seeds")
        lowest, highest = [min(column) for column in columns], [max(column) for column in columns]
        axes.fill_between(epochs, lowest, highest, color=colour, alpha=0.2, linewidth=0)
        accuracies = [result["metrics"]["test"]["test/acc1"] for result in results]
        rows += [[arm, result["seed"], result["metrics"]["test"]["test/acc1"]] for result in results]
        print(
            f"| {label} | {results[0]['params']:,} | {results[0]['macs']:,} | {statistics.mean(accuracies):.2f} "
            f"± {statistics.stdev(accuracies):.2f} | {min(accuracies):.2f} |"
        )
        neighbour = 100 - results[0]["baselines"]["1-nearest-neighbour"]
    axes.axhline(neighbour, color="black", linestyle=":", label="1-nearest-neighbour")
    axes.set(xlabel="epoch", ylabel="test error, %", yscale="log", xlim=(1, len(columns)))
    axes.set_yticks([1, 2, 5, 10, 20, 50, 90], ["1", "2", "5", "10", "20", "50", "90"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(title="band: lowest to highest", frameon=False)
    figure.savefig(HERE / "curves.png", dpi=130)
    with (HERE / "results.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([["model", "seed", "test_acc1"], *rows])


if __name__ == "__main__":
    main()
