"""Compare a student on a tenth of the digits with and without a teacher trained on all: commands, results.csv, table.

    python experiments/distillation/paired_table.py               # prints the commands
    python experiments/distillation/paired_table.py outputs       # reads the runs in outputs/, writes results.csv

Student and settings are the same with and without teacher; both runs of a pair have the same seed: initial
weights, order and shifts of the images. Temperature and weight are the best of four, and the learning rate without
teacher the best of three, by means over seeds 100 to 102 on a validation set cut from the training set.
"""

import csv
import statistics
import sys
from pathlib import Path

from scipy.stats import ttest_rel

from ghostexp.runs.directory import RunDirectory

HERE = Path(__file__).parent
TEACHER = "outputs/teacher"
STUDENT = "datamodule.train_fraction=0.1 trainer.max_epochs=200 trainer.check_val_every_n_epoch=20 threads=1"
TUNE = f"{STUDENT} datamodule.validate_on=holdout seed=100,101,102"
SEEDS = range(10)
COMMANDS = f"""
python -m ghostexp model=resnet20 trainer.max_epochs=25 threads=1 hydra.run.dir={TEACHER}
python -m ghostexp -m {TUNE} optimizer.lr=0.02,0.05,0.2 name=tune_plain
python -m ghostexp -m {TUNE} loss.distill.weight=0.5,0.9 loss.distill.temperature=1,4 loss.distill.teacher={TEACHER} \\
    name=tune_distilled
python -m ghostexp -m {STUDENT} 'seed=range(10)' name=plain
python -m ghostexp -m {STUDENT} 'seed=range(10)' loss.distill.teacher={TEACHER} name=distilled
"""


def main() -> None:
    """Print the commands, or the tables of their runs."""
    if len(sys.argv) < 2:
        print(COMMANDS.strip())
        return
    outputs = Path(sys.argv[1])
    for sweep in ("tune_plain", "tune_distilled"):
        show_tuning(outputs / sweep)
    plain, distilled = (
        [accuracy(outputs / variant / f"seed-{seed}") for seed in SEEDS] for variant in ("plain", "distilled")
    )
    with (HERE / "results.csv").open("w", newline="") as file:
        rows = zip(SEEDS, plain, distilled, strict=True)
        csv.writer(file, lineterminator="\n").writerows([["seed", "plain_test_acc1", "distilled_test_acc1"], *rows])
    print(f"\nteacher: {accuracy(outputs / 'teacher'):.2f} % on the test set")
    print("| on a tenth of the digits, 10 seeds | test accuracy, % | lowest | highest |\n| --- | --- | --- | --- |")
    for name, values in (("alone", plain), ("with teacher", distilled)):
        spread = f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"
        print(f"| {name} | {spread} | {min(values):.2f} | {max(values):.2f} |")
    interval = ttest_rel(distilled, plain).confidence_interval(0.95)
    difference = statistics.mean(distilled) - statistics.mean(plain)
    print(f"\npaired difference {difference:+.2f} points, 95 % t-interval {interval.low:+.2f} to {interval.high:+.2f}")
    wins = sum(with_teacher > alone for with_teacher, alone in zip(distilled, plain, strict=True))
    print(f"better with the teacher in {wins} of {len(plain)} seeds")


def accuracy(run: Path, split: str = "test") -> float:
    """Return the top-1 accuracy of a finished run in percent, rounded as the number of images allows."""
    result = RunDirectory(run).read_result()
    assert result is not None, f"{run}: not finished"
    metrics = result["metrics"][split]
    return round(metrics["test/acc1" if split == "test" else "val/acc1"], 2)


def show_tuning(sweep: Path) -> None:
    """Print the mean validation accuracy of each setting over its seeds."""
    settings: dict[str, list[float]] = {}
    for run in sorted(path for path in sweep.iterdir() if path.is_dir()):
        settings.setdefault(run.name.partition("_")[2], []).append(accuracy(run, "last"))
    for setting, values in settings.items():
        print(f"{sweep.name:<12} {setting:<28} {statistics.mean(values):.2f} % on validation images")


if __name__ == "__main__":
    main()
