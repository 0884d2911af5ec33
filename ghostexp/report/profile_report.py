"""The page on several profiles beside each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ghostexp.report.load_runs import directories
from ghostexp.report.profiles import plot_profiles, profile_table, read_profile
from ghostexp.runs.csv_table import write_rows
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.naming import run_title
from ghostexp.runs.text_files import write_atomically

MODES = ("fused+channels_last", "fused")  # the first that all have measured at batch 1 is shown, or else eager
Result = Mapping[str, Any]


def find_profiles(patterns: Sequence[str]) -> list[RunDirectory]:
    """The finished profiles among the directories that patterns name."""
    runs = [RunDirectory(path) for pattern in patterns for path in directories(pattern)]
    return [run for run in runs if (run.read_result() or {}).get("task") == "profile"]


def write_profiles(runs: Sequence[RunDirectory], title: str, command: str, folder: Path) -> str:
    """Write README.md, results.csv and, where the papers know accuracies, figure.png; returns the page.

    Raises ValueError: a profile without a measurement at batch 1, or a folder that cannot be.
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
    if any(profile.paper and "top1" in profile.paper.figures for profile in profiles):
        plot_profiles(profiles, figure, f"{_places(results)}, {mode}")
        shown = f"![The papers' accuracy against MACs and against measured latency]({figure.name})"
    else:
        shown = "None of these is a published network by its counts, so there is no accuracy to draw."
    parts = [f"# {title}", *_circumstances(results, mode), profile_table(profiles).rstrip(), shown]
    text = "\n\n".join([*parts, f"```bash\n{command}\n```"]) + "\n"
    write_atomically(folder / "README.md", text)
    return text


def _mode(results: Sequence[Result]) -> str:
    measured = [{row["mode"] for row in result["latency"] if row["batch"] == 1} for result in results]
    return next((mode for mode in MODES if all(mode in modes for modes in measured)), "eager")


def _names(runs: Sequence[RunDirectory]) -> list[str]:
    """What the networks are called: the directories, with what holds them where two are called alike."""
    names = [run.path.name.removeprefix("model-") for run in runs]
    return names if len(set(names)) == len(names) else [run_title(run.path) for run in runs]


def _circumstances(results: Sequence[Result], mode: str) -> list[str]:
    """What was counted, and how it was measured."""
    images = sorted({" x ".join(str(side) for side in result["image"]) for result in results})
    said = [
        f"MACs are multiply-accumulates of convolutions and linear layers for one image of {', '.join(images)}, "
        f"branches folded. Latency: {mode}, {_places(results)}, one after another; median and quartiles."
    ]
    if len(images) > 1:
        said.append("**The networks were given images of different sizes: their costs do not compare.**")
    return said


def _places(results: Sequence[Result]) -> str:
    places = [f"{result['hardware']}, {result['threads']} thread{'s'[: result['threads'] > 1]}" for result in results]
    return "; ".join(dict.fromkeys(places))
