"""GhostNet (arXiv 1911.11907, table 1) and its small sibling, as tables of rows."""

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from .contract import Network
from .ghost import GhostBottleneck, make_divisible
from .init import he_init
from .knobs import check_knobs


class Row(NamedTuple):
    """One ghost bottleneck, at width 1."""

    kernel: int
    expanded: int
    channels: int
    se: bool
    stride: int
    block: Callable[..., nn.Module] = GhostBottleneck  # called as that one is


Stages = Sequence[Sequence[Row]]

# Each line of a stage is a bottleneck. Stages are cut as in the released weights: `blocks.STAGE.ROW`.
LARGE: Stages = (
    (Row(3, 16, 16, False, 1),),
    (Row(3, 48, 24, False, 2),),
    (Row(3, 72, 24, False, 1),),
    (Row(5, 72, 40, True, 2),),
    (Row(5, 120, 40, True, 1),),
    (Row(3, 240, 80, False, 2),),
    (
        Row(3, 200, 80, False, 1),
        Row(3, 184, 80, False, 1),
        Row(3, 184, 80, False, 1),
        Row(3, 480, 112, True, 1),
        Row(3, 672, 112, True, 1),
    ),
    (Row(5, 672, 160, True, 2),),
    (
        Row(5, 960, 160, False, 1),
        Row(5, 960, 160, True, 1),
        Row(5, 960, 160, False, 1),
        Row(5, 960, 160, True, 1),
    ),
)

SMALL: Stages = (
    (Row(3, 16, 16, True, 2),),
    (Row(3, 72, 24, False, 2),),
    (Row(3, 88, 24, False, 1),),
    (Row(5, 96, 40, True, 2),),
    (
        Row(5, 240, 40, True, 1),
        Row(5, 120, 48, True, 1),
        Row(5, 144, 48, True, 1),
    ),
    (Row(5, 288, 96, True, 2),),
    (
        Row(5, 576, 96, True, 1),
        Row(5, 576, 96, True, 1),
    ),
)


def with_blocks(stages: Stages, block: Callable[[int], Callable[..., nn.Module]]) -> Stages:
    """The same rows with other bottlenecks; `block` says which, of a row's index counted through all stages."""
    index = itertools.count()
    return tuple(tuple(row._replace(block=block(next(index))) for row in rows) for rows in stages)


class GhostNet(Network):
    """A stem at stride 2, stages of ghost bottlenecks, a 1x1 convolution, and a head of `head` features.

    (N, in_chans, H, W) -> (N, num_classes), any H and W. At ratio 2 and dw_size 3 the state dict has the names, the
    order and the shapes of the released weights. Convolutions are drawn by `he_init`.
    width scales every channel count but the head's; se_ratio 0 leaves squeeze-and-excitation out.
    image_size: below 32 the total stride would exceed the image, so the first strides, from the stem's on, become 1
    until it does not: 8 x 8 images are seen at 8 x 8 until 1 x 1 is left at the end. The weights' shapes stay.
    Raises ValueError for a knob out of its range.
    """

    least_side = 1  # of the last map, for its layers to work

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
        dropout: float = 0.2,
        image_size: int | None = None,
    ) -> None:
        check_knobs(num_classes=num_classes, in_chans=in_chans, ratio=ratio, dw_size=dw_size)
        check_knobs(width=width, se_ratio=se_ratio, dropout=dropout, image_size=image_size)
        super().__init__()
        surplus = _surplus_strides(stages, image_size, self.least_side)
        channels = make_divisible(16 * width)
        stride = 1 if surplus else 2
        surplus = max(0, surplus - 1)
        self.conv_stem = nn.Conv2d(in_chans, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU(inplace=True)

        self.blocks = nn.Sequential()
        self.strides: list[int] = []  # of each stage's output
        self.feature_channels = {}
        self.taps: dict[int, int] = {}  # stride -> the stage whose output is the map: the last one at that stride
        expanded = channels
        for index, rows in enumerate(stages):
            stage = nn.Sequential()
            for row in rows:
                expanded, out_channels = make_divisible(row.expanded * width), make_divisible(row.channels * width)
                weigh = se_ratio if row.se else 0.0
                keep_size = row.stride > 1 and surplus > 0
                knobs = (row.kernel, row.stride, weigh, ratio, dw_size, keep_size)
                stage.append(row.block(channels, expanded, out_channels, *knobs))
                channels, stride = out_channels, stride * (1 if keep_size else row.stride)
                surplus -= keep_size
            self.blocks.append(stage)
            self.strides.append(stride)
            if stride >= 4:  # the maps that detectors read
                self.feature_channels[stride] = channels
                self.taps[stride] = index
        self.blocks.append(nn.Sequential(_conv_bn_relu(channels, expanded)))
        self.min_size = (self.least_side - 1) * stride + 1

        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.conv_head = nn.Conv2d(expanded, head, 1)
        self.act2 = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)
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
        for stage in itertools.islice(self.blocks, max(self.taps.values(), default=-1) + 1):
            x = stage(x)
            outputs.append(x)
        return {stride: outputs[index] for stride, index in self.taps.items()}

    def _stem(self, x: Tensor) -> Tensor:
        self.check_image(x)
        return self.act1(self.bn1(self.conv_stem(x)))


def _surplus_strides(stages: Stages, image_size: int | None, least_side: int) -> int:
    """How many of the network's strides of 2, the stem's included, an image is too small for."""
    if image_size is None:
        return 0
    strides = 1 + sum(row.stride > 1 for rows in stages for row in rows)
    largest = max(1, image_size - least_side + 1)  # total stride; each rounds up, so below image_size two pixels stay
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
    dropout: float = 0.2,
    image_size: int | None = None,
) -> GhostNet:
    """GhostNet of table 1: 5.18M parameters and 141M MACs at 224 x 224. Source: arXiv 1911.11907."""
    return GhostNet(LARGE, 1280, num_classes, in_chans, ratio, dw_size, width, se_ratio, dropout, image_size)


def ghostnet_small(
    num_classes: int = 1000,
    in_chans: int = 3,
    ratio: int = 2,
    dw_size: int = 3,
    width: float = 1.0,
    se_ratio: float = 0.25,
    dropout: float = 0.2,
    image_size: int | None = None,
) -> GhostNet:
    """GhostNet in the proportions of MobileNetV3-Small: 2.30M parameters and 38.1M MACs at 224 x 224."""
    return GhostNet(SMALL, 1024, num_classes, in_chans, ratio, dw_size, width, se_ratio, dropout, image_size)
