"""Test the measured latency as second objective: once per network, in turn with that of the first trial."""

import json
from pathlib import Path
from typing import Any

import pytest

from ghostexp.models.resnet_cifar import resnet20, resnet56
from ghostexp.runs.directory import RunDirectory
from ghostexp.sweeps.jobs import SweepJob
from ghostexp.sweeps.search import latency
from ghostexp.sweeps.search.latency import Latencies
from ghostexp.tasks.common import image_latency
from tests.cli import TINY, TINY_DETECTOR, command

IMAGES = {"in_chans": 3, "num_classes": 10, "image_size": 8}


def job(folder: Path, number: int, width: float) -> SweepJob:
    """Return the job of a trial, whose learning rate is its number."""
    config = {"model": {"width": width}, "datamodule": IMAGES, "optimizer": {"lr": number}}
    return SweepJob(RunDirectory(folder / f"trial-{number:04}_seed-0"), (), config)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float | None]]:
    """Pretend that the latency is the width; returns the widths of measured networks and of their references."""
    widths: list[tuple[float, float | None]] = []

    def measure(_: object, __: str, config: Any, reference: Any, reference_ms: float) -> tuple[dict[str, Any], None]:
        widths.append((config["model"]["width"], reference and reference["model"]["width"]))
        assert reference_ms == 1.0
        return {"latency_ms": config["model"]["width"]}, None

    monkeypatch.setattr(latency, "call_quietly", measure)
    monkeypatch.setattr(latency, "cpu", lambda: "a CPU (2 cores)")
    return widths


def provide(folder: Path, latencies: Latencies, number: int, width: float) -> float:
    """Provide a trial's latency, and start it; returns it."""
    trial = job(folder, number, width)
    latencies.provide(trial)
    trial.run.write_config(trial.config)
    found = trial.run.read_latency()
    assert found is not None
    return found["latency_ms"]


def test_each_network_is_measured_once_in_turn_with_the_first(
    measured: list[tuple[float, float | None]], tmp_path: Path
) -> None:
    latencies = Latencies(tmp_path)
    assert [provide(tmp_path, latencies, number, width) for number, width in enumerate((1.0, 3.0, 1.0))] == [1, 3, 1]
    latencies = Latencies(tmp_path)  # of the next command
    assert [provide(tmp_path, latencies, number, width) for number, width in ((3, 3.0), (4, 2.0))] == [3, 2]
    assert measured == [(1.0, None), (3.0, 1.0), (2.0, 1.0)]


def test_reference_is_found_again_whatever_its_name(measured: list[tuple[float, float | None]], tmp_path: Path) -> None:
    latencies = Latencies(tmp_path)
    for number, width in ((5, 1.0), (2, 3.0)):
        provide(tmp_path, latencies, number, width)
    provide(tmp_path, Latencies(tmp_path), 6, 2.0)
    assert measured[-1] == (2.0, 1.0)


@pytest.mark.usefixtures("measured")
def test_latencies_of_another_machine_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    provide(tmp_path, Latencies(tmp_path), 0, 1.0)
    monkeypatch.setattr(latency, "cpu", lambda: "a CPU (8 cores)")
    Latencies(tmp_path)
    monkeypatch.setattr(latency, "cpu", lambda: "another CPU (2 cores)")
    with pytest.raises(ValueError, match=r"latencies of another machine \(a CPU, this one is another CPU\); name="):
        Latencies(tmp_path)


def test_latency_is_that_of_the_reference_times_the_ratios_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [[2.0, 4.0, 6.0], [1.0, 1.0, 2.0]]
    monkeypatch.setattr(image_latency, "time_image", lambda networks: samples[: len(networks)])
    monkeypatch.setattr(image_latency, "_network", lambda config: config)
    alone, paired = image_latency.measure_latency({}), image_latency.measure_latency({}, {"model": {}}, 10.0)
    assert [alone[key] for key in ("low_ms", "latency_ms", "high_ms")] == [3.0, 4.0, 5.0]
    assert [paired[key] for key in ("low_ms", "latency_ms", "high_ms")] == [25.0, 30.0, 35.0]


def test_deeper_network_takes_longer() -> None:
    shape = (3, 8, 8)
    deep, shallow = image_latency.time_image([(resnet56(10), shape), (resnet20(10), shape)], rounds=5)
    assert len(deep) == len(shallow) == 5
    assert sorted(deep)[2] > 1.5 * sorted(shallow)[2]


def test_search_for_the_pareto_set_of_accuracy_and_latency(tmp_path: Path) -> None:
    data = (*TINY, "trainer.max_epochs=1", "datamodule.validate_on=holdout", "datamodule.holdout_fraction=0.5")
    search = ("model.width=choice(0.5,2)", "search=grid", "search.cost=latency_ms", "seed=0,1", "name=tuned")
    assert command("-m", *data, *search) == 0
    folder = tmp_path / "outputs" / "tuned"
    found = {
        path.parent.name: json.loads(path.read_text())["latency_ms"] for path in folder.glob("trial-*/latency.json")
    }
    assert {*found} == {"trial-0000_seed-0", "trial-0001_seed-0"}
    assert found["trial-0001_seed-0"] > found["trial-0000_seed-0"] > 0
    for name, value in found.items():
        assert json.loads((folder / name / "result.json").read_text())["latency_ms"] == value
    assert command("task=report", "name=tuned") == 0
    page = (folder / "report" / "README.md").read_text()
    assert "trials are the Pareto set of val/acc1 and latency_ms" in page
    assert f"| {found['trial-0000_seed-0']:.4g} |" in page or f"| {found['trial-0001_seed-0']:.4g} |" in page
    assert "latency_ms: one image on one thread of" in page


def test_latency_of_a_detector_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    space = ("optimizer.lr=interval(0.01,0.1)", "search=random", "search.cost=latency_ms", "search.tune_on_test=true")
    assert command("-m", *TINY_DETECTOR, *space) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: search.cost=latency_ms: needs a classifier")
