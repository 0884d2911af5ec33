"""Write the report of a search: winners, best trials, what elimination saved, plots and commands."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml

from ghostexp.report import search_plots, search_tables
from ghostexp.report.page import write_page
from ghostexp.report.readme import MACHINE_SPECIFIC_KEYS
from ghostexp.report.search_runs import Group
from ghostexp.runs.csv_table import write_rows
from ghostexp.runs.trials import SearchRecord

FRESH = 5  # seeds of the printed command that tests a winner
DEFAULTS = {"seed": 0, "factor": 3, "horizon": "final", "direction": "maximize", "contenders": 3}
DEFAULTS |= {"metric": "val/acc1", "cost": None, "startup": 10, "tune_on_test": False}


def write_search_report(groups: Sequence[Group], title: str, command: str, folder: Path, output_dir: Path) -> str:
    """Write README.md, trials.csv and the plots; return the text of the page.

    folder: of the search. Raises ValueError: the folder of the report cannot be made.
    """
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"task.output_dir={output_dir}: cannot be written ({error.strerror})") from error
    pictures = _draw(groups, title, folder, output_dir)
    parts = [f"# {title}", *build_text(groups)]
    parts += [f"![{caption}]({name})" for name, caption in pictures.items()]
    commands = [search_command(groups), command, "# further seeds for the test", test_command(groups)]
    parts += ["## Reproduce", "```bash\n" + "\n".join(commands) + "\n```"]
    text = "\n\n".join(parts) + "\n\n`trials.csv` has every run.\n"
    write_rows(output_dir / "trials.csv", search_tables.run_rows(groups))
    write_page(output_dir, text)
    return text


def default_title(folder: Path) -> str:
    """Return the title of a report on the search in a folder."""
    return f"{folder.name.replace('_', ' ')}: a search"


def build_text(groups: Sequence[Group]) -> list[str]:
    """Return the sentences and tables of a report as Markdown blocks."""
    parts = [f"**{' '.join(map(summary, groups))}**", search_tables.winners(groups), _notes(groups)]
    for group in groups:
        parts += [f"## Best trials{f' of {group.label}' if group.label else ''}", search_tables.best_trials(group)]
    return [*parts, "## Elimination", search_tables.rungs(groups), saved(groups)]


def _draw(groups: Sequence[Group], title: str, folder: Path, output_dir: Path) -> dict[str, str]:
    """Draw the plots, and remove those of an earlier report; returns a caption by file."""
    paths = {name: output_dir / f"{name}.png" for name in ("pareto", "progress", "importances", "slices")}
    for path in paths.values():
        path.unlink(missing_ok=True)
    metric = groups[0].record.metric
    drawn = {
        f"{metric} and cost; connected: the Pareto set": search_plots.draw_pareto(groups, title, paths["pareto"]),
        "Best trial by epochs spent": search_plots.draw_progress(groups, title, paths["progress"], folder),
        "Importance of each key": search_plots.draw_importances(groups, title, paths["importances"]),
        f"{metric} against the values of each key": search_plots.draw_slices(groups, title, paths["slices"]),
    }
    return {path.name: caption for caption, path in drawn.items() if path is not None}


def summary(group: Group) -> str:
    """Summarise a search: the winner, the metric that it won by, and that of fresh seeds."""
    start, record = f"{group.label}: " if group.label else "", group.record
    if not group.finalists:
        return f"{start}no winner yet; {len(group.trials)} trials have started."
    metric = record.metric
    if record.cost:
        counts = f"{len(group.finalists)} of {len(group.trials)} trials"
        return f"{start}{counts} are the Pareto set of {metric} and {record.cost}."
    (best,) = group.finalists
    values = ", ".join(f"{key} = {text}" for key, text in group.values[best].items())
    searched = search_tables.figure_text(group.estimate_of(best), group.metric)
    tested, fresh = group.test_metric, ""
    if tests := group.estimate_of_tests(best):
        name = "" if tested.title == group.metric.title else f"{tested.title} of "
        fresh = f"; {name}{search_tables.figure_text(tests, tested)} on the test set with fresh seeds"
    return f"{start}best of {len(group.trials)} trials is {values}: {searched} on the validation set{fresh}."


def _notes(groups: Sequence[Group]) -> str:
    record = groups[0].record
    notes = [
        "The validation metric of a winner is the best of many, and so is too good on average (the winner's curse); "
        "the test with fresh seeds, whose runs had no part in the search, is not.",
        "Intervals are Student's, 95 %, over seeds only, not adjusted for their number: another search might find "
        "other winners.",
    ]
    if len(record.seeds) > 1 and not record.cost:
        notes.append(
            f"Further seeds went to the best {record.contenders} trials while they could still win: a trial whose "
            "paired difference to the leader has an interval below zero got no more."
        )
    if record.rungs and record.horizon == "final":
        notes.append(
            "Up to a rung, learning rates are those of the whole training: trials are compared at its beginning."
        )
    if record.cost == "latency_ms":
        measured = next((found for run in groups[0].runs if (found := run.run.read_latency())), {"hardware": "a CPU"})
        notes.append(
            f"latency_ms: one image on one thread of {measured['hardware']}, BatchNorm folded, float32, measured once "
            "per network. It has noise of some percent, so that networks of nearly equal latency may change places."
        )
    if any(group.has_tests for group in groups):
        notes.append(
            "Tests with fresh seeds hold out no validation part (datamodule.train_fraction still applies), and test "
            "the last epoch."
        )
    return "\n".join(f"- {note}" for note in notes)


def saved(groups: Sequence[Group]) -> str:
    """State what elimination saved: epochs trained against those of all trials, and of a full grid."""
    record = groups[0].record
    trained, trials = sum(group.epochs for group in groups), sum(len(group.trials) for group in groups)
    whole, further = trials * record.epochs, sum(group.further_epochs for group in groups)
    text = f"{trained} epochs were trained with the first seed, {100 * trained / whole:.0f} % of the {whole} that "
    text += f"{trials} trials of {record.epochs} epochs would take.{_full_grid(groups, trained)}"
    return text + (f" Further seeds took {further} epochs more." if further else "")


def _full_grid(groups: Sequence[Group], trained: int) -> str:
    record = groups[0].record
    sizes = [
        len(yaml.safe_load(f"[{text.removeprefix('choice(').removesuffix(')')}]"))
        if text.startswith("choice(")
        else math.inf
        for text in record.space.values()
    ]
    if math.inf in sizes:
        return ""
    whole = int(math.prod(sizes)) * record.epochs * len(groups)
    return f" The full grid would take {whole}: {100 * trained / whole:.0f} %."


def search_command(groups: Sequence[Group], with_tests: bool = True) -> str:
    """Return the command of the search, without machine-specific paths."""
    record, fixed = groups[0].record, _fixed(groups[0])
    grid: dict[str, dict[str, None]] = {}
    for group in groups:
        for text in group.overrides:
            grid.setdefault(text.partition("=")[0], {})[text.partition("=")[2]] = None
    varied = [f"{key}={','.join(values)}" for key, values in grid.items()]
    varied += [f"{key}={text}" for key, text in record.space.items()]
    seeds = [f"seed={','.join(map(str, record.seeds))}"] if list(record.seeds) != [0] else []
    return shlex.join(["python", "-m", "ghostexp", "-m", *fixed, *varied, *seeds, *_settings(record, with_tests)])


def _settings(record: SearchRecord, with_tests: bool) -> list[str]:
    values = {key: getattr(record, key) for key in DEFAULTS}
    named = {key: value for key, value in values.items() if value not in (DEFAULTS[key], None)}
    if record.trials is not None or record.sampler != "grid":
        named["trials"] = "null" if record.trials is None else record.trials
    named |= {"epochs": record.budget} if record.budget is not None else {}
    named |= {"hours": record.hours} if record.hours is not None else {}
    named |= {"rungs": list(record.rungs)} if record.rungs else {}
    named |= {"test_seeds": list(record.test_seeds)} if record.test_seeds and with_tests else {}
    named |= {"test_overrides": list(record.test_overrides)} if record.test_overrides else {}
    return [f"search={record.sampler}", *(f"search.{key}={value}".replace(" ", "") for key, value in named.items())]


def test_command(groups: Sequence[Group]) -> str:
    """Return the command that goes on from the search: trains its winners with fresh seeds, and tests them."""
    record = groups[0].record
    used = {*record.seeds, *record.test_seeds}
    fresh = [seed for seed in range(100, 200) if seed not in used][:FRESH]
    return f"{search_command(groups, with_tests=False)} {shlex.quote(f'search.test_seeds={fresh}'.replace(' ', ''))}"


def _fixed(group: Group) -> list[str]:
    """Return the overrides that all trials share, as recorded by the first."""
    trials = (run.run.path / ".hydra" / "overrides.yaml" for run in group.runs if not run.name.is_test)
    record = next(filter(Path.is_file, trials), None)
    lines = [str(text) for text in yaml.safe_load(record.read_bytes())] if record else []
    varied = {"seed", "output_dir", "scheduler.horizon", "n_jobs", "fail_fast", *group.record.space}
    varied -= {"scheduler.horizon"} if group.record.horizon == "final" else set()  # else it is the search's own
    varied |= {text.partition("=")[0] for text in group.overrides}
    kept = [text for text in lines if text.partition("=")[0] not in varied]
    return [f"{key}=DIR" if (key := text.partition("=")[0]) in MACHINE_SPECIFIC_KEYS else text for text in kept]
