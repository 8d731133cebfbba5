"""What a graph of a function holds, and which functions have none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from deepcg.compute.graph_capture import TracingError, traced
from deepcg.compute.onednn import LEAST, linear

X, Y = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, -1.0, 4.0])
TYPES = torch.tensor([0, 1, 1])
TABLE = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


def by_numbers_on_the_host(x: Tensor) -> Tensor:
    counts = torch.bincount(TYPES).tolist()
    first, second = x.split(counts)
    return first.sum() * second.prod()


def by_masks(x: Tensor) -> Tensor:
    out = x.new_zeros(4)
    out[torch.tensor([True, False, True, False])] = x[TYPES == 1]
    return out


def by_one_hot_vectors(x: Tensor) -> Tensor:
    return x @ torch.nn.functional.one_hot((x > 1).long(), 2).to(x)


def by_a_number_in_a_table(x: Tensor) -> Tensor:
    return x * TABLE[TYPES[1]]


def by_slopes(x: Tensor) -> Tensor:
    moved = x.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad((moved[TYPES] ** 3).sum(), moved)
    return slope


@pytest.mark.parametrize(
    "function",
    [by_numbers_on_the_host, by_masks, by_one_hot_vectors, by_a_number_in_a_table, by_slopes],
)
def test_a_graph_computes_what_the_function_does(function: Callable[[Tensor], Tensor]) -> None:
    graph = traced(function, X)
    torch.testing.assert_close(graph(Y), function(Y), rtol=0, atol=0)


def test_what_needs_no_argument_is_worked_out_once() -> None:
    graph = traced(lambda x: x * torch.exp(TABLE).sum() + TABLE[0], X)
    assert [node.op for node in graph.graph.nodes].count("call_function") == 2
    assert [tuple(constant.shape) for constant in graph.buffers()] == [(), (3,)]


def test_products_of_onednn_are_left_to_the_compiler() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(LEAST // 2**12, 64, generator=generator)
    weight, bias = torch.randn(64, 64, generator=generator), torch.randn(64, generator=generator)
    graph = traced(lambda x: linear(x, weight, bias), x)
    assert not any("mkldnn" in str(node.target) for node in graph.graph.nodes)
    torch.testing.assert_close(graph(x), linear(x, weight, bias), rtol=1e-5, atol=1e-4)


def into_a_table(x: Tensor) -> Tensor:
    total = torch.zeros(3)
    return total.add_(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x[x > 1], "a mask chooses by values"),
        (lambda x: (x > 1).nonzero(), "nonzero.default returns depends on values"),
        (into_a_table, "add_.Tensor writes to a constant"),
    ],
)
def test_what_depends_on_values_is_refused(
    function: Callable[[Tensor], Tensor], message: str
) -> None:
    with pytest.raises(TracingError, match=message):
        traced(function, X)


def test_a_decision_by_values_is_refused() -> None:
    with pytest.raises(RuntimeError, match="data-dependent control flow"):
        traced(lambda x: x if float(x.sum()) > 0 else -x, X)
