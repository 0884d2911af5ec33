"""How alike the maps of a layer are: ghosts and what they are made from, and maps among themselves."""

import torch
from torch import Tensor


class Moments:
    """Sums over images and pixels from which the correlations of a layer's C maps follow; no map is kept."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: Tensor | None = None  # (C,)
        self.products: Tensor | None = None  # (C, C)

    def add(self, maps: Tensor) -> None:
        """Add a batch (N, C, H, W)."""
        values = maps.double().transpose(0, 1).flatten(1)  # (C, N * H * W)
        sums, products = values.sum(1), values @ values.T
        self.sums = sums if self.sums is None else self.sums + sums
        self.products = products if self.products is None else self.products + products
        self.count += values.shape[1]

    def covariance(self) -> Tensor:
        """(C, C), each pixel of each image one observation."""
        assert self.sums is not None
        assert self.products is not None
        means = self.sums.cpu() / self.count
        return self.products.cpu() / self.count - means[:, None] * means

    def correlation(self) -> Tensor:
        """Pearson's r of each pair of maps, (C, C); 0 for a map that is constant, its diagonal included."""
        covariance = self.covariance()
        assert self.products is not None
        variance = covariance.diagonal()
        is_alive = variance > 1e-12 * self.products.diagonal().cpu() / self.count
        scale = torch.where(is_alive, variance.clamp(min=1e-300).rsqrt(), 0.0)
        return (covariance * scale[:, None] * scale).clamp(-1, 1)


def parents(ghosts: int, each: int) -> Tensor:
    """From which intrinsic map each ghost is made, (ghosts,): a grouped convolution's outputs stand by group."""
    return torch.arange(ghosts) // max(1, each)


def ghost_correlations(correlation: Tensor, intrinsic: int, each: int) -> Tensor:
    """r of each ghost with the map that it is made from, (C - intrinsic,); the intrinsic maps come first."""
    ghosts = torch.arange(intrinsic, len(correlation))
    return correlation[ghosts, parents(len(ghosts), each)]


def other_correlations(correlation: Tensor, intrinsic: int, each: int) -> Tensor:
    """The median |r| of each ghost with the intrinsic maps that it is not made from, (G,); NaN if there are none."""
    sizes = correlation[intrinsic:, :intrinsic].abs()
    sizes[torch.arange(len(sizes)), parents(len(sizes), each)] = torch.nan
    return sizes.nanmedian(1).values


def effective_rank(correlation: Tensor) -> float:
    """How many directions maps take up: exp of the entropy of their normalised singular values, 1 to C.

    Of the matrix whose rows are the maps over all images and pixels, centred and scaled to unit variance, so that the
    scale that a BatchNorm sets anew does not count. Constant maps are left out; without others it is 0.
    Source: Roy and Vetterli, The effective rank, EUSIPCO 2007, section 2.
    """
    alive = correlation.diagonal() > 0
    values = torch.linalg.eigvalsh(correlation[alive][:, alive]).clamp(min=0).sqrt()
    if not len(values):
        return 0.0
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp())


def most_similar(correlation: Tensor) -> tuple[Tensor, Tensor]:
    """For each map the other one with the largest |r|, and that r: two tensors (C,), empty for a single map."""
    if len(correlation) < 2:
        return torch.empty(0, dtype=torch.long), torch.empty(0, dtype=correlation.dtype)
    others = correlation.clone().fill_diagonal_(0)
    partner = others.abs().argmax(1)
    return partner, others.gather(1, partner[:, None]).squeeze(1)


def distinct_pairs(partner: Tensor, r: Tensor, count: int) -> list[tuple[int, int]]:
    """The `count` most similar pairs, at most, in which no map appears twice."""
    pairs: list[tuple[int, int]] = []
    used: set[int] = set()
    for index in r.abs().argsort(descending=True).tolist():
        pair = (int(partner[index]), index)
        if len(pairs) < count and not used & set(pair):
            pairs.append(pair)
            used |= set(pair)
    return pairs
