"""Compare what an exported network computes with what the trained network computes."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ghostexp.analysis.runtimes import Logits
from ghostexp.models.base import Network
from ghostexp.models.fuse import fuse

TOLERANCE = 1e-4  # difference of logits, relative to the largest one; rounding in float32 usually is a hundredth of it
FLOAT64_TOLERANCE = 1e-6  # the same in float64, where rounding is a billionth of what it is in float32
ROUNDING_FACTOR = 10  # tolerance as a multiple of rounding: an export adds up in another order


@dataclass(frozen=True)
class Reference:
    """Logits of a trained network on batches of images.

    rounding: change by float32 alone, relative to the largest one. In a barely trained network it can be a
    thousand times that of a trained one, because its BatchNorms amplify the last digits.
    """

    images: Sequence[Tensor]
    logits: list[Tensor]
    rounding: float

    @property
    def tolerance(self) -> float:
        """Return the allowed difference of logits, relative to the largest one."""
        return max(TOLERANCE, ROUNDING_FACTOR * self.rounding)

    def compare(self, what: str, other: Logits, is_exact: bool = True) -> dict[str, float]:
        """Compare the logits of a network with the reference.

        is_exact: it computes in float32. Raises ValueError: logits are not finite, or of an exact one differ by more
        than the tolerance.
        """
        logits = _logits(what, other, self.images)
        same = sum(int((a.argmax(1) == b.argmax(1)).sum()) for a, b in zip(logits, self.logits, strict=True))
        difference = _difference(self.logits, logits)
        if is_exact:
            _check_tolerance(what, difference, self.tolerance)
        return {"difference": difference, "images": sum(map(len, logits)), "same_predictions": same}


def build_reference(
    network: Network, fused: Network, images: Sequence[Tensor], shape: tuple[int, int, int]
) -> Reference:
    """Compute the logits of a network in evaluation mode, and their change by rounding, also of the fused network.

    shape: (C, H, W) of the images.
    Raises ValueError: logits are not finite, or fusing changes them in float64, where rounding is negligible.
    """
    logits = _logits("the network", network, images)
    in_float64 = [batch.double() for batch in images]
    precise = _logits("the network in float64", deepcopy(network).double(), in_float64)
    precise_fused = _logits("the fused network in float64", fuse(deepcopy(network).double(), shape), in_float64)
    _check_tolerance("the fused network in float64", _difference(precise, precise_fused), FLOAT64_TOLERANCE)
    rounding = [_difference(precise, one) for one in (logits, _logits("the fused network", fused, images))]
    return Reference(images, logits, max(rounding))


@torch.inference_mode()
def test_accuracies(
    functions: Mapping[str, Logits], batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, dict[str, float]]:
    """Measure the accuracy in percent of each function on batches of images and classes; empty without batches."""
    hits, count = dict.fromkeys(functions, 0), 0
    for images, labels in batches:
        count += len(labels)
        for name, function in functions.items():
            hits[name] += int((function(images).argmax(1) == labels).sum())
    return {name: {"acc1": 100 * found / count, "test_images": count} for name, found in hits.items()} if count else {}


@torch.inference_mode()
def _logits(what: str, network: nn.Module | Logits, images: Sequence[Tensor]) -> list[Tensor]:
    logits = [network(batch) for batch in images]
    wrong = sum(int((~batch.isfinite()).any(1).sum()) for batch in logits)
    if wrong:
        count = sum(map(len, logits))
        raise ValueError(f"{what}: its logits must be finite, got NaN or infinity for {wrong} of {count} images")
    return logits


def _difference(logits: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """Return the largest difference relative to the largest logit."""
    largest = max(float(batch.abs().max()) for batch in logits)
    difference = max(float((one - other).abs().max()) for one, other in zip(logits, others, strict=True))
    return difference / largest if largest else difference


def _check_tolerance(what: str, difference: float, allowed: float) -> None:
    if difference > allowed:
        raise ValueError(f"{what}: its logits must differ by <= {allowed:.0e} of the largest one, got {difference:.1e}")
