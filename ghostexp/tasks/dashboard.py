"""Build the W&B workspace and report of a study or a search, or write their specification."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ghostexp.report.build_study import build_study
from ghostexp.report.load_runs import Run, find_runs, find_study
from ghostexp.report.search_report import default_title as search_title
from ghostexp.report.search_runs import load_search
from ghostexp.report.text import default_title
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.sweep_record import read_sweep
from ghostexp.runs.text_files import write_json
from ghostexp.runs.wandb_mode import find_problem
from ghostexp.tasks.report import check_no_baseline, override_texts


def run(config: dict[str, Any], directory: RunDirectory) -> dict[str, Any]:
    """Write dashboard.json and, if W&B can be reached, build the workspace and the report; each call builds new ones.

    Raises ValueError: no runs there, none logged to W&B, wandb-workspaces not installed, or W&B refuses.
    """
    try:
        from ghostexp.report import wandb_dashboard
    except ImportError as error:
        raise ValueError('task=dashboard: needs wandb-workspaces; pip install "ghostexp[dashboard]"') from error
    task, folder = config["task"], directory.path.parent
    runs, baseline = override_texts(task["runs"]), task["baseline"]
    found = find_study(folder) if runs is None else find_runs(runs)
    place = wandb_dashboard.find_project(found.runs)
    if runs is None and read_sweep(folder).search:
        check_no_baseline(baseline, f"{folder} contains a search")
        title = task["title"] or search_title(folder)
        shown = wandb_dashboard.search_dashboard(folder.name, load_search(folder), found.runs)
    else:
        study = build_study(folder.name, found, baseline, config.get("report_baseline"))
        title, shown = task["title"] or default_title(study), wandb_dashboard.study_dashboard(study)
    path = directory.path / "dashboard.json"
    write_json(path, wandb_dashboard.specification(shown, place.project, title), indent=1)
    if unsynced := _unsynced(found.runs):
        print(f"{len(unsynced)} runs are not on W&B yet: wandb sync {' '.join(_shortest(unsynced))}")
    if problem := find_problem():
        print(f"W&B: {problem}; when that is solved, repeat this command; specification: {path}")
        return {"runs": len(found.runs), "workspace": None, "report": None}
    place = place._replace(entity=place.entity or _call_wandb(_own_entity))
    build = {"workspace": wandb_dashboard.build_workspace, "report": wandb_dashboard.build_report}
    urls = {name: _call_wandb(lambda make=make: make(shown, place, title).save().url) for name, make in build.items()}
    print(*(f"{name:<9}  {url}" for name, url in urls.items()), sep="\n")
    return {"runs": len(found.runs), **urls}


def _own_entity() -> str:
    import wandb

    return str(wandb.Api().default_entity)


def _call_wandb(call: Callable[[], str]) -> str:
    """Call W&B.

    Raises ValueError: it does not respond, or refuses.
    """
    import wandb

    try:
        return call()
    except (wandb.Error, ValueError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"task=dashboard: W&B failed ({type(error).__name__}: {reason})") from error


def _unsynced(runs: Sequence[Run]) -> list[Path]:
    """List the offline recordings that `wandb sync` has not marked."""
    files = [file for run in runs for file in run.directory.path.glob("wandb/offline-run-*/*.wandb")]
    return [file.parent for file in files if not file.with_name(f"{file.name}.synced").exists()]


def _shortest(folders: Sequence[Path]) -> list[str]:
    """Shorten folders to one glob for each sweep."""
    parents = {folder.parents[2] for folder in folders}
    return [f"{shlex.quote(str(parent))}/*/wandb/offline-run-*" for parent in sorted(parents)]
