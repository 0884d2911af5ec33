"""Define the base class of all classification networks, and their initialisation."""

import copy
import math
from abc import ABC, abstractmethod
from typing import TypeVar

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class Network(nn.Module, ABC):
    """An image classifier in two parts, features and head, with its feature maps by stride."""

    feature_channels: dict[int, int]  # stride -> channels, finest map first
    min_size: int = 1  # smallest image side that works
    min_size_reason: str = ""  # why, as the beginning of a sentence

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    @abstractmethod
    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (N, in_chans, H, W) to the last feature map (N, C, H', W')."""

    @abstractmethod
    def forward_head(self, features: Tensor) -> Tensor:
        """Map the last feature map (N, C, H', W') to logits (N, num_classes)."""

    @abstractmethod
    def feature_maps(self, x: Tensor) -> dict[int, Tensor]:
        """Map images to the last map at each stride: (N, feature_channels[stride], H / stride, W / stride), rounded."""

    def reparameterize(self) -> None:
        """Fold, in place, the branches that only training needs; without branches, do nothing."""

    def check_image(self, x: Tensor) -> None:
        """Raise ValueError when the image is smaller than `min_size`."""
        height, width = x.shape[-2:]
        if min(height, width) < self.min_size:
            raise ValueError(
                f"model: {self.min_size_reason}, so {self.min_size} x {self.min_size} is the smallest image "
                f"that works; found {height} x {width} (datamodule.image_size)"
            )


def meta_copy(module: M) -> M:
    """Copy a module to the meta device, in evaluation mode; `deepcopy(module).to("meta")` would copy its weights."""
    copied: dict[int, object] = {}
    for parameter in module.parameters():
        copied[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    for buffer in module.buffers():
        copied[id(buffer)] = buffer.detach().to("meta")
    return copy.deepcopy(module, copied).to("meta").eval()


def he_init(network: nn.Module) -> None:
    """Initialise every convolution with He's normal distribution by fan-out, and its bias with zero.

    The fan-out is counted within a group, so a depthwise filter is not initialised too small; torch's own
    `kaiming_normal_(mode="fan_out")` ignores groups. Linear and BatchNorm layers keep torch's defaults.
    Source: arXiv 1502.01852.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels // module.groups * math.prod(module.kernel_size)
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
