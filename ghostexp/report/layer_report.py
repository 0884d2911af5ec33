"""Build a page with tables about the feature maps and filters of layers."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from ghostexp.report.layer_plots import group
from ghostexp.runs.text_files import markdown_table

Rows = Sequence[Mapping[str, Any]]
KindFractions = Mapping[str, Mapping[str, float]]

ALIKE = 0.9  # |r| from which two maps count as similar


def build_layer_report(title: str, source: str, images: str, tables: Mapping[str, Rows], kinds: KindFractions) -> str:
    """Build the page in Markdown.

    tables: the rows of `layers`, `ghosts` and `pairs`. kinds: fractions of filters by layer, and of random ones.
    """
    layers, ghosts, pairs = (tables[name] for name in ("layers", "ghosts", "pairs"))
    parts = [f"# Inside {title}", f"Weights: {source}. Statistics over {images}.", _maps(layers)]
    parts += [_ghosts(ghosts), _kinds(kinds)] if ghosts else ["None of these layers has ghosts."]
    parts += [_fits(pairs), _files(bool(ghosts))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _maps(layers: Rows) -> str:
    cells = [
        [
            f"`{row['layer']}`",
            f"{row['maps']}",
            f"{row['intrinsic']}" if row["intrinsic"] < row["maps"] else "all",
            f"{row['height']} x {row['width']}",
            f"{row['constant']}",
            f"{row['rank']:.1f}",
            f"{row['rank_intrinsic']:.1f}",
        ]
        for row in layers
    ]
    heads = ["layer", "maps", "intrinsic", "size", "constant", "effective rank", "of the intrinsic maps alone"]
    return (
        f"## Maps\n\n{markdown_table(heads, cells)}\n\nThe effective rank is exp of the entropy of the normalised "
        "singular values of the maps, each centred and scaled: the number of directions that they span, at most the "
        "number of maps. Maps are the outputs of a layer, before attention, BatchNorm or ReLU after it."
    )


def _ghosts(rows: Rows) -> str:
    others = group(rows, "r_others")
    lines = []
    for layer, values in group(rows, "r").items():
        sizes = [abs(value) for value in values]
        alike = f"{100 * sum(size >= ALIKE for size in sizes) / max(1, len(sizes)):.0f} %"
        lines.append([f"`{layer}`", f"{len(sizes)}", _median(sizes), alike, _median(others[layer])])
    heads = ["layer", "ghosts", "median of |r|", f"|r| >= {ALIKE}", "with other intrinsic maps"]
    return (
        f"## Ghosts and their intrinsic maps\n\n{markdown_table(heads, lines)}\n\nr is Pearson's, each pixel of each "
        "image one observation. Constant ghosts, and those of constant maps, are left out."
    )


def _median(values: Sequence[float]) -> str:
    return f"{median(values):.2f}" if values else "none"


def _kinds(kinds: KindFractions) -> str:
    names = list(next(iter(kinds.values())))
    cells = [
        [f"`{layer}`" if layer != "noise" else layer, *(f"{100 * row[name]:.0f} %" for name in names)]
        for layer, row in kinds.items()
    ]
    return (
        f"## Filters of the ghosts\n\n{markdown_table(['layer', *names], cells)}\n\nNoise: filters of random taps, "
        "as before training. An identity or a shift has two thirds of all weight in one tap; a blur is a low-pass "
        "filter; an edge filter removes constants and is a derivative or a high-pass filter; the rest is mixed."
    )


def _fits(rows: Rows) -> str:
    columns = [name for name in (rows[0] if rows else {}) if name.startswith("unexplained_")]
    medians = {name: group(rows, name) for name in columns}
    similar = group(rows, "r")
    cells = [
        [
            f"`{layer}`",
            f"{median(map(abs, values)):.2f}",
            *(f"{100 * median(medians[name][layer]):.0f} %" for name in columns),
        ]
        for layer, values in similar.items()
        if values
    ]
    if not cells:
        return ""
    heads = ["layer", "median of |r|", *(f"d = {name.rpartition('_')[2]}" for name in columns)]
    return (
        f"## Maps as linear functions of other maps\n\n{markdown_table(heads, cells)}\n\nOf each convolved map, "
        "r with its partner, the most similar one, and the fraction of its variance that the best d x d filter of the "
        "partner, by least squares, leaves unexplained; medians over maps. `pairs.csv` has the mean squared errors, "
        "in the units of the maps."
    )


def _files(has_ghosts: bool) -> str:
    names = ["maps_*.png", "kernels_*.png", "correlations.png", "kinds.png"] if has_ghosts else []
    names += ["pairs_*.png", "fits.png", "layers.csv", *(["ghosts.csv"] if has_ghosts else []), "pairs.csv"]
    return f"Beside this page: {', '.join(f'`{name}`' for name in names)}."
