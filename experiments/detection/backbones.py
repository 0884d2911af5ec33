"""Whether a backbone that a classifier trained starts a detector better than drawn weights: commands, CSV, table.

    python experiments/detection/backbones.py              # prints the commands
    python experiments/detection/backbones.py outputs      # reads what they left in outputs/, writes backbones.csv

One epoch of the recipes for generated scenes. Pairs share their seed: the pyramid's and the heads' first weights, the
order of the images and their augmentation.
"""

import csv
import statistics
import sys
from pathlib import Path
from typing import Any

from scipy.stats import ttest_rel

from ghostexp.runs.directory import RunDirectory

HERE = Path(__file__).parent
CLASSIFIER = "outputs/classifier"
ONE_EPOCH = "trainer.max_epochs=1 trainer.check_val_every_n_epoch=1"
DETECTORS = ("retinanet", "faster_rcnn")
TRAIN = f"""
python -m ghostexp model=ghostnet datamodule=cifar10 datamodule.batch_size=128 trainer.max_epochs=3 \\
    hydra.run.dir={CLASSIFIER}
"""
SWEEP = f"""
python -m ghostexp -m experiment={{0}}_shapes {ONE_EPOCH} seed=0,1,2 \\
    model.backbone.weights=null,{CLASSIFIER} name=backbones_{{0}}
"""


def figures(run: Path) -> dict[str, float]:
    """The losses of a finished run's epoch, and its mAP on the test set in percent."""
    result: Any = RunDirectory(run).read_result()
    assert result is not None, f"{run}: not finished"
    losses = {name: value for name, value in result["metrics"]["last"].items() if name.startswith("train/loss")}
    return {**losses, "test/map": result["metrics"]["test"]["test/map"]}


def variants(sweep: Path) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """The figures of the runs from drawn weights and of those from trained ones, seed by seed."""
    runs = sorted(path for path in sweep.iterdir() if "seed-" in path.name)
    drawn = [figures(run) for run in runs if "weights-null" in run.name]
    trained = [figures(run) for run in runs if "weights-null" not in run.name]
    return drawn, trained


def main() -> None:
    """Print the commands, or the tables of what they left."""
    if len(sys.argv) < 2:
        print(TRAIN.strip(), *(SWEEP.format(detector).strip() for detector in DETECTORS), sep="\n")
        return
    rows = []
    print("| one epoch, 3 seeds | drawn | trained | difference (95 % interval) |\n| --- | --- | --- | --- |")
    for detector in DETECTORS:
        drawn, trained = variants(Path(sys.argv[1]) / f"backbones_{detector}")
        for name in drawn[0]:
            before, after = ([one[name] for one in variant] for variant in (drawn, trained))
            interval = ttest_rel(after, before).confidence_interval(0.95)
            means = statistics.mean(before), statistics.mean(after)
            shown = f"{means[1] - means[0]:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
            print(f"| {detector}, {name} | {means[0]:.3f} | {means[1]:.3f} | {shown} |")
            rows += [(detector, name, seed, *pair) for seed, pair in enumerate(zip(before, after, strict=True))]
    with (HERE / "backbones.csv").open("w", newline="") as file:
        header = ["detector", "figure", "seed", "drawn", "trained"]
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    main()
