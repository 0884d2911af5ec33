"""Build the ghost module and the ghost bottleneck (arXiv 1911.11907, sections 3.1 and 3.2)."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from .cheap_conv import CheapConv2d
from .validation import check_args, check_choice

Size = int | tuple[int, int]
NormAct = Literal["none", "bn", "bn_relu"]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


def make_divisible(channels: float, divisor: int = 4) -> int:
    """Round to a multiple of `divisor`, never to less than 0.9 of `channels` (MobileNetV2's rule)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class GhostModule(nn.Module):
    """A convolution for a few intrinsic maps, and cheap depthwise filters that compute the ghosts from them.

    (N, in_channels, H, W) -> (N, out_channels, H', W'), where H' and W' are those of the primary convolution.
    ceil(out_channels / ratio) maps are intrinsic and come first; each has ratio - 1 ghosts, by filters of
    dw_size x dw_size; what exceeds out_channels is cut off. At ratio 1 there is no cheap operation.

    norm_act: what follows both convolutions. `bn_relu`: BatchNorm and ReLU; `bn`: BatchNorm (GhostNet's linear
    projection); `none`: nothing, for a module that replaces a bare convolution, which its network's own layers follow.
    padding: of the primary convolution; by default H and W are kept at stride 1.
    bias: of both convolutions; ignored with `bn` and `bn_relu`, where BatchNorm's shift is that bias.
    Raises ValueError for an invalid ratio, dw_size or norm_act. Source: arXiv 1911.11907, section 3.1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 1,
        ratio: int = 2,
        dw_size: int = 3,
        stride: Size = 1,
        *,
        padding: Size | str | None = None,
        dilation: Size = 1,
        padding_mode: PaddingMode = "zeros",
        bias: bool = False,
        norm_act: NormAct = "bn_relu",
    ) -> None:
        check_args(ratio=ratio, dw_size=dw_size)
        check_choice("norm_act", norm_act, get_args(NormAct))
        super().__init__()
        self.out_channels, self.ratio, self.dw_size = out_channels, ratio, dw_size
        intrinsic = math.ceil(out_channels / ratio)
        ghosts = intrinsic * (ratio - 1)
        primary = nn.Conv2d(
            in_channels,
            intrinsic,
            kernel_size,
            stride,
            _same(kernel_size, dilation) if padding is None else padding,
            dilation,
            bias=bias and norm_act == "none",
            padding_mode=padding_mode,
        )
        self.primary_conv = _conv_norm_act(primary, norm_act)
        self.cheap_operation: nn.Sequential | None = None
        if intrinsic < out_channels:
            conv_type = CheapConv2d if ratio > 2 else nn.Conv2d
            cheap = conv_type(
                intrinsic,
                ghosts,
                dw_size,
                padding=dw_size // 2,
                groups=intrinsic,
                bias=bias and norm_act == "none",
                padding_mode=padding_mode,
            )
            self.cheap_operation = _conv_norm_act(cheap, norm_act)

    def primary(self, x: Tensor) -> Tensor:
        """Compute the intrinsic maps: (N, in_channels, H, W) -> (N, ceil(out_channels / ratio), H', W')."""
        return self.primary_conv(x)

    def cheap(self, intrinsic: Tensor) -> Tensor:
        """Compute the ghosts of intrinsic maps, including those that are cut off later; not at ratio 1."""
        assert self.cheap_operation is not None
        return self.cheap_operation(intrinsic)

    def forward(self, x: Tensor) -> Tensor:
        intrinsic = self.primary(x)
        if self.cheap_operation is None:
            return intrinsic
        ghosts = self.cheap(intrinsic)
        # cut before the concatenation: cutting after it would return a map that is not contiguous
        return torch.cat([intrinsic, ghosts[:, : self.out_channels - intrinsic.shape[1]]], dim=1)


def _same(kernel_size: Size, dilation: Size) -> tuple[int, int]:
    kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    spread = (dilation, dilation) if isinstance(dilation, int) else dilation
    return kernel[0] // 2 * spread[0], kernel[1] // 2 * spread[1]


def _conv_norm_act(conv: nn.Conv2d, norm_act: NormAct) -> nn.Sequential:
    layers: list[nn.Module] = [conv]
    if norm_act != "none":
        layers.append(nn.BatchNorm2d(conv.out_channels))
    if norm_act == "bn_relu":
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate relu6(z + 3) / 6 computed from the channels' means; the shape stays.

    Source: arXiv 1709.01507; the hard gate: arXiv 1905.02244, section 5.3.
    """

    def __init__(self, channels: int, se_ratio: float = 0.25) -> None:
        super().__init__()
        reduced = make_divisible(channels * se_ratio)
        self.conv_reduce = nn.Conv2d(channels, reduced, 1)
        self.act = nn.ReLU(inplace=True)
        self.conv_expand = nn.Conv2d(reduced, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3), keepdim=True)  # (N, C, 1, 1)
        return x * self.gate(self.conv_expand(self.act(self.conv_reduce(means))))


class GhostBottleneck(nn.Module):
    """Expand by a ghost module, downsample by a depthwise convolution, squeeze-excite, project, add the shortcut.

    (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).
    kernel_size reaches the two strided depthwise convolutions only; the ghosts have dw_size.
    keep_resolution: the same layers and weight shapes, but the strided convolutions run at stride 1.
    Source: arXiv 1911.11907, section 3.2 and figure 3.
    """

    expansion: type[GhostModule] = GhostModule

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        se_ratio: float = 0.0,
        ratio: int = 2,
        dw_size: int = 3,
        keep_resolution: bool = False,
    ) -> None:
        super().__init__()
        step = 1 if keep_resolution else stride
        self.ghost1 = self.expansion(in_channels, mid_channels, ratio=ratio, dw_size=dw_size)
        self.conv_dw = depthwise(mid_channels, kernel_size, step) if stride > 1 else nn.Identity()
        self.bn_dw = nn.BatchNorm2d(mid_channels) if stride > 1 else nn.Identity()
        self.se = SqueezeExcite(mid_channels, se_ratio) if se_ratio > 0 else nn.Identity()
        self.ghost2 = GhostModule(mid_channels, out_channels, ratio=ratio, dw_size=dw_size, norm_act="bn")
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Sequential() if same else projection(in_channels, out_channels, kernel_size, step)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn_dw(self.conv_dw(self.ghost1(x)))
        return self.ghost2(self.se(y)) + self.shortcut(x)


def depthwise(channels: int, kernel_size: int, stride: int) -> nn.Conv2d:
    """Build a depthwise convolution without bias; H and W stay at stride 1."""
    return nn.Conv2d(channels, channels, kernel_size, stride, kernel_size // 2, groups=channels, bias=False)


def projection(in_channels: int, out_channels: int, kernel_size: int, stride: int) -> nn.Sequential:
    """Build the shortcut of a bottleneck whose output has another shape than its input."""
    return nn.Sequential(
        depthwise(in_channels, kernel_size, stride),
        nn.BatchNorm2d(in_channels),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
    )
