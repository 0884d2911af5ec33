"""How near a map is to a linear function of another: the best d x d filter between them, in closed form."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SIZES = (1, 3, 5, 7)  # d, as in arXiv 1911.11907, table 2


class LinearFits:
    """For pairs of a layer's maps, the sums that decide the least-squares filter from the first to the second.

    The filter pads with zeros at stride 1, as a depthwise convolution does, and adds a constant, as the BatchNorm
    behind one does. Source of the question: arXiv 1911.11907, section 4.1, where filters are trained instead.
    """

    def __init__(self, pairs: Sequence[tuple[int, int]]) -> None:
        self.pairs = list(pairs)  # (source, target)
        self.count = 0
        features = SIZES[-1] ** 2 + 1
        self.grams = {source: torch.zeros(features, features, dtype=torch.float64) for source, _ in self.pairs}
        self.crosses = [torch.zeros(features, dtype=torch.float64) for _ in self.pairs]
        self.squares = [0.0 for _ in self.pairs]

    def add(self, maps: Tensor) -> None:
        """Add a batch (N, C, H, W)."""
        patches = {source: _patches(maps[:, source]) for source in self.grams}
        for source, patch in patches.items():
            self.grams[source] += (patch @ patch.T).cpu()
        for index, (source, target) in enumerate(self.pairs):
            values = maps[:, target].double().flatten()
            self.crosses[index] += (patches[source] @ values).cpu()
            self.squares[index] += float(values @ values)
        self.count += maps[:, 0].numel()

    def errors(self) -> Tensor:
        """Mean squared error of each pair's best filter for each d of SIZES: (pairs, 4)."""
        rows = [[self._error(index, size) for size in SIZES] for index in range(len(self.pairs))]
        return torch.tensor(rows, dtype=torch.float64).reshape(-1, len(SIZES))

    def unexplained(self) -> Tensor:
        """The same errors as shares of the target's variance, 1 - R^2; 1 for a constant target."""
        variances = [self.squares[i] / self.count - float(c[-1] / self.count) ** 2 for i, c in enumerate(self.crosses)]
        scale = torch.tensor(variances, dtype=torch.float64)[:, None]
        means = torch.tensor(self.squares, dtype=torch.float64)[:, None] / self.count
        return torch.where(scale > 1e-12 * means, self.errors() / scale, 1.0).clamp(0, 1)

    def _error(self, index: int, size: int) -> float:
        used = _used(size)
        gram, cross = self.grams[self.pairs[index][0]][used][:, used], self.crosses[index][used]
        explained = cross @ torch.linalg.pinv(gram, rtol=1e-12, hermitian=True) @ cross
        return max(0.0, (self.squares[index] - float(explained)) / self.count)


def _patches(maps: Tensor) -> Tensor:
    """Each pixel's neighbourhood, and a one: maps (N, H, W) to (d * d + 1, N * H * W) for the largest d."""
    side = SIZES[-1]
    columns = F.unfold(maps[:, None], side, padding=side // 2)  # (N, d * d, H * W)
    columns = columns.double().transpose(0, 1).flatten(1)
    return torch.cat([columns, columns.new_ones(1, columns.shape[1])])


def _used(size: int) -> Tensor:
    """Where the taps of a centred filter of a size, and the constant, are in `_patches`."""
    side = SIZES[-1]
    margin = (side - size) // 2
    taps = torch.arange(side * side).view(side, side)[margin : side - margin, margin : side - margin]
    return torch.cat([taps.flatten(), torch.tensor([side * side])])
