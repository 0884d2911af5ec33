"""What small filters do, measured from their taps and their frequency response.

Four numbers decide, none of which changes when a kernel is scaled or its sign flipped:

    tap       the largest tap's share of the sum of all |taps|. From 2/3 on, the gain is within a factor of three at
              all frequencies: the map passes, and is moved to where that tap is
    dc        |sum of taps| / sum of |taps|: 1 where all have one sign, 0 for a filter that a constant does not pass
    low       the response's energy below half the Nyquist frequency, beside that of a white response, which has 1
    gradient  the length of the taps' first moment, beside the largest that taps of that size could have

    identity  tap >= 2/3, in the centre
    shift     tap >= 2/3, elsewhere
    blur      dc >= 0.8 and low >= 1.5: a low-pass filter
    edge      dc <= 0.2 and either gradient >= 0.7, a derivative, or low <= 0.25, a high-pass filter
    mixed     all others, noise and nothing at all among them: `random_filter_fractions` says how often noise passes for something
"""

from dataclasses import dataclass

import torch
from torch import Tensor

KINDS = ("identity", "shift", "blur", "edge", "mixed")
GRID = 32  # frequencies in each direction
TAP, BLUR_DC, BLUR_LOW, EDGE_DC, EDGE_GRADIENT, EDGE_LOW = 2 / 3, 0.8, 1.5, 0.2, 0.7, 0.25


@dataclass(frozen=True)
class FilterStats:
    """What a kernel does, and the numbers that say so; a shift moves the map by (down, right) pixels."""

    kind: str
    tap: float
    dc: float
    low: float
    gradient: float
    shift: tuple[int, int] = (0, 0)


def classify_filters(kernels: Tensor) -> list[FilterStats]:
    """Measure kernels (K, d, d), d odd, which correlate as torch's convolutions do."""
    kernels = kernels.double().cpu()
    size = kernels.abs().sum((1, 2)).clamp(min=1e-300)
    tap, place = (kernels.abs() / size[:, None, None]).flatten(1).max(1)
    dc, low, gradient = kernels.sum((1, 2)).abs() / size, _low(kernels), _gradient(kernels)
    side = kernels.shape[-1]
    # A tap below the centre reads from below: what is there moves up.
    shifts = torch.stack([side // 2 - place // side, side // 2 - place % side], 1)
    rows = zip(tap.tolist(), dc.tolist(), low.tolist(), gradient.tolist(), shifts.tolist(), strict=True)
    return [_described(*row[:4], shift=(row[4][0], row[4][1])) for row in rows]


def _described(tap: float, dc: float, low: float, gradient: float, shift: tuple[int, int]) -> FilterStats:
    if tap >= TAP:
        kind = "identity" if shift == (0, 0) else "shift"
    elif dc >= BLUR_DC and low >= BLUR_LOW:
        kind = "blur"
    elif tap > 0 and dc <= EDGE_DC and (gradient >= EDGE_GRADIENT or low <= EDGE_LOW):
        kind = "edge"
    else:
        kind = "mixed"
    return FilterStats(kind, tap, dc, low, gradient, shift if kind == "shift" else (0, 0))


def _low(kernels: Tensor) -> Tensor:
    energy = torch.fft.fft2(kernels, s=(GRID, GRID)).abs().square()
    frequency = 2 * torch.fft.fftfreq(GRID, dtype=torch.float64)  # 1 is Nyquist's
    is_low = (frequency[:, None].square() + frequency.square()).sqrt() <= 0.5
    total = energy.sum((1, 2)).clamp(min=1e-300)
    return (energy * is_low).sum((1, 2)) / total / is_low.double().mean()


def _gradient(kernels: Tensor) -> Tensor:
    offsets = torch.arange(kernels.shape[-1], dtype=torch.float64) - kernels.shape[-1] // 2
    places = torch.stack(torch.meshgrid(offsets, offsets, indexing="ij"))  # (2, d, d)
    moment = (kernels[:, None] * places).sum((2, 3)).norm(dim=1)
    return moment / (kernels.abs() * places.norm(dim=0)).sum((1, 2)).clamp(min=1e-300)


def kind_fractions(described: list[FilterStats]) -> dict[str, float]:
    """Which part of kernels is of each kind."""
    return {kind: sum(one.kind == kind for one in described) / max(1, len(described)) for kind in KINDS}


def random_filter_fractions(side: int, count: int = 2_000) -> dict[str, float]:
    """The same shares for kernels of independent Gaussian taps, as untrained ones are."""
    generator = torch.Generator().manual_seed(0)
    return kind_fractions(classify_filters(torch.randn(count, side, side, generator=generator)))
