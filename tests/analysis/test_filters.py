"""Test the classification of filters on known ones."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ghostexp.analysis.filters import KINDS, classify_filters, kind_fractions, random_filter_fractions


def gaussian(side: int, sigma: float) -> Tensor:
    """Build a Gaussian blur."""
    offsets = torch.arange(side) - side // 2
    line = torch.exp(-(offsets**2) / (2 * sigma**2))
    return line[:, None] * line


def delta(side: int, down: int = 0, right: int = 0) -> Tensor:
    """Build a filter with one tap at an offset from the centre."""
    kernel = torch.zeros(side, side)
    kernel[side // 2 + down, side // 2 + right] = 1
    return kernel


def padded(kernel: Tensor, side: int) -> Tensor:
    """Pad a filter with zeros."""
    margin = (side - kernel.shape[-1]) // 2
    return F.pad(kernel, [margin] * 4)


SOBEL = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
PREWITT = torch.tensor([[-1.0, 0, 1]] * 3)
DIFFERENCE = torch.tensor([[0.0, 0, 0], [0, -1, 1], [0, 0, 0]])
LAPLACE = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]])
LINE = torch.tensor([[-1.0, 2, -1]] * 3)
KNOWN = [
    ("identity", delta(3)),
    ("identity", delta(7)),
    ("identity", delta(1)),
    ("identity", delta(3) + 0.05),
    ("shift", delta(3, 0, 1)),
    ("shift", delta(5, -2, 1)),
    ("shift", delta(3, -1, -1) + 0.05),
    ("blur", gaussian(3, 1)),
    ("blur", gaussian(7, 1.5)),
    ("blur", torch.ones(3, 3)),
    ("blur", delta(3) + delta(3, 0, 1)),  # by half a pixel too
    ("edge", SOBEL),
    ("edge", SOBEL.T),
    ("edge", PREWITT),
    ("edge", DIFFERENCE),
    ("edge", LAPLACE),
    ("edge", LINE),
    ("edge", padded(SOBEL, 5)),
    ("edge", gaussian(7, 1.5) * (torch.arange(7) - 3.0)),  # a Gaussian's derivative
    ("mixed", torch.tensor([[2.0, -1, 0], [1, 1, -2], [0, 1, 1]])),
    ("mixed", delta(3) - 0.55 * delta(3, 1, 1)),
    ("mixed", torch.zeros(3, 3)),
]


@pytest.mark.parametrize(("kind", "kernel"), KNOWN)
@pytest.mark.parametrize("scale", [1.0, -1.0, 1e-6, -250.0])
def test_classify_filters_known_kinds(kind: str, kernel: Tensor, scale: float) -> None:
    (stats,) = classify_filters(scale * kernel[None])
    assert stats.kind == kind, stats


@pytest.mark.parametrize(("down", "right"), [(1, 0), (0, -1), (-1, 1), (2, -2)])
def test_classify_filters_shift_direction(down: int, right: int) -> None:
    kernel = delta(5, down, right)
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 4] = 1
    moved = F.conv2d(image, kernel[None, None], padding=2)[0, 0].nonzero()[0].tolist()
    (stats,) = classify_filters(kernel[None])
    assert stats.shift == (moved[0] - 4, moved[1] - 4)


def test_random_filter_fractions_are_mostly_mixed() -> None:
    for side, at_least in ((3, 0.88), (5, 0.98), (7, 0.99)):
        found = random_filter_fractions(side)
        assert at_least <= found["mixed"] < 1 or side > 3
        assert sum(found.values()) == pytest.approx(1)
    assert set(random_filter_fractions(1)) == set(KINDS)
    assert random_filter_fractions(1)["identity"] == 1  # a single tap can do nothing else


def test_low_of_white_response_and_kind_fractions() -> None:
    stats = classify_filters(torch.stack([delta(3), delta(3, 1, 0), gaussian(3, 1), SOBEL]))
    assert stats[0].lowpass_energy == pytest.approx(1)
    assert stats[1].lowpass_energy == pytest.approx(1)
    assert stats[2].lowpass_energy > 2
    assert kind_fractions(stats) == {"identity": 0.25, "shift": 0.25, "blur": 0.25, "edge": 0.25, "mixed": 0.0}
