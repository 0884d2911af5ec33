"""Ghost networks beside ordinary networks of equal MACs."""

from pathlib import Path

import pytest

from ghostexp.report.build_study import build_study
from ghostexp.report.equal_cost import equal_cost_cells, equal_cost_summary
from ghostexp.report.load_runs import find_study
from ghostexp.report.plot_style import variant_styles
from ghostexp.report.readme import build_readme
from ghostexp.report.variants import Study
from tests.report.fake_runs import finish, start

WIDTH = "model.network.width"
# ratio, width, MACs and accuracy of seeds 0 to 2
VARIANTS = [
    (1, 1.0, 40_000_000, [90.0, 91.0, 92.0]),
    (2, 1.0, 21_000_000, [88.0, 89.5, 90.0]),
    (4, 1.0, 11_000_000, [84.0, 85.0, 86.0]),
    (1, 0.72, 21_700_000, [87.0, 88.0, 89.5]),
    (1, 0.7, 20_000_000, [87.0, 87.0, 87.0]),
    (1, 0.6, 13_000_000, [85.0, 86.0, 87.0]),
]


@pytest.fixture
def widths(tmp_path: Path) -> Study:
    for ratio, width, macs, accuracies in VARIANTS:
        for seed, accuracy in enumerate(accuracies):
            run = start(tmp_path / f"{ratio}-{width}-{seed}", seed, {"model.ratio": ratio, WIDTH: width})
            finish(run, accuracy, macs=macs)
    return build_study("widths", find_study(tmp_path), {"model.ratio": 1, WIDTH: 1.0})


def test_equal_cost_pairs_ghosts_with_nearest_ordinary_network(widths: Study) -> None:
    head, *rows = equal_cost_cells(widths)
    assert head[-1] == "accuracy, ghost minus ordinary, points"
    # (1.0, 1.5, 0.5): mean 1, standard error 0.2887, Student's factor 4.303; 13 M is more than 5 % from 11 M
    wanted = ["s = 2", "21,000,000", "s = 1, width = 0.72", "21,700,000", "+1.00 [-0.24, +2.24]"]
    assert rows == [wanted]
    assert equal_cost_summary(widths) == (
        "At equal MACs (within 5 %), a ghost network minus an ordinary one, in points: "
        "s = 2 against s = 1, width = 0.72: +1.00 [-0.24, +2.24]."
    )


def test_labels_omit_the_width_of_ghost_networks(widths: Study) -> None:
    thin = [f"s = 1, width = {width}" for width in (0.6, 0.7, 0.72)]
    assert [variant.label for variant in widths.variants] == [*thin, "s = 1", "s = 2", "s = 4"]


def test_labels_are_not_emptied(tmp_path: Path) -> None:
    for number, (ratio, width) in enumerate([(1, 0.72), (2, 1.0)]):
        finish(start(tmp_path / str(number), 0, {"model.ratio": ratio, WIDTH: width}), 90.0)
    assert [variant.label for variant in build_study("two", find_study(tmp_path)).variants] == ["s = 1", "width = 1.0"]


def test_ordinary_networks_have_hollow_markers(widths: Study) -> None:
    styles = variant_styles(widths)
    hollow = [variant.label for variant in widths.variants if "markerfacecolor" in styles[id(variant)]]
    assert hollow == [variant.label for variant in widths.variants if variant.values["model.ratio"] == 1]
    assert len(hollow) == 4
    assert len({tuple(look["color"]) for look in styles.values()}) == len(widths.variants)


def test_page_has_section_on_equal_macs_only_with_such_pairs(widths: Study) -> None:
    title = "## Ghost networks beside ordinary networks of equal MACs"
    page = build_readme(widths, "Widths", [], {})
    assert title in page
    assert f"**{equal_cost_summary(widths)}**" in page
    kept = [variant for variant in widths.variants if variant.values[WIDTH] == 1.0]
    without = build_readme(Study("ratios", widths.keys, kept, [], widths.baseline), "Ratios", [], {})
    assert title not in without
    assert "At equal MACs" not in without


def test_equal_cost_keeps_training_equal(tmp_path: Path) -> None:
    for number, (ratio, width, rate) in enumerate([(2, 1.0, 0.1), (1, 0.72, 0.2)]):
        changes = {"model.ratio": ratio, WIDTH: width, "optimizer.lr": rate}
        finish(start(tmp_path / str(number), 0, changes), 90.0, macs=21_000_000)
    found = build_study("rates", find_study(tmp_path))
    assert "optimizer.lr" in found.keys
    assert len(equal_cost_cells(found)) == 1
