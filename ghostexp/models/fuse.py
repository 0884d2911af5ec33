"""Fold BatchNorm into the convolution before it: in inference both are one linear map."""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .base import Network

N = TypeVar("N", bound=Network)


def fuse(network: N) -> N:
    """A copy for inference in which each BatchNorm that alone reads a convolution's output is folded into it.

    The convolution gets a bias and the BatchNorm becomes `nn.Identity`; branches are re-parameterised. Kernels are
    computed in float64, so that logits differ by rounding only. The given network stays as it is.
    A BatchNorm behind a plain ghost module stays: it reads intrinsic maps and ghosts, and the ghosts read the former.
    """
    fused = copy.deepcopy(network).eval()
    fused.reparameterize()
    for conv_name, norm_name in find_foldable(fused).items():
        conv, norm = fused.get_submodule(conv_name), fused.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        set_kernel(conv, *fold_batchnorm(conv.weight, conv.bias, norm))
        fused.set_submodule(norm_name, _what_follows(norm))
    return fused


def fold_batchnorm(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Kernel and bias, in float64, of a convolution followed by `norm` in inference."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()  # (out_channels,)
    mean = norm.running_mean.double() - (0.0 if bias is None else bias.double())
    return weight.double() * scale[:, None, None, None], norm.bias.double() - mean * scale


def set_kernel(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    """Give a convolution other weights, in its own dtype."""
    dtype = conv.weight.dtype
    conv.weight = nn.Parameter(weight.detach().to(dtype))
    conv.bias = nn.Parameter(bias.detach().to(dtype))


def find_foldable(network: Network) -> dict[str, str]:
    """The names {convolution: BatchNorm} of which the second reads what the first wrote, and nothing else does.

    Found by running the network once on the meta device: what reads what is a fact of `forward`, not of names.
    """
    shadow = copy.deepcopy(network).to("meta").eval()
    convs = {id(conv.weight): name for name, conv in shadow.named_modules() if type(conv) is nn.Conv2d}
    norms = {id(norm.running_mean): name for name, norm in shadow.named_modules() if _has_all(norm)}
    first = next(module for module in shadow.modules() if isinstance(module, nn.Conv2d))
    side = max(network.min_size, 32)
    image = first.weight.new_empty(1, first.in_channels, side, side)
    with torch.no_grad(), _Readers() as readers:
        shadow(image)
    return {convs[weight]: norms[mean] for weight, mean in readers.pairs() if weight in convs and mean in norms}


def _what_follows(norm: nn.BatchNorm2d) -> nn.Module:
    """What a BatchNorm does besides: timm's BatchNormAct2d activates too."""
    if type(norm) is nn.BatchNorm2d:
        return nn.Identity()
    return nn.Sequential(norm.get_submodule("drop"), norm.get_submodule("act"))


def _has_all(module: nn.Module) -> bool:
    """Whether a module is a BatchNorm, torch's or timm's, with statistics and affine parameters."""
    if not isinstance(module, nn.BatchNorm2d) or type(module).__name__ not in ("BatchNorm2d", "BatchNormAct2d"):
        return False
    return module.affine and module.running_mean is not None


class _Readers(TorchFunctionMode):
    """Notes of every tensor which calls read it, and of every convolution what it wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: defaultdict[int, list[int | None]] = defaultdict(list)  # running means of BatchNorms, else None
        self.written: dict[int, int] = {}  # a convolution's output -> its weight
        self.alive: list[object] = []  # tensors are told apart by id, which a dead one would pass on

    def __torch_function__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        result = func(*args, **(kwargs or {}))
        if not any(_tensors(result)):
            return result  # a question such as x.dim()
        self.alive += [*args, result]
        second = id(args[1]) if len(args) > 1 else None
        reader = second if func is F.batch_norm else None
        for tensor in _tensors([*args, *(kwargs or {}).values()]):
            self.readers[tensor].append(reader)
        if func is torch.conv2d and second is not None:
            self.written[id(result)] = second
        return result

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Weight and running mean of each convolution and BatchNorm, each run once, that have only each other."""
        for output, weight in self.written.items():
            mean = self.readers[output][0] if len(self.readers[output]) == 1 else None
            if mean is not None and len(self.readers[weight]) == len(self.readers[mean]) == 1:
                yield weight, mean


def _tensors(value: object) -> Iterator[int]:
    """The ids of the tensors in an argument or a result, which may be a sequence of them."""
    if isinstance(value, Tensor):
        yield id(value)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
