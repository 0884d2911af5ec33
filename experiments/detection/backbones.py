"""Compare a pretrained backbone with random initialisation as the start of a detector: commands, CSV, table.

    python experiments/detection/backbones.py              # prints the commands
    python experiments/detection/backbones.py outputs      # reads the runs in outputs/, writes backbones.csv

One epoch of the recipes for generated images. Both runs of a pair have the same seed: initial weights of the pyramid
and the heads, order of the images and augmentation.
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
python -m ghostexp model=ghostnet datamodule=cifar10 datamodule.root=DIR datamodule.batch_size=128 \\
    trainer.max_epochs=3 threads=1 hydra.run.dir={CLASSIFIER}
"""
SWEEP = f"""
python -m ghostexp -m experiment=shapes/{{0}} {ONE_EPOCH} seed=0,1,2 threads=1 \\
    model.backbone.weights=null,{CLASSIFIER} name=backbones_{{0}}
"""


def read_metrics(run: Path) -> dict[str, float]:
    """Return the training losses of a finished run, and its mAP on the test set in percent."""
    result: Any = RunDirectory(run).read_result()
    assert result is not None, f"{run}: not finished"
    losses = {name: value for name, value in result["metrics"]["last"].items() if name.startswith("train/loss")}
    return {**losses, "test/map": result["metrics"]["test"]["test/map"]}


def variants(sweep: Path) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Return the metrics of the runs from scratch and of those with a pretrained backbone, seed by seed."""
    runs = sorted(path for path in sweep.iterdir() if "seed-" in path.name)
    scratch = [read_metrics(run) for run in runs if "weights-null" in run.name]
    pretrained = [read_metrics(run) for run in runs if "weights-null" not in run.name]
    return scratch, pretrained


def main() -> None:
    """Print the commands, or the tables of their runs."""
    if len(sys.argv) < 2:
        print(TRAIN.strip(), *(SWEEP.format(detector).strip() for detector in DETECTORS), sep="\n")
        return
    rows = []
    print("| one epoch, 3 seeds | from scratch | pretrained | difference (95 % interval) |\n| --- | --- | --- | --- |")
    for detector in DETECTORS:
        scratch, pretrained = variants(Path(sys.argv[1]) / f"backbones_{detector}")
        for name in scratch[0]:
            before, after = ([one[name] for one in variant] for variant in (scratch, pretrained))
            interval = ttest_rel(after, before).confidence_interval(0.95)
            means = statistics.mean(before), statistics.mean(after)
            shown = f"{means[1] - means[0]:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
            print(f"| {detector}, {name} | {means[0]:.3f} | {means[1]:.3f} | {shown} |")
            rows += [(detector, name, seed, *pair) for seed, pair in enumerate(zip(before, after, strict=True))]
    with (HERE / "backbones.csv").open("w", newline="") as file:
        header = ["detector", "metric", "seed", "scratch", "pretrained"]
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    main()
