"""Build the tables and figures of `task=visualize` from layer statistics."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ghostexp.analysis.feature_maps import FeatureMaps, cheap_filters, extract_feature_maps, has_cheap_operation
from ghostexp.analysis.layer_statistics import LayerStatistics
from ghostexp.analysis.similarity import SIZES, distinct_pairs
from ghostexp.report import layer_plots
from ghostexp.report.layer_plots import Array, MapGrid

Rows = list[dict[str, Any]]


def layer_rows(found: Mapping[str, LayerStatistics]) -> Rows:
    """Build a row for each layer."""
    rows: Rows = []
    for name, inside in found.items():
        maps, height, width = inside.shape
        sizes = {"maps": maps, "intrinsic": inside.intrinsic, "height": height, "width": width}
        ranks = {"rank": inside.rank, "rank_intrinsic": inside.rank_intrinsic}
        rows.append({"layer": name, **sizes, "constant": inside.constant, **ranks})
    return rows


def ghost_rows(found: Mapping[str, LayerStatistics]) -> Rows:
    """Build a row for each ghost: its intrinsic map, r with it, and statistics of its filter."""
    rows: Rows = []
    for name, inside in found.items():
        numbers = (inside.source_map.tolist(), inside.ghost_r.tolist(), inside.other_r.tolist())
        for ghost, (parent, r, others, kernel) in enumerate(zip(*numbers, inside.kernels, strict=True)):
            measured = asdict(kernel)
            down, right = measured.pop("shift")
            ghost_info = {
                "layer": name,
                "ghost": inside.intrinsic + ghost,
                "intrinsic": parent,
                "r": r,
                "r_others": others,
            }
            rows.append({**ghost_info, **measured, "down": down, "right": right})
    return rows


def pair_rows(found: Mapping[str, LayerStatistics]) -> Rows:
    """Build a row for each convolved map: its partner, r with it, and the errors of the best filters from it."""
    rows: Rows = []
    for name, inside in found.items():
        pairs = zip(inside.partners.tolist(), inside.partner_r.tolist(), strict=True)
        for target, (partner, r) in enumerate(pairs):
            errors = zip(SIZES, inside.errors[target].tolist(), inside.unexplained[target].tolist(), strict=True)
            row = {"layer": name, "map": target, "partner": partner, "r": r}
            for size, mse, unexplained in errors:
                row |= {f"mse_{size}": mse, f"unexplained_{size}": unexplained}
            rows.append(row)
    return rows


COLUMNS = 8  # of maps in a figure

Layers = Mapping[str, nn.Module]
Found = Mapping[str, LayerStatistics]


def draw_layers(
    network: nn.Module, layers: Layers, found: Found, images: Tensor, pixels: Tensor, title: str, folder: Path
) -> list[Path]:
    """Draw pairs of maps for each layer, and ghosts and their filters for ghost modules.

    images: normalised, (N, C, H, W). pixels: the same in [0, 1].
    """
    drawn: list[Path] = []
    for name, maps in extract_feature_maps(network, layers, images).items():
        inside, where = found[name], f"{title}, {name}"
        paths = {kind: folder / f"{kind}_{name}.png" for kind in ("maps", "kernels", "pairs")}
        module = layers[name]
        if has_cheap_operation(module):
            shown = ghosts_shown(pixels, maps, inside)
            layer_plots.draw_maps(shown, f"{where}: ghosts below the maps they are made from", paths["maps"])
            filters, rows = _array(cheap_filters(module)), ghost_rows({name: inside})
            layer_plots.draw_kernels(filters, rows, f"{where}: the filters that make ghosts", paths["kernels"])
            drawn += [paths["maps"], paths["kernels"]]
        if len(inside.partners):
            shown, which = pairs_shown(pixels, maps, inside), "intrinsic maps" if inside.kernels else "maps"
            layer_plots.draw_maps(shown, f"{where}: the {which} that are most alike", paths["pairs"])
            drawn.append(paths["pairs"])
    return drawn


def draw_summaries(
    tables: Mapping[str, Rows], kinds: Mapping[str, Mapping[str, float]], title: str, folder: Path
) -> list[Path]:
    """Draw the figures over all layers."""
    drawn: list[Path] = []
    if tables["pairs"]:
        drawn.append(folder / "fits.png")
        layer_plots.draw_fits(tables["pairs"], SIZES, f"{title}: a map as a filtered copy of its partner", drawn[-1])
    if tables["ghosts"]:
        drawn += [folder / "correlations.png", folder / "kinds.png"]
        layer_plots.draw_correlations(tables["ghosts"], f"{title}: ghosts and the maps they are made from", drawn[-2])
        layer_plots.draw_kinds(kinds, f"{title}: what the filters of the ghosts do", drawn[-1])
    return drawn


def ghosts_shown(pixels: Tensor, maps: FeatureMaps, inside: LayerStatistics) -> MapGrid:
    """Select intrinsic maps and their ghosts, from highest to lowest correlation with the first ghost."""
    assert maps.ghosts is not None
    size = torch.full((inside.intrinsic,), -1.0, dtype=torch.float64)  # of those without ghosts
    size[inside.source_map[:: maps.ghosts_per_map]] = inside.ghost_r[:: maps.ghosts_per_map].abs().nan_to_num(0)
    order = size.argsort(descending=True)[: int((size >= 0).sum())]
    positions = torch.linspace(0, len(order) - 1, min(COLUMNS, len(order))).round().long()
    columns, labels = [], []
    for parent in order[positions].tolist():
        ghosts = (inside.source_map == parent).nonzero().flatten().tolist()
        columns.append([_array(maps.intrinsic[:, parent]), *(_array(maps.ghosts[:, ghost]) for ghost in ghosts)])
        made = [f"{inside.kernels[ghost].kind}, r = {float(inside.ghost_r[ghost]):.2f}" for ghost in ghosts]
        labels.append([f"map {parent}", *made])
    rows = [
        "intrinsic",
        *("ghost" if maps.ghosts_per_map == 1 else f"ghost {number + 1}" for number in range(maps.ghosts_per_map)),
    ]
    return MapGrid(_array(pixels.movedim(1, -1)), columns, labels, rows)


def pairs_shown(pixels: Tensor, maps: FeatureMaps, inside: LayerStatistics) -> MapGrid:
    """Select the most similar pairs of convolved maps."""
    pairs = distinct_pairs(inside.partners, inside.partner_r.nan_to_num(0), COLUMNS)
    columns = [[_array(maps.intrinsic[:, index]) for index in pair] for pair in pairs]
    labels = [[f"map {partner}", f"map {index}, r = {float(inside.partner_r[index]):.2f}"] for partner, index in pairs]
    return MapGrid(_array(pixels.movedim(1, -1)), columns, labels, ["map", "partner"])


def _array(tensor: Tensor) -> Array:
    return tensor.float().cpu().numpy()
