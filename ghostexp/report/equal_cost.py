"""Compare ghost networks with ordinary networks of equal MACs: are ghosts better than fewer channels?"""

from dataclasses import dataclass

from ghostexp.report.statistics import Paired, paired
from ghostexp.report.tables import Cells, difference_text
from ghostexp.report.variants import RATIO, Study, Variant

TOLERANCE = 0.05  # relative difference of MACs that counts as equal


@dataclass(frozen=True)
class EqualCost:
    """A ghost network, and the ordinary network of nearest MACs."""

    ghost: Variant
    ordinary: Variant
    difference: Paired | None  # of the ghost network to the ordinary one, in points


def equal_cost_pairs(study: Study) -> list[EqualCost]:
    """Pair each ghost variant with the ordinary one of equal MACs that differs in keys of the model only."""
    if RATIO not in study.keys:
        return []
    ordinary = [variant for variant in study.variants if variant.is_ordinary]
    pairs = []
    for ghost in study.variants:
        equals = [other for other in ordinary if _are_comparable(ghost, other)]
        if not ghost.is_ordinary and equals:
            nearest = min(equals, key=lambda other: abs(_macs(other) / _macs(ghost) - 1))
            difference = paired(ghost.by_seed, nearest.by_seed, ghost.metric.difference_range)
            pairs.append(EqualCost(ghost, nearest, difference))
    return pairs


def _are_comparable(ghost: Variant, other: Variant) -> bool:
    training = {key for key in ghost.values if key.partition(".")[0] != "model"}
    if any(ghost.values[key] != other.values[key] for key in training) or not (_macs(ghost) and _macs(other)):
        return False
    return abs(_macs(other) / _macs(ghost) - 1) <= TOLERANCE


def _macs(variant: Variant) -> float:
    return variant.median("macs") or 0.0


def equal_cost_summary(study: Study) -> str:
    """Summarise the differences at equal MACs, with intervals; empty without such pairs."""
    parts = [
        f"{pair.ghost.label} against {pair.ordinary.label}: {difference_text(pair.difference.estimate, study.metric)}"
        for pair in equal_cost_pairs(study)
        if pair.difference
    ]
    unit = ", in points" if study.metric.unit else ""
    equal = f"At equal MACs (within {100 * TOLERANCE:g} %), a ghost network minus an ordinary one{unit}"
    return f"{equal}: {'; '.join(parts)}." if parts else ""


def equal_cost_cells(study: Study) -> Cells:
    """Format the pairs of equal MACs as a table; no rows without pairs."""
    compared = study.metric.difference_label(f"{study.metric.title}, ghost minus ordinary")
    head = ["ghost network", "MACs", "ordinary network", "MACs", compared]
    return [
        head,
        *(
            [
                pair.ghost.label,
                f"{_macs(pair.ghost):,.0f}",
                pair.ordinary.label,
                f"{_macs(pair.ordinary):,.0f}",
                difference_text(pair.difference.estimate, study.metric) if pair.difference else "no common seeds",
            ]
            for pair in equal_cost_pairs(study)
        ),
    ]
