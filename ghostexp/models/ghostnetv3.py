"""Build GhostNetV3 (arXiv 2404.11202): GhostNetV2 trained with parallel branches, which are folded afterwards."""

from functools import partial

from torch import Tensor, nn

from .ghost_module import GhostModule, SqueezeExcite, depthwise, projection
from .ghostnet import GHOSTNET_STAGES, replace_blocks
from .ghostnetv2 import DFCAttention, GhostNetV2
from .reparam import ReparamMixin, sum_branches
from .validation import check_args


class GhostModuleV3(ReparamMixin, GhostModule):
    """A 1x1 ghost module whose two convolutions are sums of branches in training.

    (N, in_channels, H, W) -> (N, out_channels, H, W).
    relu: after both sums. attention: multiply the output by DFC attention of the input.
    Source: arXiv 2404.11202, section 3.1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        ratio: int = 2,
        dw_size: int = 3,
        num_branches: int = 3,
        *,
        relu: bool = True,
        attention: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, ratio=ratio, dw_size=dw_size, norm_act="none")
        self.activation = nn.ReLU(inplace=True) if relu else nn.Identity()
        # Branches replace the two convolutions just built, until `reparameterize` puts the folded ones back.
        self.add_branches("primary", _pop_conv(self.primary_conv), num_branches)
        if self.cheap_operation is not None:
            self.add_branches("cheap", _pop_conv(self.cheap_operation), num_branches)
        self.short_conv = DFCAttention(in_channels, out_channels) if attention else None

    def primary(self, x: Tensor) -> Tensor:
        branches = self.branches("primary")
        return self.activation(sum_branches(branches, x)) if branches else super().primary(x)

    def cheap(self, intrinsic: Tensor) -> Tensor:
        branches = self.branches("cheap")
        return self.activation(sum_branches(branches, intrinsic)) if branches else super().cheap(intrinsic)

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out if self.short_conv is None else out * self.short_conv(x)

    def reparameterize(self) -> None:
        """Replace the branches, in place, by the two convolutions that equal their sums in inference."""
        for name, layers in (("primary", self.primary_conv), ("cheap", self.cheap_operation)):
            if layers is not None and self.branches(name):
                layers.extend([self.pop_fused_conv(name), self.activation])


def _pop_conv(layers: nn.Sequential) -> nn.Conv2d:
    """Remove and return the only layer of a sequence."""
    (conv,) = layers
    assert isinstance(conv, nn.Conv2d)
    del layers[0]
    return conv


class GhostBottleneckV3(ReparamMixin):
    """A ghost bottleneck of re-parameterisable ghost modules; its strided depthwise convolution has branches too.

    Arguments and shapes as of `GhostBottleneck`. attention: DFC attention in the expansion.
    """

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
        *,
        num_branches: int = 3,
        attention: bool = True,
    ) -> None:
        super().__init__()
        step = 1 if keep_resolution else stride
        ghost = partial(GhostModuleV3, ratio=ratio, dw_size=dw_size, num_branches=num_branches)
        self.conv_dw: nn.Module = nn.Identity()  # until `reparameterize` sets the folded convolution
        self.ghost1 = ghost(in_channels, mid_channels, attention=attention)
        if stride > 1:  # no skip, whatever the step: the weights' names do not depend on the image
            self.add_branches("dw", depthwise(mid_channels, kernel_size, step), num_branches, skip=False)
        self.se = SqueezeExcite(mid_channels, se_ratio) if se_ratio > 0 else nn.Identity()
        self.ghost2 = ghost(mid_channels, out_channels, relu=False)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Sequential() if same else projection(in_channels, out_channels, kernel_size, step)

    def forward(self, x: Tensor) -> Tensor:
        y, branches = self.ghost1(x), self.branches("dw")
        y = sum_branches(branches, y) if branches else self.conv_dw(y)
        return self.ghost2(self.se(y)) + self.shortcut(x)

    def reparameterize(self) -> None:
        """Replace the branches, in place, by the depthwise convolution that equals their sum in inference."""
        if self.branches("dw"):
            self.conv_dw = self.pop_fused_conv("dw")


class GhostNetV3(GhostNetV2):
    """GhostNetV2 of re-parameterisable ghost modules; after `reparameterize` it has the MACs of GhostNetV2.

    Its state dict has timm's names before and after that. Everything else as in `GhostNetV2`.
    """

    def reparameterize(self) -> None:
        for module in self.modules():
            if isinstance(module, GhostModuleV3 | GhostBottleneckV3):
                module.reparameterize()


def ghostnetv3(
    num_classes: int = 1000,
    in_chans: int = 3,
    ratio: int = 2,
    dw_size: int = 3,
    width: float = 1.0,
    se_ratio: float = 0.25,
    drop_rate: float = 0.2,
    image_size: int | None = None,
    num_branches: int = 3,
) -> GhostNetV3:
    """Build GhostNetV3: 8.13M parameters and 404M MACs at 224 x 224 in training, 6.15M and 167M re-parameterised.

    Published at width 1.0, 1.3 and 1.6. Raises ValueError as `GhostNetV2`, and for num_branches < 1.
    """
    check_args(num_branches=num_branches)
    block = partial(GhostBottleneckV3, num_branches=num_branches)
    stages = replace_blocks(GHOSTNET_STAGES, lambda index: partial(block, attention=index >= 2))
    return GhostNetV3(stages, 1280, num_classes, in_chans, ratio, dw_size, width, se_ratio, drop_rate, image_size)
