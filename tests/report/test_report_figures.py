"""What the figures of a report are drawn from."""

from pathlib import Path

import pytest

from ghostexp.report.arms import study_of
from ghostexp.report.collect import find_study
from ghostexp.report.curves import curve
from ghostexp.report.drawing import axis_key, places_of, series_of
from ghostexp.report.figures import front
from tests.report.made_up import finish, start, study


def test_a_curve_has_the_values_of_all_seeds_that_have_the_epoch(tmp_path: Path) -> None:
    folder = study(tmp_path, {1: [90.0, 92.0]})
    metrics = folder / "ratio-1_seed-1" / "metrics.csv"
    metrics.write_text("step,epoch,val/acc1,lr\n2,1,71.0,0.1\n4,2,,0.05\n")
    (arm,) = study_of("mine", find_study(folder)).arms
    assert curve(arm, "val/acc1") == {1: [70.0, 71.0], 2: [80.0], 3: [90.0]}
    assert curve(arm, "lr")[2] == [0.05, 0.05]


@pytest.mark.parametrize(
    ("better", "wanted"),
    [(-1, [(1.0, 90.0), (2.0, 92.0), (4.0, 93.0)]), (1, [(4.0, 93.0), (5.0, 91.0)])],
)
def test_the_front_has_the_points_that_no_other_beats(better: int, wanted: list[tuple[float, float]]) -> None:
    points = [(4.0, 93.0), (2.0, 92.0), (2.0, 91.5), (3.0, 91.0), (1.0, 90.0), (5.0, 91.0)]
    assert front(points, better) == wanted


def test_the_axis_is_the_key_with_most_values_and_the_others_are_series(tmp_path: Path) -> None:
    for number, (form, ratio) in enumerate([("plain", 2), ("plain", 4), ("plain", 10), ("bn", 2), ("bn", 4)]):
        finish(start(tmp_path / str(number), 0, {"model.form": form, "model.ratio": ratio}), 90.0)
    found = study_of("mine", find_study(tmp_path))
    assert axis_key(found) == "model.ratio"
    assert places_of(found, "model.ratio") == {"2": 2.0, "4": 4.0, "10": 10.0}
    assert places_of(found, "model.form") == {"plain": 0.0, "bn": 1.0}
    assert {name: len(arms) for name, arms in series_of(found).items()} == {"form = plain": 3, "form = bn": 2}
