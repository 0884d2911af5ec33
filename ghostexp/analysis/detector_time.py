"""Where a detector's time goes."""

import copy

import numpy as np
import torch
from torch import Tensor

from ghostexp.analysis.latency import now, timed_part
from ghostexp.models.detection import DetectionNetwork

PARTS: tuple[str, ...] = ("trunk", "pyramid", "heads")


@torch.inference_mode()
def part_times(network: DetectionNetwork, images: Tensor, rounds: int) -> dict[str, float]:
    """Milliseconds of an eager forward pass over images (N, 3, H, W), medians, by part, and of the whole.

    heads: all that chooses boxes and judges them, which takes longer the more of them a network believes in.
    """
    timed = copy.deepcopy(network).eval()
    spent = dict.fromkeys(PARTS[:2], 0.0)
    for module, method, part in (
        (timed.backbone.trunk, "feature_maps", "trunk"),
        (timed.backbone.fpn, "forward", "pyramid"),
    ):
        setattr(module, method, timed_part(getattr(module, method), part, spent, images))
    samples: dict[str, list[float]] = {part: [] for part in (*PARTS, "whole")}
    for round_ in range(rounds + 1):
        spent.update(dict.fromkeys(spent, 0.0))
        clock = now(images)
        timed(images)
        whole = now(images) - clock
        if round_:  # the first warms up
            taken = {**spent, "heads": whole - sum(spent.values()), "whole": whole}
            for part, seconds in taken.items():
                samples[part].append(1000 * seconds)
    return {part: float(np.median(values)) for part, values in samples.items()}
