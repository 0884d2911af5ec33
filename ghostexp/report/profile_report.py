"""Write the page that compares several profiles."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ghostexp.report.load_runs import directories
from ghostexp.report.page import write_page
from ghostexp.report.profiles import plot_profiles, profile_table, read_profile
from ghostexp.runs.csv_table import write_rows
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.naming import run_title

MODES = ("fused+channels_last", "fused")  # the first that all runs measured at batch 1, or else eager
Result = Mapping[str, Any]


def find_profiles(patterns: Sequence[str]) -> list[RunDirectory]:
    """Return the finished profiles among the directories that patterns match."""
    runs = [RunDirectory(path) for pattern in patterns for path in directories(pattern)]
    return [run for run in runs if (run.read_result() or {}).get("task") == "profile"]


def write_profiles(runs: Sequence[RunDirectory], title: str, command: str, folder: Path) -> str:
    """Write README.md, results.csv and, if accuracies are published, figure.png; return the page.

    Networks without a time at batch 1, as detectors, have their counts alone.
    Raises ValueError: a folder that cannot be made.
    """
    results = [run.read_result() or {} for run in runs]
    timed = [result for result in results if _modes(result)]
    mode = next((mode for mode in MODES if all(mode in _modes(result) for result in timed)), "eager")
    profiles = [
        read_profile(name, run, mode if result in timed else None)
        for name, run, result in zip(_names(runs), runs, results, strict=True)
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"task.output_dir={folder}: cannot be written ({error.strerror})") from error
    write_rows(folder / "results.csv", [profile.row() for profile in profiles])
    figure = folder / "figure.png"
    figure.unlink(missing_ok=True)
    plotted = [
        profile for profile in profiles if profile.paper and "top1" in profile.paper.metrics and profile.milliseconds
    ]
    if plotted:
        plot_profiles(plotted, figure, f"{_hardware(results)}, {mode}")
        shown = f"![The papers' accuracy against MACs and against measured latency]({figure.name})"
    else:
        shown = "No network with a time has the counts of a published one: there are no accuracies to plot."
    parts = [f"# {title}", *_setting(results, mode), profile_table(profiles).rstrip(), shown]
    text = "\n\n".join([*parts, f"```bash\n{command}\n```"]) + "\n"
    write_page(folder, text)
    return text


def _modes(result: Result) -> set[str]:
    """Return the modes that were timed with one image."""
    return {row["mode"] for row in result.get("latency", []) if row["batch"] == 1}


def _names(runs: Sequence[RunDirectory]) -> list[str]:
    """Name the networks by their directories, with the parent folder where two names are equal."""
    names = [run.path.name.removeprefix("model-") for run in runs]
    return names if len(set(names)) == len(names) else [run_title(run.path) for run in runs]


def _setting(results: Sequence[Result], mode: str) -> list[str]:
    """Describe the counts and the measurement."""
    images = sorted({" x ".join(str(side) for side in result["image"]) for result in results})
    sentences = [
        f"MACs are multiply-accumulates of convolutions and linear layers for one image of {', '.join(images)}, "
        "branches folded."
    ]
    if any(map(_modes, results)):
        sentences[0] += f" Latency: {mode}, {_hardware(results)}, one after another; median and quartiles."
    if not all(map(_modes, results)):
        sentences.append("Networks without a time were not timed with one image; each run's latency.csv has its times.")
    machines = {_hardware([result]) for result in results}
    if len(machines) > 1:
        sentences.append("**Machines differ: the times of the networks are not comparable.**")
    if len(images) > 1:
        sentences.append("**Image sizes differ: the costs of the networks are not comparable.**")
    return sentences


def _hardware(results: Sequence[Result]) -> str:
    machines = [f"{result['hardware']}, {result['threads']} thread{'s'[: result['threads'] > 1]}" for result in results]
    return "; ".join(dict.fromkeys(machines))
