"""Re-parameterise convolutions: sums of parallel branches in training, one convolution in inference."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .fuse import fold_batchnorm, set_kernel


class ReparamBranch(nn.Module):
    """A convolution of the type and geometry of another, except for its kernel size, and a BatchNorm."""

    def __init__(self, like: nn.Conv2d, kernel_size: int) -> None:
        super().__init__()
        self.conv = type(like)(
            like.in_channels,
            like.out_channels,
            kernel_size,
            stride=(like.stride[0], like.stride[1]),
            padding=kernel_size // 2,
            groups=like.groups,
            bias=False,
        )
        self.bn1 = nn.BatchNorm2d(like.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn1(self.conv(x))


class ReparamMixin(nn.Module):
    """Holds branches under the names of the released weights: NAME_rpr_skip, NAME_rpr_conv and NAME_rpr_scale."""

    def add_branches(self, name: str, conv: nn.Conv2d, count: int, skip: bool = True) -> None:
        """Replace `conv` by branches: `count` like it and, where its kernel is larger, one that is 1x1.

        skip: add a BatchNorm of the input itself, where input and output have the same shape.
        """
        side = conv.kernel_size[0]
        skip = skip and conv.in_channels == conv.out_channels and conv.stride == (1, 1)
        self.register_module(f"{name}_rpr_skip", nn.BatchNorm2d(conv.in_channels) if skip else None)
        self.register_module(f"{name}_rpr_conv", nn.ModuleList(ReparamBranch(conv, side) for _ in range(count)))
        self.register_module(f"{name}_rpr_scale", ReparamBranch(conv, 1) if side > 1 else None)

    def branches(self, name: str) -> list[nn.Module]:
        """List the branches that replace a convolution, small ones first; empty once they are folded."""
        convs = getattr(self, f"{name}_rpr_conv", None)
        if convs is None:
            return []
        small = (getattr(self, f"{name}_rpr_scale"), getattr(self, f"{name}_rpr_skip"))
        return [*filter(None, small), *convs]

    def pop_fused_conv(self, name: str) -> nn.Conv2d:
        """Remove the branches and return the one convolution that equals their sum in inference."""
        conv = fuse_branches(self.branches(name))
        for kind in ("skip", "conv", "scale"):
            delattr(self, f"{name}_rpr_{kind}")
        return conv


def sum_branches(branches: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Sum the outputs of all branches."""
    first, *others = branches
    y = first(x)
    for branch in others:
        y = y + branch(x)
    return y


def fuse_branches(branches: Sequence[nn.Module]) -> nn.Conv2d:
    """Fold branches into one convolution, equal to `sum_branches` in inference; reuses the last, largest branch."""
    *_, largest = branches
    assert isinstance(largest, ReparamBranch)
    conv = largest.conv
    weight = torch.zeros_like(conv.weight, dtype=torch.float64)
    bias = weight.new_zeros(len(weight))
    for branch in branches:
        branch_weight, branch_bias = _kernel(branch, conv.groups)
        margin = (weight.shape[-1] - branch_weight.shape[-1]) // 2
        weight += F.pad(branch_weight, [margin] * 4)
        bias += branch_bias
    set_kernel(conv, weight, bias)
    return conv


def _kernel(branch: nn.Module, groups: int) -> tuple[Tensor, Tensor]:
    if isinstance(branch, ReparamBranch):
        return fold_batchnorm(branch.conv.weight, None, branch.bn1)
    assert isinstance(branch, nn.BatchNorm2d)  # of the input itself: a 1x1 convolution by the identity
    identity = torch.eye(branch.num_features // groups, device=branch.weight.device).repeat(groups, 1)
    return fold_batchnorm(identity[:, :, None, None], None, branch)
