"""Plots show names literally, never as mathematics."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.backends.backend_agg import RendererAgg
from PIL import Image

from ghostexp.report.boxes import AnnotatedImage, Box, plot_boxes
from ghostexp.report.build_study import build_study
from ghostexp.report.confusion import Mistake, draw_confusion, draw_mistakes
from ghostexp.report.layer_plots import MapGrid, draw_fits, draw_kernels, draw_kinds, draw_maps
from ghostexp.report.load_runs import find_study
from ghostexp.report.plot_style import new_figure, save
from ghostexp.report.readme import write_report
from tests.report.fake_runs import finish, start

REPORT = Path(__file__).parent.parent.parent / "ghostexp" / "report"
NAMES = ["n_$5_$", "c_$1$", "a\\b^c_%d{x}"]  # the first is invalid mathematics, the second would lose its dollars


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the texts of plots; fail on mathematics."""
    found: list[str] = []
    draw_text = RendererAgg.draw_text

    def record(
        self: RendererAgg, gc: Any, x: Any, y: Any, s: str, prop: Any, angle: Any, ismath: Any = False, **others: Any
    ) -> None:
        assert not ismath, s
        found.append(s)
        draw_text(self, gc, x, y, s, prop, angle, ismath, **others)

    monkeypatch.setattr(RendererAgg, "draw_text", record)
    return found


def test_class_names_are_literal(texts: list[str], tmp_path: Path) -> None:
    draw_confusion(np.eye(3, dtype=int), NAMES, "cost_$5_$", tmp_path / "a.png")
    assert {*NAMES, "cost_$5_$"} <= set(texts)
    mistakes = [Mistake(0, NAMES[0], NAMES[1], 0.9, 1.0)]
    draw_mistakes(np.zeros((1, 4, 4, 3)), mistakes, "cost_$5_$", tmp_path / "b.png")
    assert f"→ {NAMES[1]}, 90 %" in texts
    box = Box(1, 1, 5, 5, 0, NAMES[0])
    plot_boxes([AnnotatedImage(NAMES[0], Image.new("RGB", (8, 8)), [box], [box])], "cost_$5_$", tmp_path / "c.png")
    assert f"{NAMES[0]}: detections" in texts


def test_layer_names_are_literal(texts: list[str], tmp_path: Path) -> None:
    shown = MapGrid(np.zeros((1, 4, 4, 1)), [[np.zeros((1, 2, 2))]], [[NAMES[1]]], [NAMES[0]])
    draw_maps(shown, NAMES[2], tmp_path / "a.png")
    draw_kernels(np.ones((1, 3, 3)), [{"kind": "blur", "peak_fraction": 1.0}], NAMES[0], tmp_path / "b.png")
    kinds: dict[str, float] = dict.fromkeys(("identity", "shift", "blur", "edge", "mixed"), 0.2)
    draw_kinds({NAMES[1]: kinds}, NAMES[0], tmp_path / "c.png")
    draw_fits([{"layer": NAMES[2], "unexplained_3": 0.5}], [3], NAMES[0], tmp_path / "d.png")
    assert set(NAMES) <= set(texts)


def test_variant_labels_are_literal(texts: list[str], tmp_path: Path) -> None:
    jobs = {}
    for name, last in (("_$x_$", 0.1), ("b^2", 0.001)):
        jobs[name.strip("$_^")] = [f"scheduler={name}", "seed=0"]
        run = start(tmp_path / name.strip("$_^"), 0, {}, {"scheduler": name})
        finish(run, 90.0, macs=int(1e6 * (1 + last)))
        run.metrics.write_text(f"step,epoch,val/acc1,lr\n2,1,80,0.1\n4,2,90,{last}\n")
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"study": None, "jobs": jobs}))
    write_report(build_study("mine", find_study(tmp_path)), "cost_$5_$", [], tmp_path / "page")
    assert {path.stem for path in (tmp_path / "page").glob("*.png")} == {"accuracy", "curves", "differences", "pareto"}
    assert {"b^2", "0.001"} <= set(texts)
    assert sum(text.lstrip("\N{ZERO WIDTH SPACE}") == "_$x_$" for text in texts) >= 3  # legends leave out `_...`


def test_save_requires_literal_text(tmp_path: Path) -> None:
    assert [path.name for path in REPORT.glob("*.py") if "savefig" in path.read_text()] == ["plot_style.py"]
    with pytest.raises(AssertionError, match="literal_text"):
        save(new_figure(1, 1), "title", tmp_path / "a.png")
