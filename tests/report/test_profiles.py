"""Comparison of profiles with each other and with the papers."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from ghostexp.report.profiles import Profile, match_published_network, plot_profiles, profile_table, read_profile
from ghostexp.runs.directory import RunDirectory
from tests import shortcuts
from tests.cli import command

COUNTS = {"params_deployed": 5_182_508, "macs_deployed": 141_150_512, "activations": 7, "peak_bytes": 2**20}
TIMES = [("eager", 1, 30.0), ("fused", 1, 20.0), ("fused", 16, 90.0)]


def finished(path: Path, fused: float = 20.0, **others: Any) -> RunDirectory:
    """Write the directory of a finished profile."""
    path.mkdir(parents=True)
    times: list[dict[str, Any]] = [{"mode": mode, "batch": batch, "median_ms": ms} for mode, batch, ms in TIMES]
    times[1]["median_ms"] = fused
    times = [row | {"low_ms": row["median_ms"] - 1, "high_ms": row["median_ms"] + 2} for row in times]
    machine = {"hardware": "a machine", "threads": 1, "image": [3, 224, 224]}
    RunDirectory(path).write_config({"task": {"name": "profile"}})
    RunDirectory(path).write_result({"task": "profile", **COUNTS, **machine, "latency": times, **others})
    return RunDirectory(path)


def test_read_profile_has_counts_and_the_spread_of_repeats(tmp_path: Path) -> None:
    row = read_profile("mine", finished(tmp_path / "a", 20.0), "fused").row()
    assert (row["ms"], row["ms_low"], row["ms_high"]) == (20.0, 19.0, 22.0)
    assert (row["params"], row["macs"], row["peak_mib"]) == (5_182_508, 141_150_512, 1.0)
    assert (row["paper_params_m"], row["paper_macs_m"], row["paper_top1"]) == (5.2, 141, 73.9)


@pytest.mark.parametrize(
    ("params", "macs", "name"),
    [
        (5_182_508, 141_150_512, "GhostNet 1.0x"),
        (2_235_000, 141_000_000, "MobileNetV2 0.6x"),  # the same MACs, other parameters
        (25_557_032, 4_089_184_256, "ResNet-50"),
        (13_953_512, 2_151_000_000, None),  # ghost_resnet50, whose printed count no construction gives
        (5_182_508, 300_000_000, None),
        (6_156_908, 167_048_288, None),  # GhostNetV2 and V3 are printed with the same counts
    ],
)
def test_match_published_network_by_counts(params: int, macs: int, name: str | None) -> None:
    row = match_published_network(params, macs)
    assert (row.name if row else None) == name


def test_read_profile_names_unusable_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none: not a finished run of task=profile"):
        read_profile("mine", RunDirectory(tmp_path / "none"), "fused")
    with pytest.raises(ValueError, match="fit: not a finished run of task=profile"):
        read_profile("mine", finished(tmp_path / "fit", task="fit"), "fused")
    with pytest.raises(ValueError, match=r"a: task.modes has no compiled, or task.batch_sizes no 1"):
        read_profile("mine", finished(tmp_path / "a"), "compiled")


def profile_of(name: str, ms: float, counts: tuple[int, int]) -> Profile:
    return Profile(name, *counts, 7, 2**20, (ms,), match_published_network(*counts))


def test_profile_table_and_plot_have_published_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Figure, "savefig", shortcuts.savefig)
    known = profile_of("GhostNet 1.0x", 21.0, (5_182_508, 141_150_512))
    unknown = profile_of("mine", 5.0, (1, 1))
    lines = profile_table([known, unknown]).splitlines()
    assert lines[2] == "| GhostNet 1.0x | 5.18 | 5.2 | 141.2 | 141 | 73.9 | 21.0 (21.0 to 21.0) |"
    assert lines[3] == "| mine | 0.00 |  | 0.0 |  |  | 5.0 (5.0 to 5.0) |"
    plot_profiles([known, unknown], tmp_path / "figure.png", "a machine")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_report_task_compares_profiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path / "sweep" / "model-a")
    finished(tmp_path / "sweep" / "model-b", params_deployed=1)
    assert command("task=report", "name=sweep", f"output_dir={tmp_path}") == 0
    page = (tmp_path / "sweep" / "report" / "README.md").read_text()
    assert page.splitlines()[0] == "# sweep"
    assert "one image of 3 x 224 x 224" in page
    assert "Latency: fused, a machine, 1 thread, one after" in page
    assert "| a | 5.18 | 5.2 | 141.2 | 141 | 73.9 | 20.0 (19.0 to 22.0) |" in page
    assert "| b | 0.00 |  | 141.2 |" in page
    assert (tmp_path / "sweep" / "report" / "figure.png").is_file()
    assert page in capsys.readouterr().out


def test_report_has_the_counts_of_what_was_not_timed_with_one_image(tmp_path: Path) -> None:
    finished(tmp_path / "sweep" / "model-a")
    detector = finished(tmp_path / "sweep" / "model-detector", hardware="another")
    result = detector.read_result() or {}
    detector.write_result({key: value for key, value in result.items() if key != "latency"})
    assert command("task=report", "name=sweep", f"output_dir={tmp_path}") == 0
    page = (tmp_path / "sweep" / "report" / "README.md").read_text()
    assert "| a | 5.18 | 5.2 | 141.2 | 141 | 73.9 | 20.0 (19.0 to 22.0) |" in page
    assert "| detector | 5.18 | 5.2 | 141.2 | 141 | 73.9 |  |" in page
    assert "Networks without a time were not timed with one image" in page
    assert "Machines differ" in page


def test_profile_sweep_ends_with_table(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("task=profile", "model=resnet20,ghost_resnet20", "task.modes=[]", "task.batch_sizes=[1]", "task.repeats=1")
    assert command("-m", *words, "n_jobs=2", "name=costs", f"output_dir={tmp_path}") == 0
    page = (tmp_path / "costs_profile" / "report" / "README.md").read_text()
    assert "| resnet20 | 0.27 |" in page
    assert "| ghost_resnet20 | 0.14 |" in page
    assert "No network with a time has the counts of a published one" in page
    output = capfd.readouterr().out
    assert output.index("2 jobs finished") < output.index("# costs_profile")
