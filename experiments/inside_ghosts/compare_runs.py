"""Compare the statistics of `task=visualize` for a ghost network, its baseline, and both before training.

    python experiments/inside_ghosts/compare_runs.py RUNS

RUNS has the four runs of README.md. Writes summary.csv and compare.png beside this file and prints the
tables of the page.
"""

import sys
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ghostexp.runs.csv_table import read_rows, write_rows

HERE = Path(__file__).parent
BLOCK = "layer1.0"  # the first residual block, in a table of its own as in arXiv 1911.11907, table 2
KINDS = ("identity", "shift", "blur", "edge", "mixed")
SIZES = (1, 3, 5, 7)
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ghost_resnet20": ("Ghost-ResNet-20", {"color": "black", "marker": "o", "linestyle": "-"}),
    "untrained_ghost_resnet20": ("Ghost-ResNet-20, untrained", {"color": "0.6", "marker": "o", "linestyle": ":"}),
    "resnet20": ("ResNet-20", {"color": "0.3", "marker": "s", "linestyle": "--", "markerfacecolor": "white"}),
    "untrained_resnet20": (
        "ResNet-20, untrained",
        {"color": "0.6", "marker": "s", "linestyle": ":", "markerfacecolor": "white"},
    ),
}
Rows = list[dict[str, str]]


def main() -> None:
    """Read the runs, write the table and the plot."""
    runs = Path(sys.argv[1])
    tables = {
        variant: {
            name: read_rows(runs / variant / "visualize" / f"{name}.csv") for name in ("layers", "ghosts", "pairs")
        }
        for variant in VARIANTS
    }
    rows = [row for variant, found in tables.items() for row in by_layer(variant, found)]
    write_rows(HERE / "summary.csv", rows)
    for variant, found in tables.items():
        print(
            f"{variant}: kinds {kinds(found['ghosts'])}; {measures(found['ghosts'])}"
            if found["ghosts"]
            else f"{variant}: no ghosts"
        )
        for size in SIZES:
            print(f"  unexplained at d = {size}: {100 * middle(rows, variant, f'unexplained_{size}'):.0f} %")
        for name in ("ghost_r", "ghost_r_others", "rank_fraction", "partner_r"):
            if any(row["variant"] == variant and name in row for row in rows):
                print(f"  {name}: {middle(rows, variant, name):.2f}")
    for variant in ("resnet20", "untrained_resnet20"):
        print_pairs(variant, tables[variant]["pairs"])
    draw(rows)


def by_layer(variant: str, tables: dict[str, Rows]) -> list[dict[str, float | str]]:
    """Return a row of medians for each layer of a network."""
    rows: list[dict[str, float | str]] = []
    for layer in tables["layers"]:
        name = layer["layer"]
        if name == BLOCK:
            continue
        pairs = [row for row in tables["pairs"] if row["layer"] == name and "nan" not in row.values()]
        ghosts = [row for row in tables["ghosts"] if row["layer"] == name and row["r"] != "nan"]
        row: dict[str, float | str] = {"variant": variant, "layer": name, "maps": int(layer["maps"])}
        row |= {"rank_fraction": float(layer["rank"]) / int(layer["maps"])}
        row |= {"intrinsic_rank_fraction": float(layer["rank_intrinsic"]) / int(layer["intrinsic"])}
        row |= {"partner_r": median(abs(float(pair["r"])) for pair in pairs)}
        row |= {f"unexplained_{size}": median(float(pair[f"unexplained_{size}"]) for pair in pairs) for size in SIZES}
        if ghosts:
            others = [float(ghost["r_others"]) for ghost in ghosts if ghost["r_others"] != "nan"]
            row |= {"ghost_r": median(abs(float(ghost["r"])) for ghost in ghosts), "ghost_r_others": median(others)}
        rows.append(row)
    return rows


def kinds(ghosts: Rows) -> str:
    """Format the fractions of filter kinds over all ghosts of a network, and their number."""
    fractions = {kind: sum(row["kind"] == kind for row in ghosts) / len(ghosts) for kind in KINDS}
    return f"of {len(ghosts)}: " + ", ".join(f"{kind} {100 * fraction:.1f} %" for kind, fraction in fractions.items())


def measures(ghosts: Rows) -> str:
    """Format the medians, over all filters, of the values that decide their kinds."""
    names = ("peak_fraction", "dc_gain", "lowpass_energy", "gradient_strength")
    return ", ".join(f"{name} {median(float(row[name]) for row in ghosts):.2f}" for name in names)


def middle(rows: list[dict[str, float | str]], variant: str, name: str) -> float:
    """Return the median over the layers of a variant."""
    return median(float(row[name]) for row in rows if row["variant"] == variant)


def print_pairs(variant: str, pairs: Rows) -> None:
    """Print the three most similar pairs of the first residual block, no map twice, with 1000 x their errors by d."""
    used: set[str] = set()
    for row in sorted(
        (row for row in pairs if row["layer"] == BLOCK and row["r"] != "nan"), key=lambda row: -abs(float(row["r"]))
    ):
        if len(used) < 6 and not used & {row["map"], row["partner"]}:
            used |= {row["map"], row["partner"]}
            errors = " | ".join(
                f"{1000 * float(row[f'mse_{size}']):.1f} ({100 * float(row[f'unexplained_{size}']):.0f} %)"
                for size in SIZES
            )
            print(f"| {variant} | {row['partner']} to {row['map']} | {float(row['r']):.2f} | {errors} |")


def draw(rows: list[dict[str, float | str]]) -> None:
    """Plot a panel per statistic, layers from input to head."""
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    panel(axes[0, 0], rows, "ghost_r", "median |r| of a ghost and the map it is made from")
    others = [float(row["ghost_r_others"]) for row in rows if row["variant"] == "ghost_resnet20"]
    axes[0, 0].plot(others, "x-", color="0.45", linewidth=0.8)
    axes[0, 0].text(len(others) - 1, 0.04, "crosses: Ghost-ResNet-20, with the other intrinsic maps", ha="right")
    panel(axes[0, 1], rows, "partner_r", "median |r| of a convolved map and the one most like it")
    panel(axes[1, 0], rows, "unexplained_3", "median fraction of variance unexplained by a 3 x 3 filter of that one")
    panel(axes[1, 1], rows, "rank_fraction", "effective rank over number of maps")
    handles, labels = axes[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle("ResNet-20 and its ghost version on CIFAR-10 (JPEG), layer by layer", fontsize=11)
    figure.savefig(HERE / "compare.png", dpi=110)


def panel(axis: Axes, rows: list[dict[str, float | str]], name: str, title: str) -> None:
    """Plot one statistic by layer, for every variant that has it."""
    layers = [str(row["layer"]) for row in rows if row["variant"] == "resnet20"]
    for variant, (label, style) in VARIANTS.items():
        values = [float(row[name]) for row in rows if row["variant"] == variant and name in row]
        if values:
            axis.plot(values, label=label, markersize=4, **style)
    axis.set_title(title, fontsize=10)
    axis.set(ylim=(0, 1))
    axis.set_xticks(range(len(layers)), layers, rotation=90, fontsize=7)
    axis.grid(axis="y", alpha=0.3)


if __name__ == "__main__":
    main()
