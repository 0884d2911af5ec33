"""Sentences, claims, tables and published results of a report agree with the numbers."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from ghostexp.report.build_study import build_study
from ghostexp.report.load_runs import find_study
from ghostexp.report.plot_style import describe_means
from ghostexp.report.plots import draw_accuracy
from ghostexp.report.published import published_results
from ghostexp.report.readme import write_report
from ghostexp.report.tables import cells, latex, markdown, variant_rows
from ghostexp.report.text import claim_text, notes, setting, summary, training_time
from ghostexp.report.variants import Study
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.metrics import Metric
from tests.report.fake_runs import finish, start, study


def study_at(folder: Path, accuracies: Mapping[int, Sequence[float]]) -> Study:
    return build_study("mine", find_study(study(folder, accuracies)))


def test_summary_agrees_with_intervals(tmp_path: Path) -> None:
    unclear = {2: [95.5, 93.5, 95.8], 3: [95.5, 93.5, 96.2]}
    clear = {1: [95.0, 94.0, 96.0], 4: [96.0, 95.1, 97.0], 10: [90.0, 89.1, 90.9]}
    found = study_at(tmp_path, {**clear, **unclear})
    assert summary(found) == (
        "Test accuracy against s = 1, in points with 95 % intervals over common seeds, 4 variants compared: "
        "lower for s = 10 (-5.00 [-5.25, -4.75]); higher for s = 4 (+1.03 [+0.89, +1.18]); "
        "no difference that 3 seeds could show for s = 2 (-0.07 [-1.34, +1.21]), s = 3 (+0.07 [-1.21, +1.34]). "
        "The highest mean is that of s = 4: 96.03 % [93.67, 98.39], n = 3."
    )


def test_summary_of_two_seeds_speaks_of_no_intervals(tmp_path: Path) -> None:
    assert summary(study_at(tmp_path, {1: [95.0, 94.0], 2: [94.0, 93.5]})) == (
        "Test accuracy against s = 1, in points, 1 variant compared: without an interval (fewer than three common "
        "seeds): s = 2 (-0.75 {-1.00, -0.50}). The highest mean is that of s = 1: 94.50 % {95.00, 94.00}, n = 2."
    )


@pytest.mark.parametrize(
    ("tens", "wanted"),
    [
        ([91.0, 90.1, 92.1], "**holds** for s = 10 (-3.93 [-4.08, -3.79])"),
        ([90.0, 89.1, 91.0], "**does not hold** for s = 10 (-4.97 [-5.11, -4.82])"),
        ([91.5, 88.0, 93.0], "is **undecided** for s = 10 (-4.17 [-8.16, -0.17])"),
        ([91.0, 88.0, 92.0], "is **undecided** for s = 10 (-4.67 [-7.54, -1.80])"),
        ([91.0], "is **undecided** for s = 10 (-4.00, no interval)"),
    ],
)
def test_claim_text_states_whether_the_claim_holds(tens: list[float], wanted: str, tmp_path: Path) -> None:
    found = claim_text(study_at(tmp_path, {1: [95.0, 94.0, 96.0], 10: tens}))
    assert "Ghost-ResNet-56 on CIFAR-10" in found
    assert f"For ghost_resnet20 on digits (not the network and data of the claim), this {wanted}." in found


def test_claim_text_needs_ratios_10_and_1(tmp_path: Path) -> None:
    assert claim_text(study_at(tmp_path / "a", {1: [95.0, 94.0], 5: [91.0, 90.0]})) == ""
    assert claim_text(study_at(tmp_path / "b", {2: [95.0, 94.0], 10: [91.0, 90.0]})) == ""


def test_notes_name_single_and_unpaired_seeds(tmp_path: Path) -> None:
    found = study_at(tmp_path, {1: [95.0], 2: [94.0, 93.0, 94.5]})
    row, other = markdown(cells(found)).splitlines()[2:]
    assert row.startswith("| s = 1 | 1 | 95.00 |  |  | baseline |")
    assert "| -1.00 (1 pair: no interval) |" in other
    assert "without an interval (fewer than three common seeds): s = 2 (-1.00)" in summary(found)
    text = "\n".join(notes(found))
    assert "n = 1: a single seed has neither a standard deviation nor an interval" in text
    assert "s = 2: seeds 1, 2 are not common with s = 1" in text
    assert [variant_rows(found)[0][key] for key in ("accuracy_sd", "accuracy_low", "pairs")] == ["", "", ""]


def test_table_names_different_machines(tmp_path: Path) -> None:
    same = study_at(tmp_path / "a", {1: [95.0, 94.0], 2: [94.0, 93.0]})
    assert "hardware" not in cells(same)[0]
    folder = study(tmp_path / "b", {1: [95.0, 94.0], 2: [94.0, 93.0]})
    finish(start(folder / "ratio-2_seed-1", 1, {"model.ratio": 2}), 93.0, hardware="another", accelerator="cuda")
    rows = cells(build_study("b", find_study(folder)))
    assert [row[rows[0].index("hardware")] for row in rows[1:]] == [
        "a machine, 1 thread",
        "a machine, 1 thread; another",
    ]


VGG = {"model": "ghost_vgg16", "datamodule": "cifar10", "scheduler": "cosine"}
RESNET = VGG | {"model": "ghost_resnet56"}
B = {"model.network": {"shortcut": "B"}}


@pytest.mark.parametrize(
    ("choices", "changes", "wanted"),
    [
        (VGG, {}, [("paper", 93.7), ("replication", 93.63), ("replication", 92.83)]),
        (VGG, {"model.ratio": 5}, [("paper", 92.9)]),
        (VGG, {"model.ratio": 1}, [("paper", 93.6)]),  # the baseline, under either name
        (VGG, {"model.dw_size": 7}, [("paper", 93.1)]),
        (VGG, {"model.norm_act": "bn"}, []),
        (VGG, {"model.exclude": ["first"]}, []),
        (VGG, {"datamodule.train_fraction": 0.1}, []),
        (VGG, {"model.network": {"head": "linear"}}, []),
        (RESNET, {"model.dw_size": 1, "model.network": {"shortcut": "A", "width": 0.25}}, []),
        (VGG, {"model.plan": {"name": "fast", "layers": {"features.0": {"ratio": 4}}}}, []),
        (VGG | {"datamodule": "cifar100"}, {}, []),
        (VGG, {"datamodule.validate_on": "holdout"}, [("paper", 93.7), ("replication", 92.89)]),
        (RESNET, B, [("replication", 92.2), ("replication", 91.3)]),
        (RESNET | {"scheduler": "multistep"}, B, [("replication", 92.55)]),
        (RESNET, {"model.dw_size": 1}, [("paper", 92.7)]),
        (RESNET, {"model.ratio": 1}, [("paper", 93.0)]),
        (RESNET, {"model.ratio": 1} | B, []),
        (
            {"model": "ghostnet", "datamodule": "image_folder"},
            {"datamodule.num_classes": 1000, "model.width": 0.5},
            [("paper", 66.2)],
        ),
        ({"model": "ghostnet", "datamodule": "image_folder"}, {"datamodule.num_classes": 5, "model.width": 0.5}, []),
        (
            {"model": "ghostnet", "datamodule": "image_folder"},
            {"datamodule.num_classes": 1000, "model.width": 0.5, "datamodule.image_size": 32},
            [],
        ),
        (
            {"model": "ghostnet", "datamodule": "image_folder"},
            {"datamodule.num_classes": 1000, "model.width": 0.5, "model.se_ratio": 0},
            [],
        ),
    ],
)
def test_published_results_match_network_and_data(
    choices: dict[str, str], changes: dict[str, Any], wanted: list[tuple[str, float]], tmp_path: Path
) -> None:
    finish(start(tmp_path / "run", 0, changes, choices), 92.0)
    (variant,) = build_study("mine", find_study(tmp_path)).variants
    assert [(row.who, row.accuracy) for row in published_results(variant)] == wanted


def test_images_of_class_folders_have_no_published_results(tmp_path: Path) -> None:
    for ratio, accuracy in ((1, 82.0), (10, 75.0)):
        for seed in (0, 1, 2):
            run = start(tmp_path / f"{ratio}-{seed}", seed, {"model.ratio": ratio}, RESNET)
            finish(run, accuracy, data_format="class folders")
    found = build_study("mine", find_study(tmp_path))
    assert [published_results(variant) for variant in found.variants] == [[], []]
    assert "(not the network and data of the claim), this **does not hold**" in claim_text(found)
    assert len([line for line in notes(found) if line.startswith("The images are folders of image files")]) == 1
    finish(start(tmp_path / "original" / "run", 3, {"model.ratio": 1}, RESNET), 82.0, data_format="original files")
    original = build_study("mine", find_study(tmp_path / "original"))
    assert not [line for line in notes(original) if "folders" in line]


def test_table_has_difference_to_published_results(tmp_path: Path) -> None:
    finish(start(tmp_path / "run", 0, {}, VGG), 93.2)
    rows = cells(build_study("mine", find_study(tmp_path)))
    row = dict(zip(*rows, strict=True))
    assert row["paper, % (ours minus it)"] == "93.70 (-0.50)"
    assert row["replication, % (ours minus it)"] == "93.63 (-0.43); 92.83 (+0.37)"


def test_latex_table_is_complete_and_escaped(tmp_path: Path) -> None:
    found = study_at(tmp_path, {1: [95.0, 94.0, 94.5], 2: [94.0, 93.5, 94.0]})
    text = latex(cells(found, in_millions=True), "50 % of_a & #1 {x}", "my_study")
    assert r"\caption{50 \% of\_a \& \#1 \{x\}}" in text
    assert r"\label{tab:my-study}" in text
    assert text.count(r"\begin{") == text.count(r"\end{")
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    (columns,) = re.findall(r"\\begin\{tabular\}\{(l?r+)\}", text)
    rows = text.partition(r"\midrule")[2].partition(r"\bottomrule")[0].strip().splitlines()
    assert len(rows) == 2
    assert all(row.endswith(r" \\") and row.count(" & ") == len(columns) - 1 for row in rows)
    assert r"$-$0.67 [$-$1.38, $+$0.05] & 0.14 & 1.26 &" in rows[1]


def test_notes_name_incomparable_speeds(tmp_path: Path) -> None:
    folder = study(tmp_path / "study", {1: [95.0, 95.0], 2: [94.0, 94.0]})
    assert not [line for line in notes(build_study("study", find_study(folder))) if "other work ran" in line]
    run = RunDirectory(folder / "ratio-2_seed-1")
    run.write_result((run.read_result() or {}) | {"images_per_second": 400.0})
    (line,) = [line for line in notes(build_study("study", find_study(folder))) if "other work ran" in line]
    assert "by a factor of up to 2.5" in line


def test_speeds_are_compared_on_one_machine(tmp_path: Path) -> None:
    folder = study(tmp_path / "study", {1: [95.0, 95.0], 2: [94.0, 94.0], 3: [93.0, 93.0], 4: [92.0, 92.0]})

    def speeds() -> tuple[list[str], list[str]]:
        found = build_study("study", find_study(folder))
        lines = [line for line in notes(found) if "Not comparable in speed" in line]
        return [variant.label for variant in found.timed_variants], lines

    assert speeds() == (["s = 1", "s = 2", "s = 3", "s = 4"], [])
    for run in ("ratio-2_seed-1", "ratio-4_seed-0", "ratio-4_seed-1"):
        finish(start(folder / run, int(run[-1]), {"model.ratio": int(run[6])}), 90.0, hardware="another")
    left_out = "Not comparable in speed, as they ran on other hardware or on several: s = 2; s = 4."
    assert speeds() == (["s = 1", "s = 3"], [left_out])


def test_notes_add_up_the_time_of_training(tmp_path: Path) -> None:
    found = study_at(tmp_path, {1: [95.0, 94.0, 96.0], 2: [94.0, 95.0, 95.0]})
    assert "The training of 6 runs took 2.0 minutes in all, evaluation not counted." in notes(found)
    assert training_time([90.0]) == "The training of 1 run took 1.5 minutes in all, evaluation not counted."
    assert training_time([3600.0, 1800.0]) == "The training of 2 runs took 1.5 hours in all, evaluation not counted."


def test_signed_omits_sign_of_zero() -> None:
    percent, loss = Metric("test/acc1"), Metric("test/loss")
    values = (-0.004, 0.0, 0.004, -0.006, 1.0)
    assert [percent.signed(value) for value in values] == ["0.00", "0.00", "0.00", "-0.01", "+1.00"]
    assert [loss.signed(value) for value in (-0.0, -0.00412345, 1.0)] == ["0", "-0.004123", "+1"]


def study_of(folder: Path, monitor: str, mode: str | None, values: dict[int, list[float]]) -> Study:
    """Build a study of another metric: its values by ratio, of seeds 0, 1, 2, ..."""
    for ratio, of_seeds in values.items():
        for seed, value in enumerate(of_seeds):
            others = {"monitor": monitor} | ({"monitor_mode": mode} if mode else {})
            metrics = {"test": {"test/acc1": 90.0, f"test/{monitor}": value}}
            run = start(folder / f"ratio-{ratio}_seed-{seed}", seed, {"model.ratio": ratio}, RESNET)
            finish(run, 90.0, metrics=metrics, macs=2_516_608 // ratio, **others)
    return build_study("mine", find_study(folder))


@pytest.mark.parametrize(("monitor", "mode"), [("loss", None), ("hinge", "min")])
def test_less_of_a_falling_metric_is_better(tmp_path: Path, monitor: str, mode: str | None) -> None:
    found = study_of(tmp_path, monitor, mode, {1: [0.052, 0.051, 0.053], 2: [0.91, 0.92, 0.9]})
    assert summary(found) == (
        f"Test {monitor} against s = 1, with 95 % intervals over common seeds, 1 variant compared: "
        "higher for s = 2 (+0.858 [+0.8307, +0.8853]). "
        "The lowest mean is that of s = 1: 0.052 [0.04952, 0.05448], n = 3."
    )
    assert not found.metric.higher_is_better


def test_metric_without_unit_is_no_percentage_and_has_no_published_values(tmp_path: Path) -> None:
    found = study_of(tmp_path, "f1", "max", {1: [0.931, 0.939, 0.935], 10: [-0.02, -0.01, -0.015]})
    head, *rows = cells(found)
    assert head[2:6] == ["test f1", "sd", "95 % interval", "difference to s = 1"]
    assert rows[0][2:5] == ["0.935", "0.004", "[0.9251, 0.9449]"]
    assert rows[1][4] == "[-0.02742, -0.002579]"  # not clipped to what an accuracy can be
    assert not [name for name in head if "ours minus it" in name]
    assert [row["f1_mean"] for row in variant_rows(found)] == [0.935, -0.015]
    assert claim_text(found) == ""
    assert draw_accuracy(found, "", tmp_path / "accuracy.png")


def test_setting_has_only_what_all_runs_have(tmp_path: Path) -> None:
    for number, (optimizer, rate, fraction) in enumerate([("adamw", 0.001, 0.1), ("sgd", 0.2, 1.0)]):
        changes = {"optimizer.lr": rate, "datamodule.train_fraction": fraction}
        run = start(tmp_path / str(number), 0, changes, {"optimizer": optimizer})
        finish(run, 90.0, test_checkpoint=("last", "best")[number], baselines={"1-NN": 80.0 + 18 * number})
    found = build_study("mine", find_study(tmp_path))
    assert setting(found).startswith("ghost_resnet20 on digits, ")
    assert "learning rate" not in setting(found)
    assert "adamw" not in setting(found)
    assert "10 %" not in setting(found)
    assert setting(found).endswith("tested at the best epoch on the validation set or the last epoch.")
    assert "Without a network: 1-NN has 80.00 to 98.00 %, depending on the data of a variant." in notes(found)


def test_variant_without_its_baseline_is_not_compared(tmp_path: Path) -> None:
    jobs = {}
    for ratio, rate, state in [(1, 0.1, "ok"), (2, 0.1, "ok"), (1, 0.2, "failed"), (2, 0.2, "ok"), (1, 0.4, "missing")]:
        name = f"ratio-{ratio}_lr-{rate}_seed-0"
        jobs[name] = [f"model.ratio={ratio}", f"optimizer.lr={rate}", "seed=0"]
        if state != "missing":
            run = start(tmp_path / name, 0, {"model.ratio": ratio, "optimizer.lr": rate})
            if state == "ok":
                finish(run, 90.0 + ratio)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"study": "s", "jobs": jobs}))
    found = build_study("s", find_study(tmp_path))
    baseline, compared, alone = found.variants
    assert (compared.label, compared.baseline) == ("lr = 0.1", baseline)
    assert (alone.label, alone.baseline) == ("lr = 0.2", None)
    head, *rows = cells(found)
    column = head.index("difference to s = 1, points")
    assert [row[column] for row in rows] == ["baseline", "+1.00 (1 pair: no interval)", "no baseline"]
    text = "Not compared, as no baseline with the same values of the other keys is finished: lr = 0.2."
    assert text in notes(found)


def test_report_compares_detectors_by_map(tmp_path: Path) -> None:
    folder = study(tmp_path / "study", {1: [25.0, 26.0], 2: [24.0, 24.5]})
    for path in folder.glob("*/result.json"):
        result = json.loads(path.read_text())
        result["metrics"]["test"] = {"test/map": result["metrics"]["test"]["test/acc1"], "test/map_50": 60.0}
        path.write_text(json.dumps(result))
        metrics = path.with_name("metrics.csv")
        metrics.write_text(metrics.read_text().replace("val/acc1", "val/map"))
    text = write_report(build_study("study", find_study(folder)), "Boxes", [], tmp_path / "page")
    assert "**Test mAP against s = 1, in points" in text
    assert "| test mAP, % |" in text
    assert "![Test mAP against what is varied](accuracy.png)" in text
    assert {"accuracy.png", "curves.png"} <= {path.name for path in (tmp_path / "page").iterdir()}
    assert "mAP" in (tmp_path / "page" / "results.csv").read_text().splitlines()[0].split(",")


def test_two_seeds_are_shown_as_values(tmp_path: Path) -> None:
    found = study_at(tmp_path, {1: [95.0, 55.0], 2: [94.0, 93.0]})
    text = markdown(cells(found))
    assert "| s = 1 | 2 | 75.00 | 28.28 | {95.00, 55.00} | baseline |" in text
    assert "| {94.00, 93.00} | +18.50 {-1.00, +38.00} |" in text
    assert "(fewer than three common seeds): s = 2 (+18.50 {-1.00, +38.00})." in summary(found)
    assert any(line.startswith("n = 2: {braces} have the two values") for line in notes(found))
    assert [variant_rows(found)[0][key] for key in ("accuracy_low", "difference_low")] == ["", ""]
    assert describe_means(found.variants) == "means (n = 2), without intervals"
