"""What goes on inside layers, over a sample of images: two passes, and no map is kept."""

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
    """A layer's C maps: the first `intrinsic` of them are convolved, the G others ghosts; ordinary layers have none.

    Each map that is convolved has a partner: the other one of them that is most like it. A correlation with a map
    that is the same for all pixels of all images is NaN.
    """

    shape: tuple[int, int, int]  # C, H, W
    intrinsic: int
    constant: int  # maps that are the same everywhere
    rank: float  # effective, of all C
    rank_intrinsic: float
    source_map: Tensor  # (G,), from which intrinsic map each ghost is made
    ghost_r: Tensor  # (G,), with that map
    other_r: Tensor  # (G,), the median |r| with the other intrinsic maps
    kernels: list[FilterStats]  # that make the ghosts
    partners: Tensor  # (intrinsic,)
    partner_r: Tensor  # (intrinsic,)
    errors: Tensor  # (intrinsic, d), of the best filter from the partner
    unexplained: Tensor  # (intrinsic, d), the same as shares of the variance


def layer_statistics(
    network: nn.Module, layers: Mapping[str, nn.Module], batches: Callable[[], Iterable[Tensor]]
) -> dict[str, LayerStatistics]:
    """Measure layers on the images (N, C, H, W) that `batches` yields, each of the two times that it is called."""
    sums = {name: _Sums(module) for name, module in layers.items()}
    for images in batches():
        for name, maps in extract_feature_maps(network, layers, images).items():
            sums[name].add(maps)
    for one in sums.values():
        one.pair()
    for images in batches():
        for name, maps in extract_feature_maps(network, layers, images).items():
            sums[name].fits.add(maps.intrinsic)
    return {name: one.inside() for name, one in sums.items()}


class _Sums:
    """What is added up of a layer: moments of all maps first, then fits between the maps that turn out to be pairs."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.moments = RunningCovariance()
        self.fits = LinearFits([])

    def add(self, maps: FeatureMaps) -> None:
        _, self.intrinsic, self.height, self.width = maps.intrinsic.shape
        self.each = maps.each
        self.moments.add(maps.together)

    def pair(self) -> None:
        self.correlation = self.moments.correlation()
        self.partners, self.partner_r = most_similar(self.correlation[: self.intrinsic, : self.intrinsic])
        self.fits = LinearFits(list(zip(self.partners.tolist(), range(len(self.partners)), strict=True)))

    def inside(self) -> LayerStatistics:
        correlation, intrinsic = self.correlation, self.intrinsic
        is_alive = correlation.diagonal() > 0
        origins = source_map(len(correlation) - intrinsic, self.each)
        ghost_r = ghost_correlations(correlation, intrinsic, self.each)
        nan = torch.tensor(torch.nan, dtype=ghost_r.dtype)
        return LayerStatistics(
            shape=(len(correlation), self.height, self.width),
            intrinsic=intrinsic,
            constant=int((~is_alive).sum()),
            rank=effective_rank(correlation),
            rank_intrinsic=effective_rank(correlation[:intrinsic, :intrinsic]),
            source_map=origins,
            ghost_r=torch.where(is_alive[intrinsic:] & is_alive[origins], ghost_r, nan),
            other_r=other_correlations(correlation, intrinsic, self.each),
            kernels=classify_filters(cheap_filters(self.module)) if has_cheap_operation(self.module) else [],
            partners=self.partners,
            partner_r=torch.where(is_alive[: len(self.partners)], self.partner_r, nan),
            errors=self.fits.errors(),
            unexplained=self.fits.unexplained(),
        )
