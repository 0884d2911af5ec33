"""Format the table of a study, one row per variant, as Markdown, CSV and LaTeX; and one row per run."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from ghostexp.report.load_runs import Run, RunStatus
from ghostexp.report.published import PublishedMatch, published_results
from ghostexp.report.statistics import Estimate
from ghostexp.report.variants import Study, Variant, as_text, symbol
from ghostexp.runs.metrics import Metric
from ghostexp.runs.text_files import markdown_table

Cells = list[list[str]]  # the first row is the head
LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "$": r"\$", "{": r"\{", "}": r"\}"}
LATEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def cells(study: Study, in_millions: bool = False) -> Cells:
    """Format the table as text, with a column for the hardware only if it differs.

    in_millions: counts in millions with two decimals, as in papers, instead of exact.
    """
    metric = study.metric
    count, unit = (_millions, ", M") if in_millions else (_count, "")
    columns: dict[str, Callable[[Variant], str]] = {
        "variant": lambda variant: variant.label,
        "n": lambda variant: str(variant.accuracy.n),
        f"test {metric.label}": lambda variant: metric.number(variant.accuracy.mean),
        "sd": lambda variant: "" if variant.accuracy.sd is None else metric.number(variant.accuracy.sd),
        "95 % interval": lambda variant: interval(variant.accuracy, metric),
        metric.difference_label(f"difference to {baseline_label(study)}"): lambda variant: _difference(variant, study),
        f"parameters{unit}": lambda variant: count(variant.median("params")),
        f"MACs{unit}": lambda variant: count(variant.median("macs")),
        "training, img/s": lambda variant: _count(variant.median("images_per_second")),
        "training, s": lambda variant: _count(variant.median("train_seconds")),
    }
    if len(hardware(study.runs)) > 1:
        columns["hardware"] = lambda variant: "; ".join(hardware(variant.runs))
    for who in ("paper", "replication"):
        if any(row.who == who for variant in study.variants for row in published_results(variant)):
            columns[f"{who}, % (ours minus it)"] = lambda variant, who=who: _published(variant, who)
    return [list(columns), *([write(variant) for write in columns.values()] for variant in study.variants)]


def baseline_label(study: Study) -> str:
    """Return what the baselines have in common: `s = 1`."""
    baselines = [variant.baseline for variant in study.variants if variant.baseline]
    labels = {variant.label for variant in baselines}
    if len(labels) == 1:
        return labels.pop()
    common = {
        key: as_text(study.baseline[key] if key in study.baseline else baselines[0].values[key])
        for key in study.keys
        if key in study.baseline
        or (len(study.levels(key)) > 1 and len({as_text(variant.values[key]) for variant in baselines}) == 1)
    }
    return ", ".join(f"{symbol(key)} = {text}" for key, text in common.items()) or "a baseline"


def interval(estimate: Estimate, metric: Metric) -> str:
    """Format an interval, `[93.10, 94.20]`; of two values, `{93.10, 94.20}`; of a single one, nothing."""
    return _in_brackets(estimate, metric.number)


def difference_text(estimate: Estimate, metric: Metric) -> str:
    """Format a difference: `+0.22 [-0.10, +0.54]`, `+0.22 {+0.10, +0.34}` of two values, or `+0.22` of one."""
    return f"{metric.signed(estimate.mean)} {_in_brackets(estimate, metric.signed)}".rstrip()


def _in_brackets(estimate: Estimate, text: Callable[[float], str]) -> str:
    if estimate.interval is not None:
        return f"[{', '.join(map(text, estimate.interval))}]"
    return f"{{{', '.join(map(text, estimate.values))}}}" if estimate.values else ""


def hardware(runs: Sequence[Run]) -> list[str]:
    """Return the different machines of runs."""
    return sorted({run.machine for run in runs})


def _difference(variant: Variant, study: Study) -> str:
    if variant.baseline is None:
        return "baseline" if study.is_baseline(variant) else "no baseline"
    if variant.difference is None:
        return "no common seeds"
    found = variant.difference.estimate
    if found.n == 1:
        return f"{study.metric.signed(found.mean)} (1 pair: no interval)"
    pairs = f" ({found.n} pairs)" if variant.difference.left_out else ""
    return difference_text(found, study.metric) + pairs


def _published(variant: Variant, who: str) -> str:
    rows = [row for row in published_results(variant) if row.who == who]
    signed = variant.metric.signed
    return "; ".join(f"{row.accuracy:.2f} ({signed(variant.accuracy.mean - row.accuracy)})" for row in rows)


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _millions(value: float | None) -> str:
    return "" if value is None else f"{value / 1e6:,.2f}"


def markdown(rows: Cells) -> str:
    """Format a Markdown table."""
    return markdown_table(rows[0], rows[1:], right=True)


def latex(rows: Cells, caption: str, label: str) -> str:
    r"""Format a two-column LaTeX table for `\input`; needs booktabs."""
    head, *body = [[_escape(cell) for cell in row] for row in rows]
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table*}",
        r"\centering\footnotesize\setlength{\tabcolsep}{2pt}",
        rf"\caption{{{_escape(caption)}}}",
        rf"\label{{tab:{re.sub('[^A-Za-z0-9]+', '-', label)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        " & ".join(_stacked(cell, r", | to | \(ours | (?=\()") for cell in head) + r" \\",
        r"\midrule",
        *(" & ".join(_stacked(cell, "; ") for cell in row) + r" \\" for row in body),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    escaped = "".join(LATEX.get(character, character) for character in text)
    return re.sub(r"(?<![\w.])([+-])(?=\d)", r"$\1$", escaped)


def _stacked(cell: str, breaks: str) -> str:
    """Break a cell into several short lines, after each match of `breaks`."""
    lines = re.sub(breaks, lambda found: found[0].rstrip() + r" \\ ", cell)
    return cell if lines == cell else rf"\begin{{tabular}}[b]{{@{{}}r@{{}}}}{lines}\end{{tabular}}"


def variant_rows(study: Study) -> list[dict[str, Any]]:
    """Return the table as numbers, for table.csv; missing values are empty."""
    return [_variant_row(variant, study) for variant in study.variants]


def _variant_row(variant: Variant, study: Study) -> dict[str, Any]:
    found, difference = variant.accuracy, variant.difference.estimate if variant.difference else None
    rows, digits = published_results(variant), 4 if study.metric.unit else 8
    return {
        "variant": variant.label,
        **{key: as_text(value) for key, value in variant.values.items()},
        "n": found.n,
        **_estimate(study.metric.title, found, digits),
        "baseline": variant.baseline.label if variant.baseline else "",
        "pairs": difference.n if difference else "",
        **_estimate("difference", difference, digits),
        **{key: variant.median(key) for key in ("params", "macs", "images_per_second", "train_seconds")},
        "hardware": "; ".join(hardware(variant.runs)),
        **{who: _all(rows, who) for who in ("paper", "replication")},
    }


def _estimate(name: str, found: Estimate | None, digits: int) -> dict[str, Any]:
    low, high = found.interval if found and found.interval else (None, None)
    values = {"mean": found.mean, "sd": found.sd} if found else {"mean": None, "sd": None}
    values |= {"low": low, "high": high}
    return {f"{name}_{key}": "" if value is None else round(value, digits) for key, value in values.items()}


def _all(rows: Sequence[PublishedMatch], who: str) -> str:
    return " ".join(str(row.accuracy) for row in rows if row.who == who)


def run_rows(study: Study) -> list[dict[str, Any]]:
    """Return one row per run, those in no variant included, for results.csv."""
    counted = [_run_row(run, variant.label, study) for variant in study.variants for run in variant.runs]
    return counted + [_run_row(run, "", study) for run in study.others]


def _run_row(run: Run, variant: str, study: Study) -> dict[str, Any]:
    row = {"run": run.name, "state": run.state.value, "variant": variant}
    row |= {key: as_text(run.value(key)) if run.has(key) else "" for key in study.keys}
    row |= {
        "seed": run.config.get("seed", ""),
        study.metric.title: run.test.get(study.metric.name, ""),
        "loss": run.test.get("test/loss", ""),
    }
    row |= {
        key: run.result.get(key, "")
        for key in ("params", "macs", "images_per_second", "train_seconds", "epochs", "steps", "test_checkpoint")
    }
    row["hardware"] = run.machine if run.result else ""
    row |= {key: run.result.get(key, "") for key in ("started", "git", "fingerprint")}
    return row | {"note": run.note if run.state is not RunStatus.FINISHED else ""}
