"""The page of a report, and all that lies beside it."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml

from ghostexp.report.curves import draw_curves
from ghostexp.report.load_runs import RunSet
from ghostexp.report.plots import draw_accuracy, draw_differences, draw_pareto
from ghostexp.report.tables import cells, latex, markdown, run_rows, variant_rows
from ghostexp.report.text import notes, problems, setting, summary, variant_names, verdict
from ghostexp.report.variants import Study
from ghostexp.runs.csv_table import write_rows
from ghostexp.runs.text_files import write_atomically

PLOTS = {
    "accuracy": (draw_accuracy, "Test {score} against what is varied"),
    "differences": (draw_differences, "Differences of test {score} to the baseline"),
    "pareto": (draw_pareto, "Test {score} against what it costs"),
    "curves": (draw_curves, "The validation set by epoch"),
}
IGNORED_KEYS = ("output_dir", "data_dir", "datamodule.root")  # of one machine, and no part of a command for others


def write_report(study: Study, title: str, commands: Sequence[str], folder: Path) -> str:
    """Write README.md, the tables and the figures into a folder; returns the text of the page.

    Raises ValueError: there can be no such folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"task.output_dir={folder}: cannot be written ({error.strerror})") from error
    drawn = draw_plots(study, title, folder)
    text = build_readme(study, title, commands, drawn)
    write_rows(folder / "results.csv", run_rows(study))
    if study.variants:
        write_rows(folder / "table.csv", variant_rows(study))
        write_atomically(
            folder / "table.tex", latex(cells(study, in_millions=True), f"{title}. {summary(study)}", study.name)
        )
    write_atomically(folder / "README.md", text)
    return text


def draw_plots(study: Study, title: str, folder: Path) -> dict[str, str]:
    """Draw what can be drawn; returns what each figure shows, by file. Figures of an earlier report are removed."""
    drawn = {}
    for name, (draw_one, shows) in PLOTS.items():
        path = folder / f"{name}.png"
        path.unlink(missing_ok=True)
        if study.variants and draw_one(study, title, path):
            drawn[path.name] = shows.format(score=study.score)
    return drawn


def build_readme(study: Study, title: str, commands: Sequence[str], drawn: dict[str, str]) -> str:
    """The page in Markdown: what the study shows, its table, what counts nowhere, figures, commands."""
    parts = [f"# {title}", f"**{summary(study)}**", verdict(study)]
    if study.variants:
        varied = f"Varied: {variant_names(study)}. " if study.keys else ""
        parts += [f"{varied}In all: {setting(study)}", markdown(cells(study)), _list(notes(study))]
    if study.others:
        parts += [f"## Not counted: {len(study.others)} of {len(study.others) + len(study.runs)} runs"]
        parts += [_list(problems(study))]
    parts += [f"![{shows}]({name})" for name, shows in drawn.items()]
    parts += ["## Again", "```bash\n" + "\n".join(commands) + "\n```"]
    return "\n\n".join(part for part in parts if part) + "\n\n" + _sources(study)


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _sources(study: Study) -> str:
    days = sorted({str(run.result["started"])[:10] for run in study.runs if "started" in run.result})
    revisions = sorted({str(run.result["git"]) for run in study.runs if run.result.get("git")})
    said = ["`results.csv` has every run, `table.csv` and `table.tex` have the table."]
    if days:
        said.append(f"Runs of {days[0] if len(days) == 1 else f'{days[0]} to {days[-1]}'}")
        said[-1] += f", revision {', '.join(revisions)}." if revisions else "."
    return " ".join(said) + "\n"


def command_of(found: RunSet, keys: Sequence[str]) -> str | None:
    """The command that made the runs of a sweep, as it was typed but for places; None where it is not known."""
    record = next(
        (path for run in found.runs if (path := run.directory.path / ".hydra/overrides.yaml").is_file()), None
    )
    if not found.jobs or record is None:
        return None
    typed = [str(text) for text in yaml.safe_load(record.read_bytes())]
    varied = {*keys, "seed"}
    same = [text for text in typed if _key(text) not in varied]
    same = [f"{_key(text)}=DIR" if _key(text) in IGNORED_KEYS else text for text in same if _key(text) != "output_dir"]
    if found.study is None:
        values: dict[str, dict[str, None]] = {}
        for text in (text for overrides in found.jobs.values() for text in overrides):
            values.setdefault(text.partition("=")[0], {})[text.partition("=")[2]] = None
        same = ["-m", *(f"{key}={','.join(few)}" for key, few in values.items()), *same]
    return shlex.join(["python", "-m", "ghostexp", *same])


def _key(text: str) -> str:
    return text.partition("=")[0].lstrip("+~")
