"""Build the W&B workspace and the W&B report of a study or a search with wandb-workspaces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr
from wandb_workspaces.reports.v2.interface import Layout, Report, Runset

from ghostexp.report.load_runs import Run
from ghostexp.report.search_report import build_text
from ghostexp.report.search_report import summary as search_summary
from ghostexp.report.search_runs import Group
from ghostexp.report.tables import cells, markdown
from ghostexp.report.text import claim_text, notes, summary
from ghostexp.report.variants import Study
from ghostexp.report.wandb_panels import MOST, Panels, build_panels, build_search_panels
from ghostexp.runs.naming import run_identity
from ghostexp.runs.sweep_record import find_sweep_name
from ghostexp.runs.wandb_names import FRESH_SEED, shorten_name

TALL = 12  # rows of a report's grid for images


class WandbProject(NamedTuple):
    """A project on W&B; entity: None is the account's own."""

    project: str
    entity: str | None


@dataclass(frozen=True)
class Dashboard:
    """What both views show: Markdown blocks, panels by section, and which runs."""

    name: str
    summary: str
    blocks: Sequence[str]
    panels: Mapping[str, Panels]
    filters: list[expr.FilterExpr]


def study_dashboard(study: Study) -> Dashboard:
    """Show the runs of a study."""
    runs = [*study.runs, *(run for run in study.others if run.config)]
    return Dashboard(study.name, summary(study), build_page_blocks(study), build_panels(study), build_filters(runs))


def search_dashboard(name: str, groups: Sequence[Group], runs: Sequence[Run]) -> Dashboard:
    """Show the trials of a search; its tests with fresh seeds, trained on other data, are in the text alone."""
    started = [run for run in runs if run.config]
    filters = [*build_filters(started), expr.Tags().notin([FRESH_SEED])]
    panels = build_search_panels(groups, started[0].config.get("choices", {}))
    return Dashboard(name, " ".join(map(search_summary, groups)), build_text(groups), panels, filters)


def find_project(runs: Sequence[Run]) -> WandbProject:
    """Return the W&B project of the logged runs.

    Raises ValueError: no run was logged, or they are in several projects.
    """
    logged = [run.config["logger"]["wandb"] for run in runs if "wandb" in run.config.get("logger", {})]
    projects = sorted({(entry["project"], entry["entity"] or "") for entry in logged})
    if not projects:
        raise ValueError("task=dashboard: none of the runs was logged to W&B; train with logger=wandb")
    if len(projects) > 1:
        found = ", ".join("/".join(part for part in project[::-1] if part) for project in projects)
        raise ValueError(
            f"task=dashboard: the runs are in several W&B projects ({found}); select runs by task.runs=DIR"
        )
    return WandbProject(projects[0][0], projects[0][1] or None)


def build_workspace(shown: Dashboard, target: WandbProject, title: str) -> ws.Workspace:
    """Build a workspace that shows the runs, later ones included."""
    sections = [ws.Section(name=name, panels=panels, is_open=True) for name, panels in shown.panels.items()]
    runs = ws.RunsetSettings(filters=shown.filters)
    return ws.Workspace(
        entity=target.entity or "",
        project=target.project,
        name=title,
        sections=sections,
        settings=ws.WorkspaceSettings(max_runs=MOST),
        runset_settings=runs,
    )


def build_report(shown: Dashboard, target: WandbProject, title: str) -> Report:
    """Build a report with the text of the page, and live panels instead of plots."""
    runs = Runset(target.entity or "", target.project, shown.name, filters=shown.filters)
    blocks: list[Any] = [wr.MarkdownBlock(text) for text in shown.blocks]
    for name, panels in shown.panels.items():
        blocks += [wr.H2(name), wr.PanelGrid(runsets=[runs], panels=_lay_out(panels))]
    return Report(target.project, target.entity or "", title[:128], shown.summary[:250], blocks, width="fluid")


def build_filters(runs: Sequence[Run]) -> list[expr.FilterExpr]:
    """Select the training runs of the group on W&B, or single runs without a common group."""
    groups = {
        run.config["logger"]["wandb"]["group"] or find_sweep_name(run.directory.path) for run in runs if _logged(run)
    }
    if len(groups) == 1 and None not in groups:
        return [expr.Metric("Group") == shorten_name(str(groups.pop())), expr.Metric("JobType") == "fit"]
    return [expr.Metric("ID").isin([run_identity(run.directory.path, run.config) for run in runs if _logged(run)])]


def _logged(run: Run) -> bool:
    return "wandb" in run.config.get("logger", {})


def build_page_blocks(study: Study) -> list[str]:
    """Return the study's sentences and table as Markdown blocks."""
    if not study.variants:
        return [summary(study)]
    listed = "\n".join(f"- {note}" for note in notes(study))
    return [text for text in (f"**{summary(study)}**", claim_text(study), markdown(cells(study)), listed) if text]


def _lay_out(panels: Panels) -> Panels:
    """Lay panels out two by two on a report's grid of 24 columns; images need more height than plots."""
    height = TALL if any(isinstance(panel, wr.MediaBrowser) for panel in panels) else 8
    for number, panel in enumerate(panels):
        panel.layout = Layout(x=12 * (number % 2), y=height * (number // 2), w=12, h=height)
    return panels


def specification(shown: Dashboard, project: str, title: str) -> dict[str, Any]:
    """Return the specifications of both without an account: with one, the library would query W&B.

    It has no public API for this, so its version is bounded.
    """
    target = WandbProject(project, None)
    views = {"workspace": build_workspace(shown, target, title), "report": build_report(shown, target, title)}
    return {
        name: {
            "title": title,
            "project": project,
            "spec": view._to_model().spec.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        for name, view in views.items()
    }
