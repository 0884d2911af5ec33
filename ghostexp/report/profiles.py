"""Compare profiles of several networks with each other and with the papers: one table, one plot."""

import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ghostexp.report.plot_style import literal_text, save
from ghostexp.report.published import PublishedResult, read_published_tables
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.text_files import markdown_table

ACCURACIES = ("resnet50", "mobile", "ghostnetv2", "ghostnetv3")  # tables with top-1 on ImageNet
LINES = ("-", "--", "-.", ":")
MARKERS = "osD^vP*Xph"
TICKS = [digit * 10**power for power in range(-1, 5) for digit in (1, 2, 5)]  # of the logarithmic axes


@dataclass(frozen=True)
class Profile:
    """The profile of one network; milliseconds of one mode at batch 1, one or several measurements, or none."""

    name: str
    params: int
    macs: int
    activations: int
    peak_bytes: int
    milliseconds: tuple[float, ...]
    paper: PublishedResult | None

    @property
    def median_ms(self) -> float:
        return statistics.median(self.milliseconds)

    def row(self) -> dict[str, Any]:
        """Return the row of results.csv; columns of the paper are empty where it has no value."""
        printed: Mapping[str, float] = self.paper.metrics if self.paper else {}
        return {
            "network": self.name,
            "params": self.params,
            "paper_params_m": printed.get("params_m", ""),
            "macs": self.macs,
            "paper_macs_m": printed.get("macs_m", ""),
            "paper_top1": printed.get("top1", ""),
            "activations": self.activations,
            "peak_mib": round(self.peak_bytes / 2**20, 1),
            "ms": round(self.median_ms, 2) if self.milliseconds else "",
            "ms_low": round(min(self.milliseconds), 2) if self.milliseconds else "",
            "ms_high": round(max(self.milliseconds), 2) if self.milliseconds else "",
        }


def read_profile(name: str, run: RunDirectory, mode: str | None, paper: PublishedResult | None = None) -> Profile:
    """Read the profile of a network from a run; counts are those of the deployed network.

    The spread is that of the repeats. mode: None reads no times. paper: the published row; by default the one with
    these counts. Raises ValueError: the run is not finished, or did not measure this mode at batch 1.
    """
    result = _result(run)
    found = [row for row in result.get("latency", []) if (row["mode"], row["batch"]) == (mode, 1)]
    if mode is not None and len(found) != 1:
        raise ValueError(f"{run.path}: task.modes has no {mode}, or task.batch_sizes no 1")
    times = tuple(row[column] for row in found for column in ("low_ms", "median_ms", "high_ms"))
    counts = result["params_deployed"], result["macs_deployed"]
    memory = result["activations"], result["peak_bytes"]
    return Profile(name, *counts, *memory, times, paper or match_published_network(*counts))


def _result(run: RunDirectory) -> dict[str, Any]:
    result = run.read_result()
    if result is None or result["task"] != "profile":
        raise ValueError(f"{run.path}: not a finished run of task=profile")
    return result


def match_published_network(params: int, macs: int) -> PublishedResult | None:
    """Return the published ImageNet network with these counts, within 2 %; None if there is none, or several."""
    rows = [row for table in ACCURACIES for row in read_published_tables()[table].rows]
    near = [
        row for row in rows if _near(params, row.metrics.get("params_m")) and _near(macs, row.metrics.get("macs_m"))
    ]
    return near[0] if len(near) == 1 else None


def _near(count: int, millions: float | None) -> bool:
    return millions is not None and abs(count / 1e6 / millions - 1) <= 0.02


def profile_table(profiles: Sequence[Profile]) -> str:
    """Format the table of profiles in Markdown."""
    rows = [
        (
            profile.name,
            f"{profile.params / 1e6:.2f}",
            row["paper_params_m"],
            f"{profile.macs / 1e6:.1f}",
            row["paper_macs_m"],
            row["paper_top1"],
            f"{row['ms']:.1f} ({row['ms_low']:.1f} to {row['ms_high']:.1f})" if profile.milliseconds else "",
        )
        for profile in profiles
        for row in [profile.row()]
    ]
    head = ("network", "parameters, M", "paper", "MACs, M", "paper", "top-1 in the paper, %", "ms, batch 1 (spread)")
    return markdown_table(head, rows) + "\n"


@literal_text
def plot_profiles(profiles: Sequence[Profile], path: Path, hardware: str) -> None:
    """Plot the papers' accuracy against our MACs and our latency; a line per family."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    families: defaultdict[str, list[Profile]] = defaultdict(list)
    for profile in profiles:
        if profile.paper and "top1" in profile.paper.metrics:
            families[re.split(r"[ ,]", profile.name)[0]].append(profile)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    for number, (family, members) in enumerate(families.items()):
        top1 = [member.row()["paper_top1"] for member in members]
        style = {
            "label": family,
            "marker": MARKERS[number % len(MARKERS)],
            "linestyle": LINES[number % len(LINES)],
            "color": "black" if family.startswith("Ghost") else "0.55",
            "markerfacecolor": "black" if family.startswith("Ghost") else "white",
        }
        left.plot([member.macs / 1e6 for member in members], top1, **style)
        right.plot([member.median_ms for member in members], top1, **style)
    left.set(xscale="log", xlabel="MACs of one image, millions", ylabel="top-1 in the papers, %")
    right.set(xscale="log", xlabel=f"latency of one image, ms\n{hardware}")
    for axes in (left, right):
        low, high = axes.get_xlim()
        axes.set_xticks([tick for tick in TICKS if low <= tick <= high])
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    save(figure, None, path, dpi=130)
    plt.close(figure)
