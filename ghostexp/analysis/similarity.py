"""Measure the similarity of feature maps: correlations, effective rank and linear fits between maps."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class RunningCovariance:
    """Accumulate the covariance of a layer's C maps over images and pixels, without storing maps."""

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
        """Compute the covariance (C, C), with each pixel of each image as one observation."""
        assert self.sums is not None
        assert self.products is not None
        means = self.sums.cpu() / self.count
        return self.products.cpu() / self.count - means[:, None] * means

    def correlation(self) -> Tensor:
        """Compute Pearson's r of each pair of maps, (C, C); 0 for constant maps, also on the diagonal."""
        covariance = self.covariance()
        assert self.products is not None
        variance = covariance.diagonal()
        is_varying = variance > 1e-12 * self.products.diagonal().cpu() / self.count
        scale = torch.where(is_varying, variance.clamp(min=1e-300).rsqrt(), 0.0)
        return (covariance * scale[:, None] * scale).clamp(-1, 1)


def source_map(ghosts: int, ghosts_per_map: int) -> Tensor:
    """Return the index of each ghost's intrinsic map, (ghosts,): grouped convolutions order outputs by group."""
    return torch.arange(ghosts) // max(1, ghosts_per_map)


def ghost_correlations(correlation: Tensor, intrinsic: int, ghosts_per_map: int) -> Tensor:
    """Return r of each ghost with its intrinsic map, (C - intrinsic,); intrinsic maps come first in `correlation`."""
    ghosts = torch.arange(intrinsic, len(correlation))
    return correlation[ghosts, source_map(len(ghosts), ghosts_per_map)]


def other_correlations(correlation: Tensor, intrinsic: int, ghosts_per_map: int) -> Tensor:
    """Return the median |r| of each ghost with the other intrinsic maps, (G,), constant ones aside; NaN without any."""
    is_varying = correlation.diagonal() > 0
    sizes = correlation[intrinsic:, :intrinsic].abs()
    sizes[~is_varying[intrinsic:]] = torch.nan
    sizes[:, ~is_varying[:intrinsic]] = torch.nan
    sizes[torch.arange(len(sizes)), source_map(len(sizes), ghosts_per_map)] = torch.nan
    return sizes.nanmedian(1).values


def effective_rank(correlation: Tensor) -> float:
    """Compute the effective rank of maps: exp of the entropy of their normalised singular values, 1 to C.

    The rows of the matrix are the maps over all images and pixels, centred and scaled to unit variance, as a BatchNorm
    would rescale them anyway. Constant maps are left out; the result is 0 if all are constant.
    Source: Roy and Vetterli, The effective rank, EUSIPCO 2007, section 2.
    """
    varying = correlation.diagonal() > 0
    values = torch.linalg.eigvalsh(correlation[varying][:, varying]).clamp(min=0).sqrt()
    if not len(values):
        return 0.0
    fractions = values / values.sum()
    return float(torch.special.entr(fractions).sum().exp())


def most_similar(correlation: Tensor) -> tuple[Tensor, Tensor]:
    """Find for each map the other one with the largest |r|, and that r: two tensors (C,), empty for a single map."""
    if len(correlation) < 2:
        return torch.empty(0, dtype=torch.long), torch.empty(0, dtype=correlation.dtype)
    others = correlation.clone().fill_diagonal_(0)
    partner = others.abs().argmax(1)
    return partner, others.gather(1, partner[:, None]).squeeze(1)


def distinct_pairs(partner: Tensor, r: Tensor, count: int) -> list[tuple[int, int]]:
    """Select up to `count` of the most similar pairs, without any map twice."""
    pairs: list[tuple[int, int]] = []
    used: set[int] = set()
    for index in r.abs().argsort(descending=True).tolist():
        pair = (int(partner[index]), index)
        if len(pairs) < count and not used & set(pair):
            pairs.append(pair)
            used |= set(pair)
    return pairs


IMAGES = 16  # whose patches are in memory at once, of one map: 80 MB at 112 x 112
SIZES = (1, 3, 5, 7)  # d, as in arXiv 1911.11907, table 2


class LinearFits:
    """Accumulate the normal equations of the least-squares filter from the first to the second map of each pair.

    The filter has zero padding and stride 1, as a depthwise convolution, and adds a constant, as the BatchNorm after
    it. Source: arXiv 1911.11907, section 4.1, where filters are trained instead.
    """

    def __init__(self, pairs: Sequence[tuple[int, int]]) -> None:
        self.pairs = list(pairs)  # (source, target)
        self.count = 0
        features = SIZES[-1] ** 2 + 1
        self.grams = {source: torch.zeros(features, features, dtype=torch.float64) for source, _ in self.pairs}
        self.targets: dict[int, list[tuple[int, int]]] = {source: [] for source in self.grams}  # with the pair's number
        for index, (source, target) in enumerate(self.pairs):
            self.targets[source].append((index, target))
        self.crosses = [torch.zeros(features, dtype=torch.float64) for _ in self.pairs]
        self.squares = [0.0 for _ in self.pairs]

    def add(self, maps: Tensor) -> None:
        """Add a batch (N, C, H, W)."""
        for images in maps.split(IMAGES):
            for source, gram in self.grams.items():
                patch = _patches(images[:, source])
                gram += (patch @ patch.T).cpu()
                for index, target in self.targets[source]:
                    values = images[:, target].double().flatten()
                    self.crosses[index] += (patch @ values).cpu()
                    self.squares[index] += float(values @ values)
        self.count += maps[:, 0].numel()

    def errors(self) -> Tensor:
        """Compute the mean squared error of each pair's best filter for each d of SIZES: (pairs, 4)."""
        rows = [[self._error(index, size) for size in SIZES] for index in range(len(self.pairs))]
        return torch.tensor(rows, dtype=torch.float64).reshape(-1, len(SIZES))

    def unexplained(self) -> Tensor:
        """Compute the errors as fractions of the target's variance, 1 - R^2; NaN for a constant target."""
        variances = [self.squares[i] / self.count - float(c[-1] / self.count) ** 2 for i, c in enumerate(self.crosses)]
        scale = torch.tensor(variances, dtype=torch.float64)[:, None]
        means = torch.tensor(self.squares, dtype=torch.float64)[:, None] / self.count
        return torch.where(scale > 1e-12 * means, (self.errors() / scale).clamp(0, 1), torch.nan)

    def _error(self, index: int, size: int) -> float:
        taps = _tap_indices(size)
        gram, cross = self.grams[self.pairs[index][0]][taps][:, taps], self.crosses[index][taps]
        explained = cross @ torch.linalg.pinv(gram, rtol=1e-12, hermitian=True) @ cross
        return max(0.0, (self.squares[index] - float(explained)) / self.count)


def _patches(maps: Tensor) -> Tensor:
    """Unfold each pixel's neighbourhood, and append a one: maps (N, H, W) to (d * d + 1, N * H * W), largest d."""
    side = SIZES[-1]
    columns = F.unfold(maps[:, None], side, padding=side // 2)  # (N, d * d, H * W)
    columns = columns.double().transpose(0, 1).flatten(1)
    return torch.cat([columns, columns.new_ones(1, columns.shape[1])])


def _tap_indices(size: int) -> Tensor:
    """Return the rows of `_patches` with the taps of a centred filter of a size, and the constant."""
    side = SIZES[-1]
    margin = (side - size) // 2
    taps = torch.arange(side * side).view(side, side)[margin : side - margin, margin : side - margin]
    return torch.cat([taps.flatten(), torch.tensor([side * side])])
