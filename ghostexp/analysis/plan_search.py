"""Choose a form for each layer of a network under a goal."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from ghostexp.analysis.placement import LayerForm

Goal = Literal["fastest", "fewest_macs", "most_macs"]
Forms = Mapping[str, Sequence[LayerForm]]


def choose_forms(forms: Forms, goal: Goal, saved_ms: float = 0.0) -> dict[str, LayerForm]:
    """Choose a form for each layer.

    fastest: the fastest of those that pay, else the ordinary one. fewest_macs and most_macs: all layers together are
    faster than in their ordinary form by at least `saved_ms`, with as few or as many MACs as possible: the exact
    solution of the multiple-choice knapsack. There, single layers may be slower if others make up for it.
    Raises ValueError: no choice is that fast.
    """
    if goal == "fastest":
        return {name: min((form for form in of if form.pays), key=lambda form: form.ms) for name, of in forms.items()}
    flat = [form for of in forms.values() for form in of]
    layer_of = np.repeat(np.arange(len(forms)), [len(of) for of in forms.values()])
    one_each = (np.arange(len(forms))[:, None] == layer_of).astype(float)
    times, macs = np.array([form.ms for form in flat]), np.array([form.macs for form in flat], dtype=float)
    limit = sum(of[0].ms for of in forms.values()) - saved_ms
    fastest = sum(min(form.ms for form in of) for of in forms.values())
    if fastest > limit:
        raise ValueError(
            f"saves at most {sum(of[0].ms for of in forms.values()) - fastest:.3g} ms of {saved_ms:.3g} ms"
        )
    found = milp(
        (1 if goal == "fewest_macs" else -1) * macs / max(macs.max(), 1.0),
        integrality=np.ones(len(flat)),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(times[None], -np.inf, limit)],
        options={"time_limit": 20.0, "mip_rel_gap": 1e-4},
    )
    assert found.x is not None, found.message
    return {form.layer: form for form, chosen in zip(flat, found.x, strict=True) if chosen > 0.5}


def predict_ms(chosen: Mapping[str, LayerForm], forms: Forms, ordinary_ms: float) -> float:
    """Predict the time of the planned network: the ordinary one's, less what each layer saves."""
    return ordinary_ms - sum(forms[name][0].ms - form.ms for name, form in chosen.items())
