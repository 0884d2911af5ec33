"""Fold BatchNorm into the convolution before it: in inference both are one linear map."""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .base import Network, meta_copy
from .cheap_conv import CheapConv2d

N = TypeVar("N", bound=Network)


def fuse(network: N, image_shape: tuple[int, int, int] | None = None) -> N:
    """Return a copy for inference with each BatchNorm folded into its convolution, where nothing else reads the output.

    The convolution gets a bias and the BatchNorm becomes `nn.Identity`; branches are re-parameterised. Kernels are
    computed in float64, so that logits differ by rounding only. The given network is not changed.
    A BatchNorm after a ghost module with norm_act=none stays. It could be folded for the ghosts alone: the cheap
    operation reads intrinsic maps as they were before it, and pads them with zeros. That was measured to be no faster.

    image_shape: (C, H, W) of the images, for networks that need more than 32 x 32 pixels, or take one size only.
    """
    fused = copy.deepcopy(network).eval()
    fused.reparameterize()
    for conv_name, norm_name in find_foldable(fused, image_shape).items():
        conv, norm = fused.get_submodule(conv_name), fused.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        set_kernel(conv, *fold_batchnorm(conv.weight, conv.bias, norm))
        fused.set_submodule(norm_name, rest_of_norm(norm))
    return fused


def fold_batchnorm(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Compute kernel and bias, in float64, of a convolution followed by `norm` in inference."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()  # (out_channels,)
    mean = norm.running_mean.double() - (0.0 if bias is None else bias.double())
    return weight.double() * scale[:, None, None, None], norm.bias.double() - mean * scale


def set_kernel(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    """Replace the weights of a convolution, in its own dtype."""
    dtype = conv.weight.dtype
    conv.weight = nn.Parameter(weight.detach().to(dtype))
    conv.bias = nn.Parameter(bias.detach().to(dtype))


def find_foldable(network: Network, image_shape: tuple[int, int, int] | None = None) -> dict[str, str]:
    """Find the names {convolution: BatchNorm} where only that BatchNorm reads the convolution's output.

    Runs a network with BatchNorms once on the meta device, on an image of that shape: which layer reads which output is
    decided by `forward`, not by names.
    """
    meta_network = meta_copy(network)
    kinds = (nn.Conv2d, CheapConv2d)
    convs = {id(conv.weight): name for name, conv in meta_network.named_modules() if type(conv) in kinds}
    norms = {id(norm.running_mean): name for name, norm in meta_network.named_modules() if is_foldable(norm)}
    if not norms:
        return {}
    first = next(module for module in meta_network.modules() if isinstance(module, nn.Conv2d))
    side = max(network.min_size, 32)
    image = first.weight.new_empty(1, *(image_shape or (first.in_channels, side, side)))
    with torch.no_grad(), _Readers() as readers:
        meta_network(image)
    return {convs[weight]: norms[mean] for weight, mean in readers.pairs() if weight in convs and mean in norms}


def rest_of_norm(norm: nn.BatchNorm2d) -> nn.Module:
    """Build what is left of a folded BatchNorm: dropout and activation of timm's BatchNormAct2d, else nothing."""
    if type(norm) is nn.BatchNorm2d:
        return nn.Identity()
    return nn.Sequential(norm.get_submodule("drop"), norm.get_submodule("act"))


def is_foldable(module: nn.Module) -> bool:
    """Return whether a module is a BatchNorm, torch's or timm's, with statistics and affine parameters."""
    if not isinstance(module, nn.BatchNorm2d) or type(module).__name__ not in ("BatchNorm2d", "BatchNormAct2d"):
        return False
    return module.affine and module.running_mean is not None


class _Readers(TorchFunctionMode):
    """Record which calls read each tensor, and which tensor each convolution wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: defaultdict[int, list[int | None]] = defaultdict(list)  # running means of BatchNorms, else None
        self.written: dict[int, int] = {}  # a convolution's output -> its weight
        self.alive: list[object] = []  # tensors are identified by id, which would be reused after one is freed

    def __torch_function__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        result = func(*args, **(kwargs or {}))
        if not any(_tensors(result)):
            return result  # a property such as x.dim()
        self.alive += [*args, result]
        second = id(args[1]) if len(args) > 1 else None
        reader = second if func is F.batch_norm else None
        for tensor in _tensors([*args, *(kwargs or {}).values()]):
            self.readers[tensor].append(reader)
        if func is torch.conv2d and second is not None:
            self.written[id(result)] = second
        return result

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Yield weight and running mean of each foldable pair: both run once, and nothing else reads the output."""
        for output, weight in self.written.items():
            mean = self.readers[output][0] if len(self.readers[output]) == 1 else None
            if mean is not None and len(self.readers[weight]) == len(self.readers[mean]) == 1:
                yield weight, mean


def _tensors(value: object) -> Iterator[int]:
    """Yield the ids of the tensors in an argument or a result, which may be a sequence of them."""
    if isinstance(value, Tensor):
        yield id(value)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
