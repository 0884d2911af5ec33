"""Compute statistics of layers' feature maps over a sample of images, in two passes, without storing maps."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ghostexp.analysis.feature_maps import FeatureMaps, cheap_filters, extract_feature_maps, has_cheap_operation
from ghostexp.analysis.filters import FilterStats, classify_filters
from ghostexp.analysis.similarity import (
    LinearFits,
    RunningCovariance,
    effective_rank,
    ghost_correlations,
    most_similar,
    other_correlations,
    source_map,
)


@dataclass(frozen=True)
class LayerStatistics:
    """A layer's C maps: the first `intrinsic` are computed by a full convolution, the G others are ghosts, if any.

    The partner of an intrinsic map is the intrinsic map most similar to it. A correlation with a map that is constant
    over all pixels of all images is NaN.
    """

    shape: tuple[int, int, int]  # C, H, W
    intrinsic: int
    constant: int  # number of constant maps
    rank: float  # effective, of all C
    rank_intrinsic: float
    source_map: Tensor  # (G,), the intrinsic map of each ghost
    ghost_r: Tensor  # (G,), with that map
    other_r: Tensor  # (G,), the median |r| with the other intrinsic maps
    kernels: list[FilterStats]  # of the ghosts
    partners: Tensor  # (intrinsic,)
    partner_r: Tensor  # (intrinsic,)
    errors: Tensor  # (intrinsic, d), of the best filter from the partner
    unexplained: Tensor  # (intrinsic, d), as fractions of the variance


def layer_statistics(
    network: nn.Module, layers: Mapping[str, nn.Module], batches: Callable[[], Iterable[Tensor]]
) -> dict[str, LayerStatistics]:
    """Measure layers on the images (N, C, H, W) that `batches` yields; it is called twice."""
    accumulators = {name: _Accumulator(module) for name, module in layers.items()}
    for images in batches():
        for name, maps in extract_feature_maps(network, layers, images).items():
            accumulators[name].add(maps)
    for one in accumulators.values():
        one.find_pairs()
    for images in batches():
        for name, maps in extract_feature_maps(network, layers, images).items():
            accumulators[name].fits.add(maps.intrinsic)
    return {name: one.statistics() for name, one in accumulators.items()}


class _Accumulator:
    """Accumulate a layer's statistics: moments of all maps first, then linear fits between the pairs found."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.moments = RunningCovariance()
        self.fits = LinearFits([])

    def add(self, maps: FeatureMaps) -> None:
        _, self.intrinsic, self.height, self.width = maps.intrinsic.shape
        self.ghosts_per_map = maps.ghosts_per_map
        self.moments.add(maps.all_maps)

    def find_pairs(self) -> None:
        self.correlation = self.moments.correlation()
        self.partners, self.partner_r = most_similar(self.correlation[: self.intrinsic, : self.intrinsic])
        self.fits = LinearFits(list(zip(self.partners.tolist(), range(len(self.partners)), strict=True)))

    def statistics(self) -> LayerStatistics:
        correlation, intrinsic = self.correlation, self.intrinsic
        is_varying = correlation.diagonal() > 0
        origins = source_map(len(correlation) - intrinsic, self.ghosts_per_map)
        ghost_r = ghost_correlations(correlation, intrinsic, self.ghosts_per_map)
        nan = torch.tensor(torch.nan, dtype=ghost_r.dtype)
        return LayerStatistics(
            shape=(len(correlation), self.height, self.width),
            intrinsic=intrinsic,
            constant=int((~is_varying).sum()),
            rank=effective_rank(correlation),
            rank_intrinsic=effective_rank(correlation[:intrinsic, :intrinsic]),
            source_map=origins,
            ghost_r=torch.where(is_varying[intrinsic:] & is_varying[origins], ghost_r, nan),
            other_r=other_correlations(correlation, intrinsic, self.ghosts_per_map),
            kernels=classify_filters(cheap_filters(self.module)) if has_cheap_operation(self.module) else [],
            partners=self.partners,
            partner_r=torch.where(is_varying[: len(self.partners)], self.partner_r, nan),
            errors=self.fits.errors(),
            unexplained=self.fits.unexplained(),
        )
