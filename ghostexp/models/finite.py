"""Find weights that are not finite numbers."""

from itertools import chain

import torch
from torch import Tensor, nn

STATISTICS = ("running_mean", "running_var")  # other buffers may hold infinities: masks do


def non_finite_weights(module: nn.Module) -> list[str]:
    """List the parameters and BatchNorm statistics that hold NaN or infinity; waits for the device once."""
    statistics = ((name, value) for name, value in module.named_buffers() if name.endswith(STATISTICS))
    weights: dict[str, Tensor] = dict(chain(module.named_parameters(), statistics))
    if not weights:
        return []
    finite = torch.stack([torch.isfinite(value.detach()).all() for value in weights.values()]).tolist()
    return [name for name, is_finite in zip(weights, finite, strict=True) if not is_finite]
