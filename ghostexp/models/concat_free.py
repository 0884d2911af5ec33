"""Rewrite an exported network so that it does not concatenate intrinsic maps and ghosts: exact up to rounding.

A concatenation moves all maps once and multiplies nothing. Whatever treats each channel alone (activations, depthwise
convolutions, BatchNorm, pooling, additions, gates) does the same to the two parts of a map, and a convolution that
reads both is a sum: W [p; c] = W1 p + W2 c.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

aten = torch.ops.aten
CONV, CAT, ADD, MUL = aten.conv2d.default, aten.cat.default, aten.add.Tensor, aten.mul.Tensor
BATCHNORM = aten._native_batch_norm_legit_no_training.default
NAMES = ("relu", "hardtanh", "hardswish", "hardsigmoid", "sigmoid", "silu", "gelu", "clone", "dropout")
NAMES += ("adaptive_avg_pool2d", "avg_pool2d", "max_pool2d", "upsample_nearest2d", "upsample_bilinear2d")
SPATIAL = [2, 3]  # dimensions whose mean is of each channel alone


@dataclass(eq=False)
class Parts:
    """The two parts of a map (N, C, H, W) that is not concatenated, and their channels."""

    nodes: tuple[fx.Node, fx.Node]
    channels: tuple[int, int]
    whole: fx.Node | None = None  # their concatenation, made where one is needed


def concat_free(program: torch.export.ExportedProgram) -> fx.GraphModule:
    """Return the module of an exported network without concatenations of two maps, where that is possible."""
    module = program.run_decompositions({}).module()
    assert isinstance(module, fx.GraphModule)
    return _Rewriter(module).rewrite()


def has_concatenations(program: torch.export.ExportedProgram) -> bool:
    """Return whether an exported network concatenates anything."""
    return any(node.target is CAT for node in program.graph.nodes)


class _Rewriter:
    """Copies a graph; `found` has the copy of each node, or its parts."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.graph = fx.Graph()
        self.found: dict[fx.Node, fx.Node | Parts] = {}
        self.count = 0  # of sliced weights

    def rewrite(self) -> fx.GraphModule:
        for node in self.module.graph.nodes:
            if node.op == "call_module":  # checks of the shapes of inputs, which the next export makes again
                continue
            parts = self.parts(node) if node.op == "call_function" else None
            self.found[node] = self.graph.node_copy(node, self.whole) if parts is None else parts
        self.graph.eliminate_dead_code()
        self.graph._codegen = self.module.graph._codegen  # which holds the names and the structure of the inputs
        self.graph.lint()
        return fx.GraphModule(self.module, self.graph)

    def whole(self, node: fx.Node) -> fx.Node:
        """Return the copy of a node, concatenated if it is in parts."""
        found = self.found[node]
        if isinstance(found, fx.Node):
            return found
        if found.whole is None:
            found.whole = self.graph.call_function(CAT, (list(found.nodes), 1))
        return found.whole

    def parts(self, node: fx.Node) -> Parts | fx.Node | None:
        """Return a node in parts, or as a node of another form; None to copy it."""
        target, first = node.target, node.args[0] if node.args else None
        if target is CAT:
            return self.concatenated(node)
        if target in (ADD, MUL):
            return self.combined(node)
        given = self.found.get(first) if isinstance(first, fx.Node) else None
        if target is operator.getitem and isinstance(given, Parts):
            return given  # of a BatchNorm, the map
        if not isinstance(given, Parts) or not _has_weights(node):
            return None
        if target is CONV and _groups(node) == 1:
            return self.summed(node, given)
        return self.each(node, given)

    def concatenated(self, node: fx.Node) -> Parts | None:
        maps, dimension = node.args[0], node.args[1] if len(node.args) > 1 else 0
        if not isinstance(maps, Sequence) or len(maps) != 2 or dimension != 1 or len(_shape(node)) != 4:
            return None
        first, second = (self.whole(part) for part in maps if isinstance(part, fx.Node))
        channels = tuple(_shape(part)[1] for part in maps if isinstance(part, fx.Node))
        return Parts((first, second), (channels[0], channels[1]))

    def combined(self, node: fx.Node) -> Parts | None:
        """Add or multiply parts; what is not in parts yet is computed in these parts, if that costs nothing."""
        operands = [operand for operand in node.args if isinstance(operand, fx.Node)]
        known = [one for operand in operands if isinstance(one := self.found[operand], Parts)]
        if len(operands) != 2 or not known or node.kwargs:
            return None
        channels = known[0].channels
        if any(len(_shape(operand)) != 4 or _shape(operand)[1] != sum(channels) for operand in operands):
            return None
        one, other = (self.pulled(operand, channels) for operand in operands)
        if one is None or other is None:
            return None
        nodes = [self.graph.call_function(_function(node), pair) for pair in zip(one.nodes, other.nodes, strict=True)]
        return Parts((nodes[0], nodes[1]), channels)

    def pulled(self, node: fx.Node, channels: tuple[int, int]) -> Parts | None:
        """Return a node in parts of these channels: computed so from the convolution on, if only this needs it."""
        found = self.found[node]
        if isinstance(found, Parts):
            return found if found.channels == channels else None
        source = node.args[0] if node.args else None
        if len(node.users) != 1 or not isinstance(source, fx.Node) or not _has_weights(node):
            return None
        if node.target is CONV and _groups(node) == 1:
            return Parts(self.convolved(node, channels), channels)
        if not _is_channelwise(node) or node.target is BATCHNORM:
            return None
        parts = self.pulled(source, channels) if _shape(source)[1] == sum(channels) else None
        return None if parts is None else self.each(node, parts)

    def convolved(self, node: fx.Node, channels: tuple[int, int]) -> tuple[fx.Node, fx.Node]:
        """Compute the two parts of a convolution's output."""
        source, weight, bias = self._conv_args(node)
        given = self.found[source]
        halves = []
        for rows in _ranges(channels):
            part = None if bias is None else bias[rows]
            if isinstance(given, Parts):
                halves.append(self._sum(node, given, weight[rows], part))
            else:
                halves.append(self._conv(node, given, weight[rows], part))
        return halves[0], halves[1]

    def summed(self, node: fx.Node, given: Parts) -> fx.Node:
        """Convolve parts: the sum of two convolutions."""
        _, weight, bias = self._conv_args(node)
        return self._sum(node, given, weight, bias)

    def _sum(self, node: fx.Node, given: Parts, weight: Tensor, bias: Tensor | None) -> fx.Node:
        first, second = (weight[:, columns] for columns in _ranges(given.channels))
        one = self._conv(node, given.nodes[0], first, bias)
        return self.graph.call_function(ADD, (one, self._conv(node, given.nodes[1], second, None)))

    def each(self, node: fx.Node, given: Parts) -> Parts | None:
        """Apply to both parts what treats each channel alone."""
        if not _is_channelwise(node):
            return None
        factor = _shape(node)[1] // sum(given.channels) if node.target is CONV else 1
        nodes = []
        for part, columns in zip(given.nodes, _ranges(given.channels), strict=True):
            if node.target is CONV:
                _, weight, bias = self._conv_args(node)
                rows = slice(factor * columns.start, factor * columns.stop)
                half = None if bias is None else bias[rows]
                nodes.append(self._conv(node, part, weight[rows], half, columns.stop - columns.start))
                continue
            if node.target is BATCHNORM:
                sliced = [self._constant(self._value(value)[columns]) for value in node.args[1:5]]
                result = self.graph.call_function(BATCHNORM, (part, *sliced, *node.args[5:]))
                nodes.append(self.graph.call_function(operator.getitem, (result, 0)))
                continue
            rest, kwargs = map_arg((node.args[1:], node.kwargs), self.whole)
            nodes.append(self.graph.call_function(_function(node), (part, *rest), kwargs))
        channels = (factor * given.channels[0], factor * given.channels[1])
        return Parts((nodes[0], nodes[1]), channels)

    def _conv(
        self, node: fx.Node, source: fx.Node, weight: Tensor, bias: Tensor | None, groups: int | None = None
    ) -> fx.Node:
        """Copy a convolution with another input and other weights."""
        rest = list(map_arg(node.args[3:], self.whole))
        if groups is not None:
            rest[3] = groups
        constants = (self._constant(weight), None if bias is None else self._constant(bias))
        return self.graph.call_function(CONV, (source, *constants, *rest))

    def _conv_args(self, node: fx.Node) -> tuple[fx.Node, Tensor, Tensor | None]:
        source, weight, *more = node.args
        assert isinstance(source, fx.Node)
        bias = more[0] if more else None
        return source, self._value(weight), None if bias is None else self._value(bias)

    def _value(self, node: Any) -> Tensor:
        return operator.attrgetter(node.target)(self.module)

    def _constant(self, value: Tensor) -> fx.Node:
        name = f"part_{self.count}"
        self.count += 1
        self.module.register_buffer(name, value.detach().clone())
        return self.graph.get_attr(name)


def _function(node: fx.Node) -> Callable[..., Any]:
    assert callable(node.target)
    return node.target


def _ranges(channels: tuple[int, int]) -> tuple[slice, slice]:
    return slice(0, channels[0]), slice(channels[0], sum(channels))


def _shape(node: fx.Node) -> Sequence[Any]:
    value = node.meta.get("val")
    return value.shape if isinstance(value, Tensor) else ()


def _has_weights(node: fx.Node) -> bool:
    """Return whether the weights of a node, if it has any, can be divided: not if they are computed or missing."""
    weights = node.args[1:3] if node.target is CONV else node.args[1:5] if node.target is BATCHNORM else ()
    if node.target is CONV and weights[1:] == (None,):
        weights = weights[:1]  # without a bias
    return all(isinstance(one, fx.Node) and one.op == "get_attr" for one in weights)


def _is_depthwise(node: fx.Node) -> bool:
    """Return whether a convolution reads one channel for each of its outputs."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return bool(_groups(node) == _shape(source)[1])


def _groups(node: fx.Node) -> Any:
    return node.args[6] if len(node.args) > 6 else 1


def _is_channelwise(node: fx.Node) -> bool:
    """Return whether an operation computes each channel from that channel alone."""
    if node.target is CONV:
        return _is_depthwise(node)
    if node.target is aten.mean.dim:
        return node.args[1] in (SPATIAL, [-1, -2], [-2, -1])
    if node.target is aten.slice.Tensor:
        dimension = node.args[1] if len(node.args) > 1 else 0
        return len(_shape(node)) == 4 and isinstance(dimension, int) and dimension != 1
    return node.target is BATCHNORM or str(node.target).partition(".")[2].partition(".")[0] in NAMES
