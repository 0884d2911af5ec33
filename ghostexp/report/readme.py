"""Write the README.md of a report, its tables and its plots."""

import itertools
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ghostexp.report.curves import draw_curves
from ghostexp.report.equal_cost import TOLERANCE, equal_cost_cells, equal_cost_summary
from ghostexp.report.load_runs import Run, RunSet
from ghostexp.report.page import write_page
from ghostexp.report.plots import draw_accuracy, draw_differences, draw_pareto
from ghostexp.report.tables import cells, latex, markdown, run_rows, variant_rows
from ghostexp.report.text import claim_text, notes, problems, setting, summary, varied_keys_text
from ghostexp.report.variants import Study
from ghostexp.runs.csv_table import write_rows
from ghostexp.runs.sweep_record import override_pair
from ghostexp.runs.text_files import write_atomically

PLOTS = {
    "accuracy": (draw_accuracy, "Test {metric} against what is varied"),
    "differences": (draw_differences, "Differences of test {metric} to the baseline"),
    "pareto": (draw_pareto, "Test {metric} against what it costs"),
    "curves": (draw_curves, "The validation set{which} by epoch"),
}
PROGRAM = ("python", "-m", "ghostexp")
MACHINE_SPECIFIC_KEYS = (
    "output_dir",
    "data_dir",
    "datamodule.root",
)  # left out of the printed command, or replaced by DIR


def write_report(study: Study, title: str, commands: Sequence[str], folder: Path) -> str:
    """Write README.md, the tables and the plots into a folder; return the text of the page.

    Raises ValueError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"task.output_dir={folder}: cannot be written ({error.strerror})") from error
    captions = draw_plots(study, title, folder)
    text = build_readme(study, title, commands, captions)
    write_rows(folder / "results.csv", run_rows(study))
    for name in ("table.csv", "table.tex"):
        (folder / name).unlink(missing_ok=True)  # of an earlier report
    if study.variants:
        write_rows(folder / "table.csv", variant_rows(study))
        write_atomically(
            folder / "table.tex", latex(cells(study, in_millions=True), f"{title}. {summary(study)}", study.name)
        )
    write_page(folder, text)
    return text


def draw_plots(study: Study, title: str, folder: Path) -> dict[str, str]:
    """Draw the plots, remove those of an earlier report; return a caption by file."""
    captions = {}
    is_test_set = all(run.values.get("datamodule.validate_on") == "test" for run in study.runs)
    which = ", which is the test set," if is_test_set else ""
    for name, (draw, caption) in PLOTS.items():
        path = folder / f"{name}.png"
        path.unlink(missing_ok=True)
        if study.variants and draw(study, title, path):
            captions[path.name] = caption.format(metric=study.metric.title, which=which)
    return captions


def build_readme(study: Study, title: str, commands: Sequence[str], captions: dict[str, str]) -> str:
    """Build the page in Markdown: summary, table, runs that are not averaged, plots, commands."""
    parts = [f"# {title}", *(f"**{text}**" for text in (summary(study), equal_cost_summary(study)) if text)]
    parts.append(claim_text(study))
    if study.variants:
        varied = f"Varied: {varied_keys_text(study)}. " if study.keys else ""
        parts += [f"{varied}In all: {setting(study)}", markdown(cells(study)), _list(notes(study))]
        parts += _equal_cost(study)
    if study.others:
        parts += [f"## Not counted: {len(study.others)} of {len(study.others) + len(study.runs)} runs"]
        parts += [_list(problems(study))]
    parts += [f"![{caption}]({name})" for name, caption in captions.items()]
    parts += ["## Reproduce", "```bash\n" + "\n".join(commands) + "\n```"]
    return "\n\n".join(part for part in parts if part) + "\n\n" + _sources(study)


def _equal_cost(study: Study) -> list[str]:
    """Return the section on ghost and ordinary networks of equal MACs; nothing without such pairs."""
    rows = equal_cost_cells(study)
    if len(rows) == 1:
        return []
    text = f"Paired over seeds; MACs differ by at most {100 * TOLERANCE:g} %."
    return ["## Ghost networks beside ordinary networks of equal MACs", text, markdown(rows)]


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _sources(study: Study) -> str:
    days = sorted({str(run.result["started"])[:10] for run in study.runs if "started" in run.result})
    revisions = sorted({str(run.result["git"]) for run in study.runs if run.result.get("git")})
    versions = [run.result.get("versions") or {} for run in study.runs]
    torches = sorted({str(found["torch"]) for found in versions if "torch" in found})
    tables = ", `table.csv` and `table.tex` have the table" if study.variants else ""
    sentences = [f"`results.csv` has every run{tables}."]
    if days:
        sentences.append(f"Runs of {days[0] if len(days) == 1 else f'{days[0]} to {days[-1]}'}")
        sentences[-1] += f", revision {', '.join(revisions)}" if revisions else ""
        sentences[-1] += f", torch {', '.join(torches)}." if torches else "."
    return " ".join(sentences) + "\n"


def sweep_command(found: RunSet) -> str | None:
    """Return the command of a sweep without machine-specific paths; None if it was not recorded.

    Of a study it has the seeds of the jobs, as others may have been typed or the study may have changed since, and
    what was typed in addition to its grids.
    """
    records = [run for run in found.runs if run.name in found.jobs and _overrides(run).is_file()]
    if not records:
        return None
    values: dict[str, dict[str, None]] = {}  # of each varied key
    for key, value in map(override_pair, itertools.chain(*found.jobs.values())):
        values.setdefault(key, {})[value] = None
    if found.study is None:
        kept, hydra = _typed(records[0], found)
        return shlex.join([*PROGRAM, *_config_dir(hydra), "-m", *_lines(values), *kept])
    # Others were copied from another study.
    ours = [run for run in records if f"study={found.study}" in yaml.safe_load(_overrides(run).read_bytes())]
    kept, hydra = _typed(ours[0], found) if ours else ([f"study={found.study}"], {})
    grids = [hydra.get("sweeper", {}).get(name) or {} for name in ("params", "baseline_grid")]
    own = {*grids[0], *grids[1]} or values.keys()
    added = {key: few for key, few in values.items() if key not in own or key == "seed"}
    return shlex.join([*PROGRAM, *_config_dir(hydra), *kept, *_lines(added)])


def _overrides(run: Run) -> Path:
    return run.directory.path / ".hydra/overrides.yaml"


def _lines(values: Mapping[str, Iterable[str]]) -> list[str]:
    return [f"{key}={','.join(few)}" for key, few in values.items()]


def _typed(run: Run, found: RunSet) -> tuple[list[str], dict[str, Any]]:
    """Return the overrides of a job that its sweep does not vary, without paths, and its recorded Hydra config."""
    varied = {"output_dir", *(override_pair(text)[0] for text in found.jobs[run.name])}
    overrides = {str(text): override_pair(str(text))[0] for text in yaml.safe_load(_overrides(run).read_bytes())}
    kept = [
        f"{key}=DIR" if key in MACHINE_SPECIFIC_KEYS else text for text, key in overrides.items() if key not in varied
    ]
    record = _overrides(run).with_name("hydra.yaml")
    return kept, yaml.safe_load(record.read_bytes())["hydra"] if record.is_file() else {}


def _config_dir(hydra: Mapping[str, Any]) -> list[str]:
    """Return the option --config-dir of a recorded command, relative to where it was given, or none."""
    runtime = hydra.get("runtime", {})
    for source in runtime.get("config_sources", []):
        if source["provider"] == "command-line":
            folder, cwd = Path(source["path"]), Path(runtime["cwd"])
            return ["--config-dir", str(folder.relative_to(cwd)) if folder.is_relative_to(cwd) else "DIR"]
    return []
