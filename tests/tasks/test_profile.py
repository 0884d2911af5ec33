"""`task=profile` through the command line."""

import csv
from pathlib import Path
from typing import Any

import pytest

from ghostexp.analysis import latency
from ghostexp.models.base import Network
from tests.cli import command, in_directory
from tests.training.test_fit import result_of

PROFILE = (
    "task=profile",
    "task.repeats=2",
    "task.batch_sizes=[1,3]",
    "task.modes=[fused]",
    "threads=1",
    "datamodule=fake",
)


def test_profile_measures_cost_and_latency(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert command(*PROFILE, "model=ghost_resnet20", "task.show_flops=true", in_directory(run)) == 0
    result, out = result_of(run), capsys.readouterr().out
    assert (result["task"], result["params"], result["image"]) == ("profile", 138970, [3, 32, 32])
    assert result["flops"] == 2 * result["macs"]
    assert result["macs_primary"] + result["macs_cheap"] + 640 == result["macs"]  # 640: the linear layer
    assert set(result["time_fractions"]) == {"primary", "cheap"}
    assert [(row["mode"], row["batch"]) for row in result["latency"]] == [
        ("eager", 1),
        ("fused", 1),
        ("eager", 3),
        ("fused", 3),
    ]
    rows = list(csv.DictReader((run / "layers.csv").open()))
    assert sum(int(row["macs"]) for row in rows) == result["macs"]
    assert len(list(csv.DictReader((run / "latency.csv").open()))) == 4
    for text in ("which the GhostNet papers call FLOPs", "by thop", f"{result['macs']:,}", "layer1.0.conv1", "fused"):
        assert text in out


def test_profile_counts_deployed_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("model=ghostnetv3", "model.width=0.5", "task.modes=[]", "task.batch_sizes=[1]", "task.repeats=1")
    assert command(*PROFILE, "datamodule.image_size=64", *arguments, in_directory(tmp_path / "run")) == 0
    result = result_of(tmp_path / "run")
    assert result["macs_deployed"] < result["macs"] / 2
    assert result["params_deployed"] < result["params"]
    assert f"{result['macs_deployed']:,} MACs: training branches fused" in capsys.readouterr().out


def test_profile_takes_single_batch_size_and_mode(tmp_path: Path) -> None:
    arguments = ("model=resnet20", "task.batch_sizes=3", "task.modes=fused", "task.repeats=1", "threads=1")
    assert command("task=profile", "datamodule=fake", *arguments, in_directory(tmp_path / "run")) == 0
    assert [(row["mode"], row["batch"]) for row in result_of(tmp_path / "run")["latency"]] == [
        ("eager", 3),
        ("fused", 3),
    ]


def test_profile_measures_seven_modes_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def build(network: Network, modes: list[str], *rest: Any) -> dict[str, Any]:
        asked.append(modes)
        return latency.build_modes(network, ["eager"], *rest)

    monkeypatch.setattr("ghostexp.tasks.profile.build_modes", build)
    arguments = ("model=resnet20", "datamodule=fake", "task.batch_sizes=1", "task.repeats=1", "threads=1")
    assert command("task=profile", *arguments, in_directory(tmp_path / "run")) == 0
    (modes,) = asked
    assert len(modes) == 7
    flags = {flag for mode in modes for flag in mode.split("+")}
    assert flags == {"eager", "bf16", "channels_last", "compiled", "fused"}


def test_profile_of_random_weights_has_small_rounding(tmp_path: Path) -> None:
    arguments = ("model=ghostnetv2", "datamodule.image_size=64", "task.batch_sizes=[1]", "task.repeats=1")
    assert command(*PROFILE, *arguments, in_directory(tmp_path / "run")) == 0
    assert result_of(tmp_path / "run")["latency"][1]["difference"] < 1e-3


def test_profile_of_run_is_written_to_its_directory(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tiny_run
    assert command(*PROFILE[:-2], f"run={run}") == 0
    assert result_of(run / "profile")["params"] == result_of(run)["params"]
    assert "thop" not in capsys.readouterr().out
