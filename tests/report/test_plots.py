"""The values that the plots of a report show."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ghostexp.report.build_study import build_study
from ghostexp.report.curves import curve, curve_panels, has_different_means
from ghostexp.report.finalists import pareto_set
from ghostexp.report.load_runs import find_study
from ghostexp.report.plot_style import axis_key, axis_positions, group_series
from ghostexp.report.plots import draw_pareto
from ghostexp.report.variants import Study, Variant
from tests.report.fake_runs import finish, start, study


def test_curve_has_values_of_seeds_with_the_epoch(tmp_path: Path) -> None:
    folder = study(tmp_path, {1: [90.0, 92.0]})
    metrics = folder / "ratio-1_seed-1" / "metrics.csv"
    metrics.write_text("step,epoch,val/acc1,lr\n2,1,71.0,0.1\n4,2,,0.05\n")
    (variant,) = build_study("mine", find_study(folder)).variants
    assert curve(variant, "val/acc1") == {1: [70.0, 71.0], 2: [80.0], 3: [90.0]}
    assert curve(variant, "lr")[2] == [0.05, 0.05]


def test_learning_rates_of_two_and_three_seeds_are_equal() -> None:
    """The means of 0.1 differ by rounding: 0.1 and 0.10000000000000002."""
    assert not has_different_means([{1: [0.1] * 2}, {1: [0.1] * 3}, {}])
    assert has_different_means([{1: [0.1]}, {1: [0.1001]}])
    assert has_different_means([{1: [0.1]}, {1: [0.1], 2: [0.1]}])


def test_only_panel_of_curves_has_no_title(tmp_path: Path) -> None:
    """Its variants are not all of the series that would name it."""
    for number, (ratio, norm_act) in enumerate([(1, "bn"), (2, "bn"), (4, "bn"), (1, "none")]):
        finish(start(tmp_path / str(number), 0, {"model.ratio": ratio, "model.norm_act": norm_act}), 90.0)
    found = build_study("mine", find_study(tmp_path))
    assert {title: len(variants) for title, variants in curve_panels(found).items()} == {"": 4}


def test_panels_of_curves_are_named_by_series(tmp_path: Path) -> None:
    for number, (scheduler, ratio) in enumerate([("cosine", 1), ("constant", 1), ("cosine", 2), ("constant", 2)]):
        finish(start(tmp_path / str(number), 0, {"model.ratio": ratio}, {"scheduler": scheduler}), 90.0)
    found = build_study("mine", find_study(tmp_path))
    assert {title: len(variants) for title, variants in curve_panels(found).items()} == {"s = 1": 2, "s = 2": 2}


def test_pareto_set_has_undominated_points() -> None:
    costs = dict(enumerate((4.0, 2.0, 2.0, 3.0, 1.0, 5.0)))
    figures = dict(enumerate((93.0, 92.0, 91.5, 91.0, 90.0, 91.0)))
    assert pareto_set(figures, costs) == [4, 1, 0]


def test_pareto_is_drawn_only_where_macs_differ_within_a_series(tmp_path: Path) -> None:
    for number, (scheduler, ratio) in enumerate([("cosine", 1), ("constant", 1), ("cosine", 2), ("constant", 2)]):
        run = start(tmp_path / "schedules" / str(number), 0, {"model.ratio": ratio}, {"scheduler": scheduler})
        finish(run, 90.0 + number, macs=1_000_000 // ratio)
    schedules = build_study("mine", find_study(tmp_path / "schedules"))
    assert draw_pareto(schedules, "", tmp_path / "equal.png") is None
    ratios = build_study("mine", find_study(study(tmp_path / "ratios", {1: [90.0], 2: [91.0]})))
    assert draw_pareto(ratios, "", tmp_path / "different.png")


def test_pareto_has_the_seeds_where_there_is_no_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[tuple[Figure, str]] = []

    def keep(figure: Figure, title: str, path: Path) -> Path:
        saved.append((figure, title))
        return path

    monkeypatch.setattr("ghostexp.report.plots.save", keep)
    folder = study(tmp_path / "study", {1: [95.0, 94.0], 2: [93.0, 92.0, 91.0]})
    assert draw_pareto(build_study("study", find_study(folder)), "", tmp_path / "pareto.png")
    ((figure, title),) = saved
    assert "; dots: seeds; " in title
    for axis in figure.axes:
        dots = [np.asarray(line.get_ydata()) for line in axis.lines if line.get_marker() == "."]
        assert [values.tolist() for values in dots] == [[95.0, 94.0]]


def test_pareto_has_seconds_only_of_variants_on_one_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, list[str]]] = []

    def against(_axis: Axes, _study: Study, variants: Sequence[Variant], key: str, _unit: float) -> None:
        drawn.append((key, [variant.label for variant in variants]))

    monkeypatch.setattr("ghostexp.report.plots._against", against)
    folder = study(tmp_path / "study", {1: [95.0], 2: [94.0], 4: [92.0]})
    for ratio, wanted in ((4, [("train_seconds", ["s = 1", "s = 2"])]), (2, [])):
        finish(start(folder / f"ratio-{ratio}_seed-0", 0, {"model.ratio": ratio}), 90.0, hardware=f"machine {ratio}")
        assert draw_pareto(build_study("study", find_study(folder)), "", tmp_path / f"{ratio}.png")
        assert drawn == [("macs", ["s = 1", "s = 2", "s = 4"]), *wanted]
        drawn.clear()


def test_axis_key_has_most_values_and_others_are_series(tmp_path: Path) -> None:
    for number, (norm_act, ratio) in enumerate([("none", 2), ("none", 4), ("none", 10), ("bn", 2), ("bn", 4)]):
        finish(start(tmp_path / str(number), 0, {"model.norm_act": norm_act, "model.ratio": ratio}), 90.0)
    found = build_study("mine", find_study(tmp_path))
    assert axis_key(found) == "model.ratio"
    assert axis_positions(found, "model.ratio") == {"2": 2.0, "4": 4.0, "10": 10.0}
    assert axis_positions(found, "model.norm_act") == {"none": 0.0, "bn": 1.0}
    assert {name: len(variants) for name, variants in group_series(found).items()} == {
        "norm_act = none": 3,
        "norm_act = bn": 2,
    }
