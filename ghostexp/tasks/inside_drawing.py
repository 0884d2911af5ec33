"""Which maps of a layer are drawn and how they are labelled, and every figure of `task=visualize`."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ghostexp.analysis.ghosts import distinct_pairs
from ghostexp.analysis.inside import Inside
from ghostexp.analysis.layers import Maps, ghost_kernels, makes_ghosts, maps_of
from ghostexp.analysis.linear import SIZES
from ghostexp.report import inside_figures as figures
from ghostexp.report.inside_figures import Array, Shown
from ghostexp.tasks.inside_rows import Rows, ghost_rows

COLUMNS = 8  # of maps in a figure

Layers = Mapping[str, nn.Module]
Found = Mapping[str, Inside]


def draw_layers(
    network: nn.Module, layers: Layers, found: Found, images: Tensor, pixels: Tensor, title: str, folder: Path
) -> list[Path]:
    """A figure of pairs for each layer, and for those that make ghosts figures of these and of their filters.

    images: as the network reads them, (N, C, H, W). pixels: the same as a person sees them.
    """
    drawn: list[Path] = []
    for name, maps in maps_of(network, layers, images).items():
        inside, where = found[name], f"{title}, {name}"
        paths = {kind: folder / f"{kind}_{name}.png" for kind in ("maps", "kernels", "pairs")}
        module = layers[name]
        if makes_ghosts(module):
            shown = ghosts_shown(pixels, maps, inside)
            figures.draw_maps(shown, f"{where}: ghosts below the maps they are made from", paths["maps"])
            filters, rows = _array(ghost_kernels(module)), ghost_rows({name: inside})
            figures.draw_kernels(filters, rows, f"{where}: the filters that make ghosts", paths["kernels"])
            drawn += [paths["maps"], paths["kernels"]]
        if len(inside.partners):
            shown, which = pairs_shown(pixels, maps, inside), "intrinsic maps" if inside.kernels else "maps"
            figures.draw_maps(shown, f"{where}: the {which} that are most alike", paths["pairs"])
            drawn.append(paths["pairs"])
    return drawn


def draw_summaries(
    tables: Mapping[str, Rows], kinds: Mapping[str, Mapping[str, float]], title: str, folder: Path
) -> list[Path]:
    """The figures over all layers."""
    drawn: list[Path] = []
    if tables["pairs"]:
        drawn.append(folder / "fits.png")
        figures.draw_fits(tables["pairs"], SIZES, f"{title}: a map as a filtered copy of its partner", drawn[-1])
    if tables["ghosts"]:
        drawn += [folder / "correlations.png", folder / "kinds.png"]
        figures.draw_correlations(tables["ghosts"], f"{title}: ghosts and the maps they are made from", drawn[-2])
        figures.draw_kinds(kinds, f"{title}: what the filters of the ghosts do", drawn[-1])
    return drawn


def ghosts_shown(pixels: Tensor, maps: Maps, inside: Inside) -> Shown:
    """Intrinsic maps with their ghosts below, from those most like their first ghost to those least like it."""
    assert maps.ghosts is not None
    size = torch.full((inside.intrinsic,), -1.0, dtype=torch.float64)  # of those without ghosts
    size[inside.parents[:: maps.each]] = inside.ghost_r[:: maps.each].abs().nan_to_num(0)
    order = size.argsort(descending=True)[: int((size >= 0).sum())]
    places = torch.linspace(0, len(order) - 1, min(COLUMNS, len(order))).round().long()
    columns, labels = [], []
    for parent in order[places].tolist():
        ghosts = (inside.parents == parent).nonzero().flatten().tolist()
        columns.append([_array(maps.intrinsic[:, parent]), *(_array(maps.ghosts[:, ghost]) for ghost in ghosts)])
        made = [f"{inside.kernels[ghost].kind}, r = {float(inside.ghost_r[ghost]):.2f}" for ghost in ghosts]
        labels.append([f"map {parent}", *made])
    rows = ["intrinsic", *("ghost" if maps.each == 1 else f"ghost {number + 1}" for number in range(maps.each))]
    return Shown(_array(pixels.movedim(1, -1)), columns, labels, rows)


def pairs_shown(pixels: Tensor, maps: Maps, inside: Inside) -> Shown:
    """The pairs of convolved maps that are most alike, one below the other."""
    pairs = distinct_pairs(inside.partners, inside.partner_r.nan_to_num(0), COLUMNS)
    columns = [[_array(maps.intrinsic[:, index]) for index in pair] for pair in pairs]
    labels = [[f"map {partner}", f"map {index}, r = {float(inside.partner_r[index]):.2f}"] for partner, index in pairs]
    return Shown(_array(pixels.movedim(1, -1)), columns, labels, ["map", "partner"])


def _array(tensor: Tensor) -> Array:
    return tensor.float().cpu().numpy()
