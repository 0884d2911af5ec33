"""Make a network of another library a `Network`: find its feature maps and its head by running and tracing it."""

import copy
from collections.abc import Callable, Collection, Iterator
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn

from .base import Network, meta_copy

SIDES = (256, 320)  # of the image that finds the strides: with equal sides, channels last could be taken for a map
CHEAP = "cheap_operation"  # of a ghost module, which is pointwise if the convolution that it replaced was
FINEST = 4  # stride of the finest map in use, the FPN's C2; arXiv 1612.03144 leaves the stem out

Shapes = dict[str, tuple[torch.Size, torch.Size]]  # input and output of the modules, in the order in which they end


class TracedNetwork(Network):
    """A network of another library, whose feature maps are found when they are first asked for: see `as_network`."""

    @cached_property
    def traced(self) -> "Traced":
        """The channels and parts of this network, or why it has none."""
        try:
            return _trace(meta_copy(self))
        except Exception as error:  # of any kind: it comes from the network's own forward
            return Traced({}, {}, " ".join(f"{type(error).__name__}: {error}".split()))

    @cached_property
    def feature_channels(self) -> dict[int, int]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.traced.channels

    def forward_features(self, x: Tensor) -> Tensor:
        return self._parts().features(self, x)[0]

    def forward_head(self, features: Tensor) -> Tensor:
        return self._parts().head(self, features)

    def feature_maps(self, x: Tensor) -> dict[int, Tensor]:
        maps = dict(zip(self.traced.channels, self._parts().features(self, x)[1:], strict=True))
        return {stride: maps[stride] for stride in self.feature_channels}

    def reparameterize(self) -> None:
        """Fold the branches of timm's layers, as timm does before inference."""
        if any(kind.__module__.startswith("timm.") for kind in type(self).__mro__):
            from timm.utils.model import reparameterize_model

            reparameterize_model(self, inplace=True)
            if "traced" in self.__dict__:
                del self.traced

    def _parts(self) -> "Parts":
        if not self.traced.parts:
            raise ValueError(f"model: {type(self).__name__} has no feature maps by stride ({self.traced.error})")
        return self.traced.parts[self.training]


class Parts(NamedTuple):
    """A network's forward in two parts, functions of the network and their input."""

    features: Callable[[nn.Module, Tensor], list[Tensor]]  # the input of the head, and the maps, finest first
    head: Callable[[nn.Module, Tensor], Tensor]


class Traced(NamedTuple):
    """The maps' channels by stride, and the parts in evaluation and in training mode; or why there are none."""

    channels: dict[int, int]
    parts: dict[bool, Parts]
    error: str = ""


def as_network(network: nn.Module) -> Network:
    """Make a module, in place, a `Network` with its own layers, forward and state dict.

    Its feature map at a stride is the output of its last block there, without the pointwise convolution of a head. It
    has none where images of 256 x 320 do not pass, maps are not (N, C, H / stride, W / stride), several blocks read
    them (HRNet), tokens follow (vision transformers), or `torch.fx` cannot trace how the blocks are connected.
    """
    if isinstance(network, Network):
        return network
    kind = type(network)
    network.__class__ = type(kind.__name__, (kind, TracedNetwork), {})  # pyright: ignore[reportGeneralTypeIssues]
    assert isinstance(network, Network)
    return network


def _trace(network: nn.Module) -> Traced:
    shapes = _record_shapes(network)
    blocks = set(_find_blocks("", network, shapes))
    maps, last = _find_maps(network, [name for name in shapes if name in blocks], shapes)
    graphs = {mode: _BlockTracer(blocks).trace(network.train(mode)) for mode in (False, True)}
    coarsest = max(maps, default=0)
    maps = {stride: name for stride, name in maps.items() if _is_only_link(graphs[False], name)}
    if coarsest not in maps or not _is_only_link(graphs[False], last):
        return Traced({}, {}, "no map of its blocks is (N, C, H / stride, W / stride) and the only input of the next")
    finest = FINEST if max(maps) > FINEST else 1
    maps = {stride: name for stride, name in sorted(maps.items()) if stride >= finest}
    parts = {
        mode: Parts(_features(network, graph, maps, last), _head(network, graph, last))
        for mode, graph in graphs.items()
    }
    return Traced({stride: shapes[name][1][1] for stride, name in maps.items()}, parts)


def _record_shapes(network: nn.Module) -> Shapes:
    """Run the network once, and return input and output shape of its modules in the order in which they end."""
    shapes: Shapes = {}

    def record(name: str, _: nn.Module, args: tuple, output: object) -> None:
        shapes.pop(name, None)  # the last call counts
        if isinstance(output, Tensor) and args and isinstance(args[0], Tensor):
            shapes[name] = (args[0].shape, output.shape)

    handles = [module.register_forward_hook(partial(record, name)) for name, module in network.named_modules()]
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        network(first.weight.new_empty(1, first.in_channels, *SIDES))
    for handle in handles:
        handle.remove()
    return shapes


def _stride(shape: tuple[int, ...]) -> int | None:
    """Return the power of two by which a map (1, C, H, W) is smaller than the image; None for other shapes."""
    strides = (2**power for power in range(7))
    return next((stride for stride in strides if shape[2:] == (SIDES[0] // stride, SIDES[1] // stride)), None)


def _find_blocks(name: str, module: nn.Module, shapes: Shapes) -> Iterator[str]:
    """Yield the outermost modules that halve the resolution at most once, and those without such a module in them."""
    before, after = (_stride(shape) for shape in shapes[name]) if name in shapes else (None, None)
    inner: list[str] = []
    if before is None or after is None or after > 2 * before:
        for child, part in module.named_children():
            inner += _find_blocks(f"{name}.{child}".lstrip("."), part, shapes)
    has_maps = any(block in shapes and _stride(shapes[block][1]) for block in inner)
    yield from inner if has_maps else [name]


def _find_maps(network: nn.Module, blocks: list[str], shapes: Shapes) -> tuple[dict[int, str], str]:
    """Return the block of each stride's map, and the last block before the network pools its map."""
    maps: dict[int, str] = {}
    last = ""
    for name in blocks:
        block, shape = network.get_submodule(name), shapes[name][1]
        stride = _stride(shape)
        if stride is None:
            if len(shape) == 3 or (len(shape) == 4 and _stride((1, 1, *shape[1:3]))):
                maps.clear()  # tokens, or channels last: what came before is only a stem
            continue
        last = name
        convs = [conv for path, conv in block.named_modules() if isinstance(conv, nn.Conv2d) and CHEAP not in path]
        is_pointwise = all(max(conv.kernel_size) == 1 for conv in convs)
        if stride not in maps or not is_pointwise or shape[1] == shapes[maps[stride]][1][1]:
            maps[stride] = name
    return maps, last


class _BlockTracer(fx.Tracer):
    """Trace with the blocks as leaves: inside, the mode and the shapes may decide, and layers may be replaced later.

    Torchvision's `create_feature_extractor` traces into blocks of other libraries, and copies the layers.
    """

    def __init__(self, blocks: Collection[str]) -> None:
        super().__init__()
        self.blocks = blocks

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self.blocks or super().is_leaf_module(m, module_qualified_name)


def _node(graph: fx.Graph, block: str) -> fx.Node:
    return [node for node in graph.nodes if node.op == "call_module" and node.target == block][-1]


def _is_only_link(graph: fx.Graph, block: str) -> bool:
    """Return whether all that follows a block reads its output, and nothing from before it."""
    nodes = list(graph.nodes)
    position = nodes.index(_node(graph, block))
    before = set(nodes[: position + 1])
    return all(user in before for node in nodes[:position] for user in node.users)


def _features(network: nn.Module, graph: fx.Graph, maps: dict[int, str], last: str) -> Callable:
    """Cut a graph to the computation of the last block's output and of the maps."""
    graph = copy.deepcopy(graph)
    graph.erase_node(next(iter(reversed(graph.nodes))))
    graph.output([_node(graph, last), *(_node(graph, name) for name in maps.values())])
    return _forward(network, graph)


def _head(network: nn.Module, graph: fx.Graph, last: str) -> Callable:
    """Cut a graph to what follows the last block."""
    graph = copy.deepcopy(graph)
    with graph.inserting_before(next(iter(graph.nodes))):
        _node(graph, last).replace_all_uses_with(graph.placeholder("features"))
    return _forward(network, graph)


def _forward(network: nn.Module, graph: fx.Graph) -> Callable:
    """Generate the function of what a graph's output needs; it finds the layers in the network that it is given."""
    module = fx.GraphModule(network, graph)
    graph.eliminate_dead_code()
    for node in graph.find_nodes(op="placeholder"):
        if not node.users:
            graph.erase_node(node)
    module.recompile()
    return type(module).forward
