"""What filters do, on filters that are known."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ghostexp.analysis.filters import KINDS, classify_filters, kind_fractions, random_filter_fractions


def gaussian(side: int, sigma: float) -> Tensor:
    """A round blur."""
    offsets = torch.arange(side) - side // 2
    line = torch.exp(-(offsets**2) / (2 * sigma**2))
    return line[:, None] * line


def delta(side: int, down: int = 0, right: int = 0) -> Tensor:
    """One tap, so many pixels from the centre."""
    kernel = torch.zeros(side, side)
    kernel[side // 2 + down, side // 2 + right] = 1
    return kernel


def padded(kernel: Tensor, side: int) -> Tensor:
    """The same filter with zeros around it."""
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
def test_a_known_filter_is_what_it_is_at_any_scale_and_sign(kind: str, kernel: Tensor, scale: float) -> None:
    (described,) = classify_filters(scale * kernel[None])
    assert described.kind == kind, described


@pytest.mark.parametrize(("down", "right"), [(1, 0), (0, -1), (-1, 1), (2, -2)])
def test_a_shift_is_where_torch_moves_the_map(down: int, right: int) -> None:
    kernel = delta(5, down, right)
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 4] = 1
    moved = F.conv2d(image, kernel[None, None], padding=2)[0, 0].nonzero()[0].tolist()
    (described,) = classify_filters(kernel[None])
    assert described.shift == (moved[0] - 4, moved[1] - 4)


def test_noise_is_mixed_and_chance_says_how_often_not() -> None:
    for side, at_least in ((3, 0.88), (5, 0.98), (7, 0.99)):
        found = random_filter_fractions(side)
        assert at_least <= found["mixed"] < 1 or side > 3
        assert sum(found.values()) == pytest.approx(1)
    assert set(random_filter_fractions(1)) == set(KINDS)
    assert random_filter_fractions(1)["identity"] == 1  # a single tap can do nothing else


def test_low_is_one_for_a_white_response_and_shares_add_up() -> None:
    described = classify_filters(torch.stack([delta(3), delta(3, 1, 0), gaussian(3, 1), SOBEL]))
    assert described[0].low == pytest.approx(1)
    assert described[1].low == pytest.approx(1)
    assert described[2].low > 2
    assert kind_fractions(described) == {"identity": 0.25, "shift": 0.25, "blur": 0.25, "edge": 0.25, "mixed": 0.0}
