"""Count parameters, MACs, activations and peak memory of a network and of its layers."""

import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ghostexp.models.base import M, Network, meta_copy
from ghostexp.models.ghost_module import GhostModule

Shape = tuple[int, int, int]  # of an image: (C, H, W)


@dataclass(frozen=True)
class Cost:
    """Parameters, frozen ones too, and multiply-accumulates of convolutions and linear layers for one image.

    The GhostNet papers call these MACs "FLOPs"; elsewhere a MAC is two FLOPs.
    """

    params: int
    macs: int


def count_cost(network: nn.Module, image_shape: Shape) -> Cost:
    """Count a network's cost on one image, on the meta device.

    Of a detector: FPN and heads too, with the largest possible number of proposals.
    Raises ValueError: images of this shape are too small for the network.
    """
    params = sum(parameter.numel() for parameter in network.parameters())
    return Cost(params, _macs(without_norms(meta_copy(network)), image_shape))


def backbone_macs(network: Network, image_shape: Shape = (3, 224, 224)) -> int:
    """Count the MACs of a classifier without its head, as arXiv 1911.11907, table 8, for a detector's backbone.

    Count them before a detector prunes the unused layers.
    """
    copied = meta_copy(network)
    assert copied.feature_channels  # a network of another library finds its maps by a run, which is not to be counted
    return _macs(without_norms(copied).forward_features, image_shape)


def without_norms(meta_network: M) -> M:
    """Skip, in place, each BatchNorm, which has no MACs, and takes ten operations in Python on the meta device."""
    for module in meta_network.modules():
        if type(module) is nn.BatchNorm2d:
            setattr(module, "forward", _pass_on(module))  # noqa: B010 - the argument of torch's has a name
    return meta_network


def _pass_on(norm: nn.BatchNorm2d) -> Callable[[Tensor], Tensor]:
    forward = norm.forward  # raises for maps of another shape
    return lambda maps: maps if maps.dim() == 4 and maps.shape[1] == norm.num_features else forward(maps)


def _macs(function: Callable[[Tensor], object], image_shape: Shape) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function(torch.empty(1, *image_shape, device="meta"))
    return counter.get_total_flops() // 2


THOP_PER_ELEMENT = 4  # thop's count per output element of a BatchNorm


@dataclass(frozen=True)
class LayerCost:
    """One layer of a network and its cost on one image.

    part: `primary` or `cheap` inside a ghost module, else empty. output: shape without the batch.
    """

    name: str
    kind: str
    part: str
    output: str
    params: int
    macs: int
    activations: int
    thop: int


def layer_costs(network: nn.Module, image_shape: Shape) -> list[LayerCost]:
    """Count each convolution, linear layer and BatchNorm that runs, in order of their first run.

    The cost outside these layers, such as the matrix products of attention, is one last row, if there is any.

    activations: output elements of convolutions and linear layers, as in arXiv 2003.13678.
    thop: the count of the package thop: MACs, and 4 per output element of a BatchNorm.
    """
    meta_network = without_norms(meta_copy(network))
    written: dict[str, list[Tensor]] = {}
    for name, module in meta_network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            module.register_forward_hook(_remember(written, name))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        meta_network(torch.empty(1, *image_shape, device="meta"))
    first = {id(module): name for name, module in meta_network.named_modules()}
    names = {name: first[id(module)] for name, module in meta_network.named_modules(remove_duplicate=False)}
    flops = Counter[str]()  # of a module with several names, under the first
    for name, counts in counter.get_flop_counts().items():
        path = name.partition(".")[2]
        flops[names.get(path, path)] += sum(counts.values())
    rows = [_layer(meta_network, name, outputs, flops[name] // 2) for name, outputs in written.items()]
    params = sum(parameter.numel() for parameter in network.parameters()) - sum(row.params for row in rows)
    macs = counter.get_total_flops() // 2 - sum(row.macs for row in rows)
    return rows + [LayerCost("(elsewhere)", "", "", "", params, macs, 0, macs)] * bool(params or macs)


def _remember(written: dict[str, list[Tensor]], name: str) -> Callable[[nn.Module, tuple, Tensor], None]:
    return lambda module, inputs, output: written.setdefault(name, []).append(output)


def _layer(network: nn.Module, name: str, outputs: list[Tensor], macs: int) -> LayerCost:
    module = network.get_submodule(name)
    elements = sum(output.numel() for output in outputs)
    multiplies = not isinstance(module, nn.BatchNorm2d)
    return LayerCost(
        name=name,
        kind=_kind(module),
        part=_part(network, name),
        output=" x ".join(str(side) for side in outputs[0].shape[1:]),
        params=sum(parameter.numel() for parameter in module.parameters()),
        macs=macs,
        activations=elements if multiplies else 0,
        thop=macs if multiplies else THOP_PER_ELEMENT * elements,
    )


def _kind(module: nn.Module) -> str:
    if not isinstance(module, nn.Conv2d):
        return "linear" if isinstance(module, nn.Linear) else "batchnorm"
    kernel = "x".join(str(side) for side in module.kernel_size)
    return f"conv {kernel}" + (f", {module.groups} groups" if module.groups > 1 else "")


def _part(network: nn.Module, name: str) -> str:
    """Return `primary` or `cheap` for a layer inside a ghost module, by its attribute's name, else an empty string."""
    path = name.split(".")
    for depth in range(len(path)):
        if isinstance(network.get_submodule(".".join(path[:depth])), GhostModule):
            parts = [part for part in ("primary", "cheap") if path[depth].startswith(part)]
            return parts[0] if parts else ""
    return ""


class PeakMemory(TorchDispatchMode):
    """Record the peak of the bytes of live tensors while this is active; starts at `at_start` bytes."""

    def __init__(self, at_start: int = 0) -> None:
        super().__init__()
        self.now = self.peak = at_start
        self.known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage not in self.known:
            self.known.add(storage)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, storage.nbytes())

    def _free(self, size: int) -> None:
        self.now -= size


def peak_memory(network: nn.Module, image_shape: tuple[int, int, int], batch: int = 1) -> int:
    """Compute the peak bytes of weights, images and maps in float32 inference, on the meta device.

    Workspace that a library allocates within an operation is not included.
    """
    meta_network = meta_copy(network)
    weights = sum(tensor.untyped_storage().nbytes() for tensor in meta_network.state_dict().values())
    images = torch.empty(batch, *image_shape, device="meta")
    with torch.no_grad(), PeakMemory(weights + images.untyped_storage().nbytes()) as memory:
        meta_network(images)
    return memory.peak
