"""A function of tensors as a graph: what depends on its arguments; the rest is worked out once.

For compilers and CUDA graphs, which cannot follow what the host decides or has at hand: which beads
are of which type, tables that NumPy makes, numbers that are copied to the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

Known = dict[fx.Node, Any]
"""The values of those nodes of a graph that do not depend on its arguments."""

_BY_INDEX = (
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
)


class TracingError(RuntimeError):
    """What a function does cannot be told without the values of its arguments."""


def traced(function: Callable[..., object], *arguments: Tensor) -> fx.GraphModule:
    """Return a module that computes what a function does, of arguments of these shapes.

    Whatever else the function takes from, weights too, are constants of the module: buffers, on
    the device of the first argument.

    Raises
    ------
    TracingError
        A shape depends on the values of the arguments, or the function writes to a constant.
    """
    with _OffTheHost():
        whole = make_fx(function, _without_onednn())(*arguments)
    known = _known(whole)
    rest = _Rest(known, arguments[0].device)
    for node in whole.graph.nodes:
        if node not in known:
            rest.add(node)
    return fx.GraphModule(rest.constants, rest.graph)


def _known(whole: fx.GraphModule) -> Known:
    known: Known = {}
    for node in whole.graph.nodes:
        if node.op == "get_attr":
            known[node] = getattr(whole, node.target)
        elif node.op == "call_function" and all(one in known for one in node.all_input_nodes):
            arguments: Any = fx.map_arg((node.args, node.kwargs), known.__getitem__)
            known[node] = node.target(*arguments[0], **arguments[1])
    return known


class _Rest:
    """What is left of a graph without its known nodes, whose values become constants."""

    def __init__(self, known: Known, device: torch.device) -> None:
        self.known, self.device = known, device
        self.graph, self.constants = fx.Graph(), nn.Module()
        self._places: dict[fx.Node, fx.Node] = {}

    def add(self, node: fx.Node) -> None:
        """Copy a node that is not known."""
        if isinstance(node.target, torch._ops.OpOverload):
            self._check(node, node.target)
        if node.target in _BY_INDEX:
            first, indices, *others = node.args
            arguments: Any = first, None, *others
            first, _, *others = fx.map_arg(arguments, self._place)
            copy = self.graph.call_function(node.target, (first, self._numbers(indices), *others))
        else:
            copy = self.graph.node_copy(node, self._place)
        self._places[node] = copy

    def _check(self, node: fx.Node, operation: torch._ops.OpOverload) -> None:
        by_values = torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape
        if any(tag in operation.tags for tag in by_values) and node.target not in _BY_INDEX:
            raise TracingError(f"the shape that {operation} returns depends on values")
        if operation._schema.is_mutable and node.args[0] in self.known:
            raise TracingError(f"{operation} writes to a constant")

    def _place(self, node: fx.Node) -> fx.Node:
        """Return the copy of a node, or the constant that it is."""
        if node not in self._places:
            self._places[node] = self._constant(self.known[node])
        return self._places[node]

    def _constant(self, value: Tensor) -> fx.Node:
        name = f"constant_{len(list(self.constants.buffers()))}"
        self.constants.register_buffer(name, value.detach().to(self.device))
        return self.graph.get_attr(name)

    def _numbers(self, indices: Any) -> list[fx.Node | None]:
        """Return indices with the numbers of what known masks choose, whose shapes are known."""
        found: list[fx.Node | None] = []
        for index in indices:
            value = self.known[index] if index in self.known else index and index.meta["val"]
            if value is None or value.dtype != torch.bool:
                found.append(None if index is None else self._place(index))
            elif index in self.known:
                found += [self._constant(number) for number in value.nonzero(as_tuple=True)]
            else:
                raise TracingError("a mask chooses by values")
        return found


class _OffTheHost(TorchFunctionMode):
    """Calls what stands for functions of PyTorch that ask the host for values."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call a function, or what stands for it."""
        if func is torch.nn.functional.one_hot:
            return _one_hot(*args)
        if func is torch.Tensor.__getitem__ and _is_number(args[1]):
            return args[0].index_select(0, args[1].view(1)).squeeze(0)
        return func(*args, **(kwargs or {}))


def _without_onednn() -> dict[Any, Callable[..., Tensor]]:
    """Return what stands for oneDNN's linear layer, of which compilers know special cases only."""
    if not torch.backends.mkldnn.is_available():
        return {}

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None, then: str, *more: object) -> Tensor:
        if then != "none":
            raise TracingError(f"oneDNN's linear layer with {then} has no way back")
        return torch.nn.functional.linear(x, weight, bias)

    return {torch.ops.mkldnn._linear_pointwise.default: linear}


def _one_hot(values: Tensor, n_classes: int) -> Tensor:
    """Return one-hot vectors of values whose range is not checked."""
    classes = torch.arange(n_classes, device=values.device)
    return (values[..., None] == classes).to(values.dtype)


def _is_number(index: Any) -> bool:
    """Return whether an index is a single number, which PyTorch would read from the device."""
    if not isinstance(index, Tensor):
        return False
    return index.ndim == 0 and not index.is_floating_point() and index.dtype != torch.bool
