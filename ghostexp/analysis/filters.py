"""Classify small filters by their taps and their frequency response.

Four statistics decide; scaling a kernel or flipping its sign does not change them:

    peak_fraction      the largest |tap| as a fraction of the sum of all |taps|. From 2/3 on, the gain is within a
                       factor of three at all frequencies: the map passes, shifted by the position of that tap
    dc_gain            |sum of taps| / sum of |taps|: 1 if all have one sign, 0 for a filter that blocks constants
    lowpass_energy     the response's energy below half the Nyquist frequency, relative to a white response (1)
    gradient_strength  the length of the taps' first moment, relative to its maximum for these |taps|

    identity  peak_fraction >= 2/3, in the centre
    shift     peak_fraction >= 2/3, elsewhere
    blur      dc_gain >= 0.8 and lowpass_energy >= 1.5: a low-pass filter
    edge      dc_gain <= 0.2 and either gradient_strength >= 0.7, a derivative, or lowpass_energy <= 0.25, a high-pass
              filter
    mixed     any other filter, including random and all-zero ones; `random_filter_fractions()` gives the
              false-positive rate of each kind
"""

from dataclasses import dataclass

import torch
from torch import Tensor

KINDS = ("identity", "shift", "blur", "edge", "mixed")
GRID = 32  # frequencies in each direction
PEAK, BLUR_DC, BLUR_LOW, EDGE_DC, EDGE_GRADIENT, EDGE_LOW = 2 / 3, 0.8, 1.5, 0.2, 0.7, 0.25


@dataclass(frozen=True)
class FilterStats:
    """The kind of a kernel, and its statistics; a shift moves the map by (down, right) pixels."""

    kind: str
    peak_fraction: float
    dc_gain: float
    lowpass_energy: float
    gradient_strength: float
    shift: tuple[int, int] = (0, 0)


def classify_filters(kernels: Tensor) -> list[FilterStats]:
    """Classify kernels (K, d, d), d odd, which correlate as torch's convolutions do."""
    kernels = kernels.double().cpu()
    size = kernels.abs().sum((1, 2)).clamp(min=1e-300)
    peak_fraction, index = (kernels.abs() / size[:, None, None]).flatten(1).max(1)
    dc_gain = kernels.sum((1, 2)).abs() / size
    side = kernels.shape[-1]
    # A tap below the centre reads from below: it moves the map up.
    shifts = torch.stack([side // 2 - index // side, side // 2 - index % side], 1)
    stats = torch.stack([peak_fraction, dc_gain, _lowpass_energy(kernels), _gradient_strength(kernels)], 1)
    rows = zip(stats.tolist(), shifts.tolist(), strict=True)
    return [_classify(*row, shift=(down, right)) for row, (down, right) in rows]


def _classify(
    peak_fraction: float, dc_gain: float, lowpass_energy: float, gradient_strength: float, shift: tuple[int, int]
) -> FilterStats:
    if peak_fraction >= PEAK:
        kind = "identity" if shift == (0, 0) else "shift"
    elif dc_gain >= BLUR_DC and lowpass_energy >= BLUR_LOW:
        kind = "blur"
    elif peak_fraction == 0 or dc_gain > EDGE_DC:
        kind = "mixed"
    elif gradient_strength >= EDGE_GRADIENT or lowpass_energy <= EDGE_LOW:
        kind = "edge"
    else:
        kind = "mixed"
    moved = shift if kind == "shift" else (0, 0)
    return FilterStats(kind, peak_fraction, dc_gain, lowpass_energy, gradient_strength, moved)


def _lowpass_energy(kernels: Tensor) -> Tensor:
    energy = torch.fft.fft2(kernels, s=(GRID, GRID)).abs().square()
    frequency = 2 * torch.fft.fftfreq(GRID, dtype=torch.float64)  # 1 is Nyquist's
    is_low = (frequency[:, None].square() + frequency.square()).sqrt() <= 0.5
    total = energy.sum((1, 2)).clamp(min=1e-300)
    return (energy * is_low).sum((1, 2)) / total / is_low.double().mean()


def _gradient_strength(kernels: Tensor) -> Tensor:
    offsets = torch.arange(kernels.shape[-1], dtype=torch.float64) - kernels.shape[-1] // 2
    positions = torch.stack(torch.meshgrid(offsets, offsets, indexing="ij"))  # (2, d, d)
    moment = (kernels[:, None] * positions).sum((2, 3)).norm(dim=1)
    return moment / (kernels.abs() * positions.norm(dim=0)).sum((1, 2)).clamp(min=1e-300)


def kind_fractions(stats: list[FilterStats]) -> dict[str, float]:
    """Compute the fraction of kernels of each kind."""
    return {kind: sum(one.kind == kind for one in stats) / max(1, len(stats)) for kind in KINDS}


def random_filter_fractions(side: int, count: int = 2_000) -> dict[str, float]:
    """Compute the same fractions for kernels of independent Gaussian taps, as untrained ones have."""
    generator = torch.Generator().manual_seed(0)
    return kind_fractions(classify_filters(torch.randn(count, side, side, generator=generator)))
