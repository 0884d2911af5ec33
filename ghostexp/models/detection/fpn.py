"""Build a feature pyramid network (FPN) on any backbone, and the anchors of its levels."""

import copy
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # of which SyncBatchNorm is one too
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from ..base import Network
from ..traced_network import TracedNetwork


class BackboneWithFPN(nn.Module):
    """A backbone, pruned to the layers that the selected maps depend on, and a feature pyramid on these maps.

    (N, 3, H, W) -> {level: (N, channels, H / stride, W / stride)}, finest level first; H and W have to be multiples of
    `divisor`. The level of the map at stride 8 is `stride8`. Source: arXiv 1612.03144.

    strides: of the selected maps, each twice the one before.
    extra: adds `extra_levels` further levels, each at half the resolution of the one before, rounded up.
    freeze_stages: freeze all layers up to that many of the network's maps, from the finest on: no gradient, and
    BatchNorm in evaluation mode. freeze_batchnorm: freeze all BatchNorms of the backbone.
    The backbone is pruned in place and keeps the names of its weights; load them before.
    Raises ValueError: the network does not have these maps.
    """

    def __init__(
        self,
        backbone: Network,
        strides: Sequence[int],
        channels: int,
        extra: ExtraFPNBlock | None = None,
        extra_levels: int = 0,
        freeze_stages: int = 0,
        freeze_batchnorm: bool = False,
    ) -> None:
        super().__init__()
        check_strides(backbone, strides, freeze_stages)
        frozen = parameters_feeding(backbone, list(backbone.feature_channels)[:freeze_stages])
        prune_unused_layers(backbone, strides)
        freeze(backbone, frozen, freeze_batchnorm)
        self.body = backbone
        self.fpn = FeaturePyramidNetwork(list(backbone.feature_channels.values()), channels, extra)
        self.out_channels = channels
        self.divisor = strides[-1]
        self.strides = [*strides, *(strides[-1] * 2 ** (level + 1) for level in range(extra_levels))]  # of all levels
        # Not p6 and p7, which are torchvision's names of the extra levels.
        self.map_levels = {f"stride{stride}": stride for stride in strides}
        self.train()  # Lightning restores the modes that it finds: frozen BatchNorms would be trained

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.body.feature_maps(x)
        return self.fpn({level: maps[stride] for level, stride in self.map_levels.items()})

    def train(self, mode: bool = True) -> "BackboneWithFPN":
        """Set the mode, but leave BatchNorms whose weights are frozen in evaluation mode."""
        super().train(mode)
        for module in self.body.modules():
            if isinstance(module, _BatchNorm) and module.affine and not module.weight.requires_grad:
                module.eval()
        return self


def check_strides(network: Network, strides: Sequence[int], freeze_stages: int) -> None:
    """Raise ValueError, which names the config key, unless a network has these maps, and as many to freeze."""
    name, available = type(network).__name__, list(network.feature_channels)
    if not available:
        reason = f" ({network.traced.error})" if isinstance(network, TracedNetwork) else ""
        raise ValueError(f"model.backbone: {name} has no feature maps by stride, which a detector needs{reason}")
    wanted = list(strides) if isinstance(strides, list | tuple) else []
    if not wanted or [finer * 2 for finer in wanted[:-1]] != wanted[1:] or not set(wanted) <= set(available):
        raise ValueError(
            f"model.strides={wanted or strides}: must be some of {available}, each twice the one before; "
            f"those are the strides of {name}'s maps"
        )
    if type(freeze_stages) is not int or not 0 <= freeze_stages <= len(available):
        raise ValueError(f"model.freeze_stages={freeze_stages}: must be an integer from 0 to {len(available)}")


def prune_unused_layers(network: Network, strides: Sequence[int]) -> None:
    """Replace, in place, by `nn.Identity` the layers that no map at these strides depends on, such as the head."""
    _prune(network, parameters_feeding(network, strides))
    network.feature_channels = {stride: network.feature_channels[stride] for stride in strides}


def _prune(module: nn.Module, used: set[nn.Parameter]) -> None:
    for name, child in module.named_children():
        own = set(child.parameters())
        if own and own.isdisjoint(used):
            setattr(module, name, nn.Identity())
        else:
            _prune(child, used)


def parameters_feeding(network: Network, strides: Sequence[int]) -> set[nn.Parameter]:
    """Find the parameters of a network that its maps at these strides depend on."""
    if not strides:
        return set()
    copied = copy.deepcopy(network).eval()
    side = max(copied.min_size, 2 * max(copied.feature_channels))
    maps = copied.feature_maps(next(copied.parameters()).new_zeros(1, 3, side, side))
    total = torch.stack([maps[stride].sum() for stride in strides]).sum()
    gradients = torch.autograd.grad(total, list(copied.parameters()), allow_unused=True)
    return {own for own, gradient in zip(network.parameters(), gradients, strict=True) if gradient is not None}


def freeze(network: Network, parameters: Collection[nn.Parameter], batchnorm: bool) -> None:
    """Freeze these parameters, and with `batchnorm` those of all BatchNorms."""
    norms = [module for module in network.modules() if batchnorm and isinstance(module, _BatchNorm)]
    for parameter in (*parameters, *(own for norm in norms for own in norm.parameters())):
        parameter.requires_grad_(False)


class LevelAnchorGenerator(AnchorGenerator):
    """Generate anchors at each pixel of each level: side `scale` strides, for each ratio height / width and octave.

    The side is that of the square of equal area; each of `octaves` boxes is larger than the one before by the factor
    2^(1 / octaves), before torchvision rounds them to whole pixels. Anchors are float32, with a level's stride between
    them. Torchvision's own generator uses the maps' precision (steps of 8 pixels under bfloat16), and a wrong distance
    where a map's size was rounded up.
    """

    def __init__(self, strides: Sequence[int], scale: float, ratios: Sequence[float], octaves: int = 1) -> None:
        factors = [scale * 2 ** (octave / octaves) for octave in range(octaves)]
        sizes = tuple(tuple(factor * stride for factor in factors) for stride in strides)
        super().__init__(sizes, (tuple(ratios),) * len(strides))  # pyright: ignore[reportArgumentType]
        self.strides = list(strides)

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        device = feature_maps[0].device
        self.set_cell_anchors(torch.float32, device)
        sizes = [list(level.shape[-2:]) for level in feature_maps]
        steps = [[stride] * 2 for stride in self.strides]
        # Python numbers: each tensor would be a blocking copy to the device.
        anchors = torch.cat(self.grid_anchors(sizes, steps))  # pyright: ignore[reportArgumentType]  # (A, 4)
        return [anchors] * len(image_list.image_sizes)
