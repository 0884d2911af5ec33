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

    Raises ValueError: a profile without a measurement at batch 1, or a folder that cannot be made.
    """
    results = [run.read_result() or {} for run in runs]
    mode = _mode(results)
    profiles = [read_profile(name, [run], mode) for name, run in zip(_names(runs), runs, strict=True)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"task.output_dir={folder}: cannot be written ({error.strerror})") from error
    write_rows(folder / "results.csv", [profile.row() for profile in profiles])
    figure = folder / "figure.png"
    figure.unlink(missing_ok=True)
    if any(profile.paper and "top1" in profile.paper.metrics for profile in profiles):
        plot_profiles(profiles, figure, f"{_hardware(results)}, {mode}")
        shown = f"![The papers' accuracy against MACs and against measured latency]({figure.name})"
    else:
        shown = "None of the networks has the counts of a published one: there are no accuracies to plot."
    parts = [f"# {title}", *_setting(results, mode), profile_table(profiles).rstrip(), shown]
    text = "\n\n".join([*parts, f"```bash\n{command}\n```"]) + "\n"
    write_page(folder, text)
    return text


def _mode(results: Sequence[Result]) -> str:
    measured = [{row["mode"] for row in result["latency"] if row["batch"] == 1} for result in results]
    return next((mode for mode in MODES if all(mode in modes for modes in measured)), "eager")


def _names(runs: Sequence[RunDirectory]) -> list[str]:
    """Name the networks by their directories, with the parent folder where two names are equal."""
    names = [run.path.name.removeprefix("model-") for run in runs]
    return names if len(set(names)) == len(names) else [run_title(run.path) for run in runs]


def _setting(results: Sequence[Result], mode: str) -> list[str]:
    """Describe the counts and the measurement."""
    images = sorted({" x ".join(str(side) for side in result["image"]) for result in results})
    sentences = [
        f"MACs are multiply-accumulates of convolutions and linear layers for one image of {', '.join(images)}, "
        f"branches folded. Latency: {mode}, {_hardware(results)}, one after another; median and quartiles."
    ]
    if len(images) > 1:
        sentences.append("**Image sizes differ: the costs of the networks are not comparable.**")
    return sentences


def _hardware(results: Sequence[Result]) -> str:
    machines = [f"{result['hardware']}, {result['threads']} thread{'s'[: result['threads'] > 1]}" for result in results]
    return "; ".join(dict.fromkeys(machines))
