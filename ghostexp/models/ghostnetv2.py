"""Build GhostNetV2 (arXiv 2211.12905): GhostNet with DFC attention along rows and columns in its expansions."""

import torch.nn.functional as F
from torch import Tensor, nn

from .ghost_module import GhostBottleneck, GhostModule
from .ghostnet import GHOSTNET_STAGES, GhostNet, replace_blocks


class DFCAttention(nn.Sequential):
    """Compute decoupled fully connected attention: gates in [0, 1], aggregated along rows, then along columns.

    (N, in_channels, H, W) -> (N, out_channels, H, W), H and W >= 2: the gates are computed at half the resolution.
    Source: arXiv 2211.12905, sections 3.2 and 3.3.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.Conv2d(out_channels, out_channels, (1, 5), padding=(0, 2), groups=out_channels, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.Conv2d(out_channels, out_channels, (5, 1), padding=(2, 0), groups=out_channels, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        gates = super().forward(F.avg_pool2d(x, 2)).sigmoid()  # (N, out_channels, H // 2, W // 2)
        return F.interpolate(gates, size=x.shape[-2:], mode="nearest")


class GhostModuleV2(GhostModule):
    """A 1x1 ghost module whose output, intrinsic maps and ghosts alike, is multiplied by DFC attention of its input."""

    def __init__(self, in_channels: int, out_channels: int, ratio: int = 2, dw_size: int = 3) -> None:
        super().__init__(in_channels, out_channels, ratio=ratio, dw_size=dw_size)
        self.short_conv = DFCAttention(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.short_conv(x)


class GhostBottleneckV2(GhostBottleneck):
    """A ghost bottleneck with DFC attention in its expansion."""

    expansion = GhostModuleV2


class GhostNetV2(GhostNet):
    """GhostNet with DFC attention in every bottleneck but the first two.

    (N, in_chans, H, W) -> (N, num_classes), H and W >= min_size: 33, as the last map must be at least 2 x 2.
    image_size: up to 32, the first strides become 1 until the last map is 2 x 2; everything else as in `GhostNet`.
    Raises ValueError for an argument out of its range and for a smaller image.
    """

    min_feature_size = 2
    min_size_reason = "DFC attention pools 2 x 2 pixels of the last map"


STAGES = replace_blocks(GHOSTNET_STAGES, lambda index: GhostBottleneckV2 if index >= 2 else GhostBottleneck)


def ghostnetv2(
    num_classes: int = 1000,
    in_chans: int = 3,
    ratio: int = 2,
    dw_size: int = 3,
    width: float = 1.0,
    se_ratio: float = 0.25,
    drop_rate: float = 0.2,
    image_size: int | None = None,
) -> GhostNetV2:
    """Build GhostNetV2: 6.16M parameters and 167M MACs at 224 x 224; published at width 1.0, 1.3 and 1.6."""
    return GhostNetV2(STAGES, 1280, num_classes, in_chans, ratio, dw_size, width, se_ratio, drop_rate, image_size)
