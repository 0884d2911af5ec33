"""Build GhostNet (arXiv 1911.11907), its small version, and the backbone of a public replication."""

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from .base import Network, he_init
from .ghost_module import GhostBottleneck, make_divisible
from .validation import check_args


class BlockConfig(NamedTuple):
    """One ghost bottleneck, at width 1."""

    kernel: int
    mid_channels: int
    channels: int
    se: bool
    stride: int
    block: Callable[..., nn.Module] = GhostBottleneck  # or a callable with its positional arguments


Stages = Sequence[Sequence[BlockConfig]]

# Each line of a stage is a bottleneck. Stages are cut as in the released weights: `blocks.STAGE.ROW`.
GHOSTNET_STAGES: Stages = (
    (BlockConfig(3, 16, 16, False, 1),),
    (BlockConfig(3, 48, 24, False, 2),),
    (BlockConfig(3, 72, 24, False, 1),),
    (BlockConfig(5, 72, 40, True, 2),),
    (BlockConfig(5, 120, 40, True, 1),),
    (BlockConfig(3, 240, 80, False, 2),),
    (
        BlockConfig(3, 200, 80, False, 1),
        BlockConfig(3, 184, 80, False, 1),
        BlockConfig(3, 184, 80, False, 1),
        BlockConfig(3, 480, 112, True, 1),
        BlockConfig(3, 672, 112, True, 1),
    ),
    (BlockConfig(5, 672, 160, True, 2),),
    (
        BlockConfig(5, 960, 160, False, 1),
        BlockConfig(5, 960, 160, True, 1),
        BlockConfig(5, 960, 160, False, 1),
        BlockConfig(5, 960, 160, True, 1),
    ),
)

GHOSTNET_SMALL_STAGES: Stages = (
    (BlockConfig(3, 16, 16, True, 2),),
    (BlockConfig(3, 72, 24, False, 2),),
    (BlockConfig(3, 88, 24, False, 1),),
    (BlockConfig(5, 96, 40, True, 2),),
    (
        BlockConfig(5, 240, 40, True, 1),
        BlockConfig(5, 120, 48, True, 1),
        BlockConfig(5, 144, 48, True, 1),
    ),
    (BlockConfig(5, 288, 96, True, 2),),
    (
        BlockConfig(5, 576, 96, True, 1),
        BlockConfig(5, 576, 96, True, 1),
    ),
)


def replace_blocks(stages: Stages, block: Callable[[int], Callable[..., nn.Module]]) -> Stages:
    """Replace the bottleneck of every row by `block(index)`, with rows counted through all stages."""
    index = itertools.count()
    return tuple(tuple(row._replace(block=block(next(index))) for row in rows) for rows in stages)


class GhostNet(Network):
    """A stem at stride 2, stages of ghost bottlenecks, a 1x1 convolution, and a head of `head` features.

    (N, in_chans, H, W) -> (N, num_classes), any H and W. At ratio 2 and dw_size 3 the state dict has the names, the
    order and the shapes of the released weights. Convolutions are initialised by `he_init`.
    width: scales every channel count but the head's. se_ratio: 0 leaves squeeze-and-excitation out.
    image_size: below 32 the total stride would exceed the image, so the first strides, from the stem's on, become 1
    until it does not: 8 x 8 images stay at 8 x 8 until the last three strides. The weights' shapes stay.
    Raises ValueError for an argument out of its range.
    """

    min_feature_size = 1  # side of the last map that its layers need

    def __init__(
        self,
        stages: Stages,
        head: int,
        num_classes: int = 1000,
        in_chans: int = 3,
        ratio: int = 2,
        dw_size: int = 3,
        width: float = 1.0,
        se_ratio: float = 0.25,
        drop_rate: float = 0.2,
        image_size: int | None = None,
    ) -> None:
        check_args(num_classes=num_classes, in_chans=in_chans, ratio=ratio, dw_size=dw_size)
        check_args(width=width, se_ratio=se_ratio, drop_rate=drop_rate, image_size=image_size)
        super().__init__()
        num_skipped = _num_skipped_strides(stages, image_size, self.min_feature_size)
        channels = make_divisible(16 * width)
        stride = 1 if num_skipped else 2
        num_skipped = max(0, num_skipped - 1)
        self.conv_stem = nn.Conv2d(in_chans, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU(inplace=True)

        self.blocks = nn.Sequential()
        self.strides: list[int] = []  # of each stage's output
        self.feature_channels = {}
        self.out_indices: dict[int, int] = {}  # stride -> the last stage at that stride, whose output is the map
        mid_channels = channels
        for index, rows in enumerate(stages):
            stage = nn.Sequential()
            for row in rows:
                mid_channels = make_divisible(row.mid_channels * width)
                out_channels = make_divisible(row.channels * width)
                block_se_ratio = se_ratio if row.se else 0.0
                keep_resolution = row.stride > 1 and num_skipped > 0
                args = (row.kernel, row.stride, block_se_ratio, ratio, dw_size, keep_resolution)
                stage.append(row.block(channels, mid_channels, out_channels, *args))
                channels, stride = out_channels, stride * (1 if keep_resolution else row.stride)
                num_skipped -= keep_resolution
            self.blocks.append(stage)
            self.strides.append(stride)
            if stride >= 4:  # the maps that detectors read
                self.feature_channels[stride] = channels
                self.out_indices[stride] = index
        self.blocks.append(nn.Sequential(_conv_bn_relu(channels, mid_channels)))
        self.min_size = (self.min_feature_size - 1) * stride + 1

        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.conv_head = nn.Conv2d(mid_channels, head, 1)
        self.act2 = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(drop_rate)
        self.classifier = nn.Linear(head, num_classes)
        he_init(self)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.blocks(self._stem(x))

    def forward_head(self, features: Tensor) -> Tensor:
        x = self.act2(self.conv_head(self.global_pool(features)))
        return self.classifier(self.dropout(x.flatten(1)))

    def feature_maps(self, x: Tensor) -> dict[int, Tensor]:
        x = self._stem(x)
        outputs: list[Tensor] = []
        for stage in itertools.islice(self.blocks, max(self.out_indices.values(), default=-1) + 1):
            x = stage(x)
            outputs.append(x)
        return {stride: outputs[index] for stride, index in self.out_indices.items()}

    def _stem(self, x: Tensor) -> Tensor:
        self.check_image(x)
        return self.act1(self.bn1(self.conv_stem(x)))


def _num_skipped_strides(stages: Stages, image_size: int | None, min_feature_size: int) -> int:
    """Count the strides of 2, the stem's included, that an image is too small for."""
    if image_size is None:
        return 0
    strides = 1 + sum(row.stride > 1 for rows in stages for row in rows)
    # Each stride rounds up: below a total stride of image_size two pixels stay.
    largest = max(1, image_size - min_feature_size + 1)
    return max(0, strides - int(math.log2(largest)))


def _conv_bn_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn1=nn.BatchNorm2d(out_channels), act1=nn.ReLU(inplace=True)))


def ghostnet(
    num_classes: int = 1000,
    in_chans: int = 3,
    ratio: int = 2,
    dw_size: int = 3,
    width: float = 1.0,
    se_ratio: float = 0.25,
    drop_rate: float = 0.2,
    image_size: int | None = None,
) -> GhostNet:
    """Build GhostNet of table 1: 5.18M parameters and 141M MACs at 224 x 224. Source: arXiv 1911.11907."""
    return GhostNet(
        GHOSTNET_STAGES, 1280, num_classes, in_chans, ratio, dw_size, width, se_ratio, drop_rate, image_size
    )


def ghostnet_small(
    num_classes: int = 1000,
    in_chans: int = 3,
    ratio: int = 2,
    dw_size: int = 3,
    width: float = 1.0,
    se_ratio: float = 0.25,
    drop_rate: float = 0.2,
    image_size: int | None = None,
) -> GhostNet:
    """Build GhostNet in the proportions of MobileNetV3-Small: 2.30M parameters and 38.1M MACs at 224 x 224."""
    return GhostNet(
        GHOSTNET_SMALL_STAGES, 1024, num_classes, in_chans, ratio, dw_size, width, se_ratio, drop_rate, image_size
    )


def replication_bottleneck(
    in_channels: int,
    mid_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int,
    se_ratio: float,
    ratio: int,
    dw_size: int,
    keep_resolution: bool,
) -> GhostBottleneck:
    """Build a ghost bottleneck with cheap filters of kernel_size and a 1x1 shortcut at stride 1."""
    args = (kernel_size, stride, se_ratio, ratio, kernel_size, keep_resolution)
    block = GhostBottleneck(in_channels, mid_channels, out_channels, *args)
    if stride == 1 and in_channels != out_channels:
        conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        block.shortcut = nn.Sequential(conv, nn.BatchNorm2d(out_channels))
    return block


# Table 1; its seventh stage is split where the replication reads the map of 80 channels.
REPLICATION_STAGES = replace_blocks(
    (*GHOSTNET_STAGES[:6], GHOSTNET_STAGES[6][:3], GHOSTNET_STAGES[6][3:], *GHOSTNET_STAGES[7:]),
    lambda index: replication_bottleneck,
)
REPLICATION_MAPS = {4: 40, 6: 80, 8: 160}  # stage -> channels; 6 and 8 are not the last stages at their resolution


def ghostnet_replication(
    num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.2, image_size: int | None = None
) -> GhostNet:
    """Build GhostNet without squeeze-and-excitation, as replicated: maps of 40, 80, 160 channels at strides 8, 16, 32.

    Stem and 16 bottlenecks: 1,055,832 parameters and 135,408,560 MACs at 224 x 224. No map depends
    on the last four bottlenecks. These counts fix the layers, but not the activations, which are as in the paper.
    """
    network = GhostNet(
        REPLICATION_STAGES, 1280, num_classes, in_chans, se_ratio=0, drop_rate=drop_rate, image_size=image_size
    )
    network.out_indices = {network.strides[stage]: stage for stage in REPLICATION_MAPS}
    network.feature_channels = {network.strides[stage]: channels for stage, channels in REPLICATION_MAPS.items()}
    return network
