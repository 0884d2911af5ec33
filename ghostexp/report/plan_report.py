"""Show which convolutions of a network pay as ghost modules: a page and a plot, from the rows of task=plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ghostexp.report.plot_style import MARKERS, literal_text, new_figure, save
from ghostexp.runs.text_files import markdown_table

Row = Mapping[str, Any]  # of layers.csv


@dataclass(frozen=True)
class LayerGroup:
    """Layers of one shape, which were measured once: their names, and the rows of each form, the ordinary one first."""

    names: list[str]
    forms: dict[tuple[int, int], list[Row]]

    @property
    def ordinary(self) -> Row:
        return self.forms[1, 1][0]

    @property
    def title(self) -> str:
        return f"{self.ordinary['shape']}" + (f"  (x {len(self.names)})" if len(self.names) > 1 else "")

    def planned(self, form: tuple[int, int]) -> int:
        """Count the layers for which a form is planned."""
        return sum(row["planned"] for row in self.forms[form])


def group_layers(rows: Sequence[Row]) -> list[LayerGroup]:
    """Group the rows of layers that were measured together, in the network's order."""
    by_layer: dict[str, list[Row]] = {}
    for row in rows:
        by_layer.setdefault(row["layer"], []).append(row)
    groups: dict[tuple, LayerGroup] = {}
    for name, forms in by_layer.items():
        key = (forms[0]["shape"], *(row["speedup"] for row in forms), forms[0]["ms"])
        group = groups.setdefault(key, LayerGroup([], {}))
        group.names.append(name)
        for row in forms:
            group.forms.setdefault((row["ratio"], row["dw_size"]), []).append(row)
    return list(groups.values())


def plan_page(title: str, setting: str, rows: Sequence[Row], networks: Sequence[Row], command: str) -> str:
    """Write the page: what is planned, the whole networks, the layers."""
    planned = {row["layer"] for row in rows if row["planned"] and row["ratio"] > 1}
    count = len({row["layer"] for row in rows})
    return (
        "\n\n".join(
            (
                f"# {title}",
                f"{len(planned)} of {count} convolutions become ghost modules. {setting}.",
                f"```bash\n{command}\n```",
                _networks(networks),
                "Whole networks in turn, each with its speed-up over the ordinary one: measured, and predicted from "
                "the ordinary network's time and what each layer saves.",
                "![Speed-up of each layer, and the layers' shares of the time](plan.png)",
                _layers(group_layers(rows)),
                "Median time of a layer with the BatchNorm and activation that follow; speed-up over the ordinary "
                "convolution with the quartiles of the rounds. A ghost module pays if its lower quartile is above 1.",
            )
        )
        + "\n"
    )


def _networks(networks: Sequence[Row]) -> str:
    head = ("network", "ms (quartiles)", "speed-up", "predicted", "error", "parameters", "MACs")
    cells = [
        (
            row["network"],
            f"{row['ms']:.2f} ({row['low_ms']:.2f} to {row['high_ms']:.2f})",
            f"{row['speedup']:.3f}",
            f"{row['predicted_speedup']:.3f}",
            f"{row['error_percent']:+.1f} %",
            f"{row['params']:,}",
            f"{row['macs']:,}",
        )
        for row in networks
    ]
    return markdown_table(head, cells, right=True)


def _layers(groups: Sequence[LayerGroup]) -> str:
    head = ("layer", "shape", "form", "ms", "speed-up (quartiles)", "parameters", "MACs", "planned")
    cells = []
    for group in groups:
        more = f" and {len(group.names) - 1} more" if len(group.names) > 1 else ""
        for number, (form, rows) in enumerate(group.forms.items()):
            row, count = rows[0], group.planned(form)
            spread = f"{row['speedup']:.2f} ({row['speedup_low']:.2f} to {row['speedup_high']:.2f})"
            cells.append(
                (
                    "" if number else f"`{group.names[0]}`{more}",
                    "" if number else row["shape"],
                    form_name(form),
                    f"{row['ms']:.3f}",
                    spread if number else "",
                    f"{row['params']:,}",
                    f"{row['macs']:,}",
                    f"{count} of {len(group.names)}" if count and len(group.names) > 1 else "yes" if count else "",
                )
            )
    return markdown_table(head, cells)


def form_name(form: tuple[int, int]) -> str:
    """Name a form by its ratio and dw_size."""
    ratio, dw_size = form
    return "ordinary" if ratio == 1 else f"s = {ratio}, d = {dw_size}"


@literal_text
def draw_plan(rows: Sequence[Row], title: str, path: Path) -> Path:
    """Plot the speed-up of each form of each layer, planned ones filled, beside the layers' times."""
    groups = group_layers(rows)
    figure = new_figure(11, 1.6 + 0.3 * len(groups))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    forms = list(dict.fromkeys(form for group in groups for form in group.forms if form != (1, 1)))
    places = range(len(groups))
    for number, form in enumerate(forms):
        shift = 0.5 * ((number + 0.5) / len(forms) - 0.5)
        for place, group in zip(places, groups, strict=True):
            if form in group.forms:
                _mark(left, place + shift, group, form, number)
        left.plot([], [], MARKERS[number % len(MARKERS)], color="black", label=form_name(form))
    left.axvline(1, color="0.4", linewidth=1)
    left.set(xlabel="speed-up of the ghost module over the convolution\nfilled: planned; lines: quartiles of rounds")
    left.set_yticks(places, [group.title for group in groups])
    left.invert_yaxis()
    left.grid(axis="x", alpha=0.3)
    left.legend(frameon=False, fontsize=8)
    total = [len(group.names) * group.ordinary["ms"] for group in groups]
    right.barh(places, total, color="0.7")
    right.set(xlabel="all of these convolutions, ordinary, ms")
    return save(figure, title, path, size=9)


def _mark(axis: Any, place: float, group: LayerGroup, form: tuple[int, int], number: int) -> None:
    row = group.forms[form][0]
    shade = "black" if row["speedup"] >= 1 else "0.5"
    axis.plot([row["speedup_low"], row["speedup_high"]], [place, place], color=shade, linewidth=1.2)
    face = shade if group.planned(form) else "white"
    axis.plot(row["speedup"], place, MARKERS[number % len(MARKERS)], color=shade, markerfacecolor=face, markersize=6)
