"""Write the README.md of a report, its tables and its plots."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml

from ghostexp.report.curves import draw_curves
from ghostexp.report.equal_cost import TOLERANCE, equal_cost_cells, equal_cost_summary
from ghostexp.report.load_runs import RunSet
from ghostexp.report.page import write_page
from ghostexp.report.plots import draw_accuracy, draw_differences, draw_pareto
from ghostexp.report.tables import cells, latex, markdown, run_rows, variant_rows
from ghostexp.report.text import claim_text, notes, problems, setting, summary, varied_keys_text
from ghostexp.report.variants import Study
from ghostexp.runs.csv_table import write_rows
from ghostexp.runs.text_files import write_atomically

PLOTS = {
    "accuracy": (draw_accuracy, "Test {metric} against what is varied"),
    "differences": (draw_differences, "Differences of test {metric} to the baseline"),
    "pareto": (draw_pareto, "Test {metric} against what it costs"),
    "curves": (draw_curves, "The validation set by epoch"),
}
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
    for name, (draw, caption) in PLOTS.items():
        path = folder / f"{name}.png"
        path.unlink(missing_ok=True)
        if study.variants and draw(study, title, path):
            captions[path.name] = caption.format(metric=study.metric.title)
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
    tables = ", `table.csv` and `table.tex` have the table" if study.variants else ""
    sentences = [f"`results.csv` has every run{tables}."]
    if days:
        sentences.append(f"Runs of {days[0] if len(days) == 1 else f'{days[0]} to {days[-1]}'}")
        sentences[-1] += f", revision {', '.join(revisions)}." if revisions else "."
    return " ".join(sentences) + "\n"


def sweep_command(found: RunSet, keys: Sequence[str]) -> str | None:
    """Return the command of a sweep without machine-specific paths; None if it was not recorded.

    Of a study it has the seeds of the jobs: others may have been typed, or the study may have changed since.
    """
    record = next(
        (path for run in found.runs if (path := run.directory.path / ".hydra/overrides.yaml").is_file()), None
    )
    if not found.jobs or record is None:
        return None
    overrides = [str(text) for text in yaml.safe_load(record.read_bytes())]
    values: dict[str, dict[str, None]] = {}
    for text in (text for overrides in found.jobs.values() for text in overrides):
        values.setdefault(text.partition("=")[0], {})[text.partition("=")[2]] = None
    varied = {*keys, *(["seed"] if "seed" in values else [])}
    kept = [text for text in overrides if _key(text) not in varied]
    kept = [
        f"{_key(text)}=DIR" if _key(text) in MACHINE_SPECIFIC_KEYS else text
        for text in kept
        if _key(text) != "output_dir"
    ]
    swept = [f"{key}={','.join(few)}" for key, few in values.items() if found.study is None or key == "seed"]
    kept = ["-m", *swept, *kept] if found.study is None else [*kept, *swept]
    return shlex.join(["python", "-m", "ghostexp", *_config_dir(record.with_name("hydra.yaml")), *kept])


def _config_dir(record: Path) -> list[str]:
    """Return the option --config-dir of a recorded command, relative to where it was given, or none."""
    runtime = yaml.safe_load(record.read_bytes())["hydra"]["runtime"] if record.is_file() else {}
    for source in runtime.get("config_sources", []):
        if source["provider"] == "command-line":
            folder, cwd = Path(source["path"]), Path(runtime["cwd"])
            return ["--config-dir", str(folder.relative_to(cwd)) if folder.is_relative_to(cwd) else "DIR"]
    return []


def _key(text: str) -> str:
    return text.partition("=")[0].lstrip("+~")
