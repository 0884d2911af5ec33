"""Build ResNets for images of 32 x 32 (arXiv 1512.03385, section 4.2)."""

from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from .base import Network, he_init
from .validation import check_args, check_choice

Shortcut = Literal["A", "B"]


class SliceAndPad(nn.Module):
    """Shortcut option A: every second pixel, and zeros for the new channels; no parameters."""

    def __init__(self, new_channels: int) -> None:
        super().__init__()
        self.new_channels = new_channels

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.new_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, in_channels, H, W) -> (N, out_channels, ceil(H / s), ceil(W / s))."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 and shortcut == "A":
            self.shortcut = SliceAndPad(out_channels - in_channels)
        elif stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(Network):
    """A 3x3 stem and three stages of (depth - 2) / 6 basic blocks with 16, 32 and 64 channels, times width.

    (N, in_chans, H, W) -> (N, num_classes), any H and W. shortcut, where the shape changes: `A` has no parameters,
    `B` is a 1x1 convolution with BatchNorm. width: channels are rounded to integers. Convolutions are initialised by
    `he_init`.
    Raises ValueError for an argument out of its range. Source: arXiv 1512.03385, section 4.2.
    """

    def __init__(
        self, depth: int, num_classes: int = 10, in_chans: int = 3, shortcut: Shortcut = "A", width: float = 1.0
    ) -> None:
        assert depth % 6 == 2, depth
        check_args(num_classes=num_classes, in_chans=in_chans, width=width)
        check_choice("shortcut", shortcut, get_args(Shortcut))
        super().__init__()
        blocks = (depth - 2) // 6
        fine, middle, coarse = (max(1, round(channels * width)) for channels in (16, 32, 64))
        self.conv1 = nn.Conv2d(in_chans, fine, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(fine)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(fine, fine, 1, blocks, shortcut)
        self.layer2 = _stage(fine, middle, 2, blocks, shortcut)
        self.layer3 = _stage(middle, coarse, 2, blocks, shortcut)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(coarse, num_classes)
        self.feature_channels = {1: fine, 2: middle, 4: coarse}
        he_init(self)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.feature_maps(x)[4]

    def forward_head(self, features: Tensor) -> Tensor:
        return self.fc(self.global_pool(features).flatten(1))

    def feature_maps(self, x: Tensor) -> dict[int, Tensor]:
        fine = self.layer1(self.relu(self.bn1(self.conv1(x))))
        middle = self.layer2(fine)
        return {1: fine, 2: middle, 4: self.layer3(middle)}


def _stage(in_channels: int, out_channels: int, stride: int, blocks: int, shortcut: Shortcut) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1, shortcut) for _ in range(blocks - 1)))


def resnet20(num_classes: int = 10, in_chans: int = 3, shortcut: Shortcut = "A", width: float = 1.0) -> ResNet:
    """Build ResNet-20: 0.27M parameters, 41M MACs at 32 x 32."""
    return ResNet(20, num_classes, in_chans, shortcut, width)


def resnet32(num_classes: int = 10, in_chans: int = 3, shortcut: Shortcut = "A", width: float = 1.0) -> ResNet:
    """Build ResNet-32: 0.46M parameters, 69M MACs at 32 x 32."""
    return ResNet(32, num_classes, in_chans, shortcut, width)


def resnet44(num_classes: int = 10, in_chans: int = 3, shortcut: Shortcut = "A", width: float = 1.0) -> ResNet:
    """Build ResNet-44: 0.66M parameters, 97M MACs at 32 x 32."""
    return ResNet(44, num_classes, in_chans, shortcut, width)


def resnet56(num_classes: int = 10, in_chans: int = 3, shortcut: Shortcut = "A", width: float = 1.0) -> ResNet:
    """Build ResNet-56: 0.85M parameters, 125M MACs at 32 x 32 with shortcut A, as in arXiv 1911.11907, table 5."""
    return ResNet(56, num_classes, in_chans, shortcut, width)


def resnet110(num_classes: int = 10, in_chans: int = 3, shortcut: Shortcut = "A", width: float = 1.0) -> ResNet:
    """Build ResNet-110: 1.73M parameters, 253M MACs at 32 x 32."""
    return ResNet(110, num_classes, in_chans, shortcut, width)
