"""Report on the runs of a study, or on any others: tables, figures, and what they show in words."""

import shlex
import sys
from pathlib import Path
from typing import Any

from ghostexp.report.load_runs import find_runs, find_study
from ghostexp.report.profile_report import find_profiles, write_profiles
from ghostexp.report.readme import sweep_command, write_report
from ghostexp.report.text import default_title
from ghostexp.report.variants import build_study
from ghostexp.runs.directory import RunDirectory


def run(config: dict[str, Any], directory: RunDirectory) -> dict[str, Any]:
    """Report on `task.runs`, or on what is in the study's directory; writes into `task.output_dir`, or here.

    Trainings are averaged and compared; where there are none but profiles, they are set beside each other.

    Raises ValueError: no runs there, or a baseline that none of them has.
    """
    task = config["task"]
    runs, baseline = override_texts(task["runs"]), parse_baseline(task["baseline"])
    to = directory.path if task["output_dir"] is None else Path(task["output_dir"])
    said = shlex.join(["python", "-m", "ghostexp", *sys.argv[1:]])
    try:
        found = find_study(directory.path.parent) if runs is None else find_runs(runs)
    except ValueError:
        profiles = find_profiles(runs or [str(directory.path.parent)])
        if not profiles:
            raise
        print(write_profiles(profiles, task["title"] or directory.path.parent.name, said, to))
        print(f"everything is in {to}")
        return {"profiles": len(profiles), "to": str(to)}
    study = build_study(directory.path.parent.name, found, baseline)
    commands = [command for command in (sweep_command(found, study.keys), said) if command]
    text = write_report(study, task["title"] or default_title(study), commands, to)
    print(text, f"everything is in {to}", sep="\n")
    counts = {"arms": len(study.variants), "runs": len(study.runs), "not_counted": len(study.others)}
    return {**counts, "to": str(to)}


def parse_baseline(baseline: object) -> dict[str, Any] | None:
    """What `task.baseline` says.

    Raises ValueError: no values by key.
    """
    if baseline is not None and not isinstance(baseline, dict):
        raise ValueError(f"task.baseline={baseline}: values by key are needed, such as {{model.ratio:1}}")
    return baseline


def override_texts(runs: object) -> list[str] | None:
    """What `task.runs` names, one text or a list of them.

    Raises ValueError: neither.
    """
    if runs is None:
        return None
    texts = runs if isinstance(runs, list) else [runs]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise ValueError(f"task.runs={runs}: must be a directory, a glob, or a list of them")
    return [str(text) for text in texts]
