"""A study on W&B: its workspace and its report, in the words of wandb-workspaces."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr
from wandb_workspaces.reports.v2.interface import Layout, Report, Runset

from ghostexp.report.load_runs import Run
from ghostexp.report.tables import cells, markdown
from ghostexp.report.text import notes, summary, verdict
from ghostexp.report.variants import Study
from ghostexp.report.wandb_panels import MOST, Panels, panels_of
from ghostexp.runs.naming import run_identity
from ghostexp.runs.sweep_record import find_sweep_name

TALL = 12  # rows of a report's grid for pictures


class Place(NamedTuple):
    """Where runs are on W&B; entity: None is the account's own."""

    project: str
    entity: str | None


def place_of(runs: Sequence[Run]) -> Place:
    """Where all runs are that were logged to W&B.

    Raises ValueError: none was, or they are in several projects.
    """
    logged = [run.config["logger"]["wandb"] for run in runs if "wandb" in run.config.get("logger", {})]
    places = sorted({(entry["project"], entry["entity"] or "") for entry in logged})
    if not places:
        raise ValueError("task=dashboard: none of the runs was logged to W&B; train them with logger=wandb")
    if len(places) > 1:
        found = ", ".join("/".join(part for part in place[::-1] if part) for place in places)
        raise ValueError(f"task=dashboard: the runs are in several W&B projects ({found}); task.runs=DIR names some")
    return Place(places[0][0], places[0][1] or None)


def workspace_of(study: Study, place: Place, title: str) -> ws.Workspace:
    """A view of the project that shows the study's runs, those too that are still to come."""
    sections = [ws.Section(name=name, panels=panels, is_open=True) for name, panels in panels_of(study).items()]
    runs = ws.RunsetSettings(filters=filters_of(study))
    return ws.Workspace(
        entity=place.entity or "",
        project=place.project,
        name=title,
        sections=sections,
        settings=ws.WorkspaceSettings(max_runs=MOST),
        runset_settings=runs,
    )


def report_of(study: Study, place: Place, title: str) -> Report:
    """What the study's page says, with live panels in the place of figures."""
    runs = Runset(place.entity or "", place.project, study.name, filters=filters_of(study))
    blocks: list[Any] = [wr.MarkdownBlock(text) for text in page_of(study)]
    for name, panels in panels_of(study).items():
        blocks += [wr.H2(name), wr.PanelGrid(runsets=[runs], panels=_laid_out(panels))]
    return Report(place.project, place.entity or "", title[:128], summary(study)[:250], blocks, width="fluid")


def filters_of(study: Study) -> list[expr.FilterExpr]:
    """The trainings of the study's group on W&B, or single runs where these are of no one group."""
    runs = [*study.runs, *(run for run in study.others if run.config)]
    groups = {
        run.config["logger"]["wandb"]["group"] or find_sweep_name(run.directory.path) for run in runs if _logged(run)
    }
    if len(groups) == 1 and None not in groups:
        return [expr.Metric("Group") == groups.pop(), expr.Metric("JobType") == "fit"]
    return [expr.Metric("ID").isin([run_identity(run.directory.path, run.config) for run in runs if _logged(run)])]


def _logged(run: Run) -> bool:
    return "wandb" in run.config.get("logger", {})


def page_of(study: Study) -> list[str]:
    """The study's sentences and table."""
    if not study.variants:
        return [summary(study)]
    listed = "\n".join(f"- {note}" for note in notes(study))
    return [text for text in (f"**{summary(study)}**", verdict(study), markdown(cells(study)), listed) if text]


def _laid_out(panels: Panels) -> Panels:
    """Panels two by two on a report's grid of 24 columns; pictures need more height than plots."""
    height = TALL if any(isinstance(panel, wr.MediaBrowser) for panel in panels) else 8
    for number, panel in enumerate(panels):
        panel.layout = Layout(x=12 * (number % 2), y=height * (number // 2), w=12, h=height)
    return panels


def specification(study: Study, project: str, title: str) -> dict[str, Any]:
    """What both are made of, for no account: with one, the library would ask W&B for the project.

    It has no public name for this; its version is bounded for that.
    """
    place = Place(project, None)
    views = {"workspace": workspace_of(study, place, title), "report": report_of(study, place, title)}
    return {
        name: {
            "title": title,
            "project": project,
            "spec": view._to_model().spec.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        for name, view in views.items()
    }
