"""Profiles beside each other and beside the papers."""

from pathlib import Path
from typing import Any

import pytest

from ghostexp.report.profiles import Profile, draw, markdown, published, read_profile
from ghostexp.runs.directory import RunDirectory

COUNTS = {"params_deployed": 5_182_508, "macs_deployed": 141_150_512, "activations": 7, "peak_bytes": 2**20}
TIMES = [("eager", 1, 30.0), ("fused", 1, 20.0), ("fused", 16, 90.0)]


def finished(path: Path, fused: float = 20.0, **others: Any) -> RunDirectory:
    """A directory of a finished profile."""
    path.mkdir()
    times = [{"form": form, "batch": batch, "median_ms": ms} for form, batch, ms in TIMES]
    times[1]["median_ms"] = fused
    RunDirectory(path).write_result({"task": "profile", **COUNTS, "latency": times, **others})
    return RunDirectory(path)


def test_a_network_s_passes_are_one_row_with_their_median_and_range(tmp_path: Path) -> None:
    runs = [finished(tmp_path / str(number), ms) for number, ms in enumerate((20.0, 26.0, 21.0))]
    row = read_profile("mine", runs, "fused").row()
    assert (row["ms"], row["ms_low"], row["ms_high"]) == (21.0, 20.0, 26.0)
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
def test_a_published_network_is_known_by_its_counts(params: int, macs: int, name: str | None) -> None:
    row = published(params, macs)
    assert (row.name if row else None) == name


def test_a_run_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none: not a finished run of task=profile"):
        read_profile("mine", [RunDirectory(tmp_path / "none")], "fused")
    with pytest.raises(ValueError, match="fit: not a finished run of task=profile"):
        read_profile("mine", [finished(tmp_path / "fit", task="fit")], "fused")
    with pytest.raises(ValueError, match=r"a: task.forms has no compiled, or task.batches no 1"):
        read_profile("mine", [finished(tmp_path / "a")], "compiled")


def profile_of(name: str, ms: float, counts: tuple[int, int]) -> Profile:
    return Profile(name, *counts, 7, 2**20, (ms,), published(*counts))


def test_the_table_and_the_figure_have_all_that_the_papers_know(tmp_path: Path) -> None:
    known = profile_of("GhostNet 1.0x", 21.0, (5_182_508, 141_150_512))
    unknown = profile_of("mine", 5.0, (1, 1))
    lines = markdown([known, unknown]).splitlines()
    assert lines[2] == "| GhostNet 1.0x | 5.18 | 5.2 | 141.2 | 141 | 73.9 | 21.0 (21.0 to 21.0) |"
    assert lines[3] == "| mine | 0.00 |  | 0.0 |  |  | 5.0 (5.0 to 5.0) |"
    draw([known, unknown], tmp_path / "figure.png", "a machine")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
