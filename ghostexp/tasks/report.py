"""Report on the runs of a study, or on any others: tables, figures, text."""

import shlex
import sys
from pathlib import Path
from typing import Any

from ghostexp.report.build_study import build_study
from ghostexp.report.load_runs import find_runs, find_study
from ghostexp.report.profile_report import find_profiles, write_profiles
from ghostexp.report.readme import sweep_command, write_report
from ghostexp.report.search_report import default_title as search_title
from ghostexp.report.search_report import write_search_report
from ghostexp.report.search_runs import load_search
from ghostexp.report.text import default_title
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.sweep_record import read_sweep


def run(config: dict[str, Any], directory: RunDirectory) -> dict[str, Any]:
    """Report on `task.runs`, or on the study's directory; writes to `task.output_dir`, or the task's own directory.

    Trainings are averaged over seeds and compared; if there are only profiles, they are tabulated.

    Raises ValueError: no runs there, or a baseline that none of them has.
    """
    task = config["task"]
    runs, baseline = override_texts(task["runs"]), task["baseline"]
    output_dir = directory.path if task["output_dir"] is None else Path(task["output_dir"])
    command = shlex.join(["python", "-m", "ghostexp", *sys.argv[1:]])
    search_dir = directory.path.parent
    if runs is None and read_sweep(search_dir).search:
        check_no_baseline(baseline, f"{search_dir} contains a search")
        groups = load_search(search_dir)
        title = task["title"] or search_title(search_dir)
        print(write_search_report(groups, title, command, search_dir, output_dir), f"outputs: {output_dir}", sep="\n")
        return {"trials": sum(len(group.trials) for group in groups), "to": str(output_dir)}
    try:
        found = find_study(directory.path.parent) if runs is None else find_runs(runs)
    except ValueError:
        profiles = find_profiles(runs or [str(directory.path.parent)])
        if not profiles:
            raise
        check_no_baseline(baseline, "there are only profiles")
        print(write_profiles(profiles, task["title"] or directory.path.parent.name, command, output_dir))
        print(f"outputs: {output_dir}")
        return {"profiles": len(profiles), "to": str(output_dir)}
    study = build_study(directory.path.parent.name, found, baseline, config.get("report_baseline"))
    commands = [text for text in (sweep_command(found), command) if text]
    text = write_report(study, task["title"] or default_title(study), commands, output_dir)
    print(text, f"outputs: {output_dir}", sep="\n")
    counts = {"variants": len(study.variants), "runs": len(study.runs), "not_counted": len(study.others)}
    return {**counts, "to": str(output_dir)}


def check_no_baseline(baseline: dict[str, Any] | None, found: str) -> None:
    """Raise ValueError if `task.baseline` is set for what is not compared with one."""
    if baseline is not None:
        raise ValueError(f"task.baseline={baseline}: must be null; {found}, not the trainings of a study")


def override_texts(runs: object) -> list[str] | None:
    """Return `task.runs` as a list of texts.

    Raises ValueError: neither a text nor a list of texts.
    """
    if runs is None:
        return None
    texts = runs if isinstance(runs, list) else [runs]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise ValueError(f"task.runs={runs}: must be a directory, a glob, or a list of them")
    return [str(text) for text in texts]
