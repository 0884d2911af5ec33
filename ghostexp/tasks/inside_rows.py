"""What was measured inside layers as rows of tables."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ghostexp.analysis.inside import Inside
from ghostexp.analysis.linear import SIZES

Rows = list[dict[str, Any]]


def layer_rows(found: Mapping[str, Inside]) -> Rows:
    """A row for each layer."""
    rows: Rows = []
    for name, inside in found.items():
        maps, height, width = inside.shape
        sizes = {"maps": maps, "intrinsic": inside.intrinsic, "height": height, "width": width}
        ranks = {"rank": inside.rank, "rank_intrinsic": inside.rank_intrinsic}
        rows.append({"layer": name, **sizes, "constant": inside.constant, **ranks})
    return rows


def ghost_rows(found: Mapping[str, Inside]) -> Rows:
    """A row for each ghost: the map it is made from, r with it, and what its filter does."""
    rows: Rows = []
    for name, inside in found.items():
        numbers = (inside.parents.tolist(), inside.ghost_r.tolist(), inside.other_r.tolist())
        for ghost, (parent, r, others, kernel) in enumerate(zip(*numbers, inside.kernels, strict=True)):
            measured = asdict(kernel)
            down, right = measured.pop("shift")
            place = {"layer": name, "ghost": inside.intrinsic + ghost, "intrinsic": parent, "r": r, "r_others": others}
            rows.append({**place, **measured, "down": down, "right": right})
    return rows


def pair_rows(found: Mapping[str, Inside]) -> Rows:
    """A row for each map that is convolved: its partner, r with it, and the errors of the best filters from it."""
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
