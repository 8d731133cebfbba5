"""Linear layers by oneDNN, on the CPU in single precision.

PyTorch's own product is that of MKL, which on some processors uses half the width of the vectors
that there are; oneDNN, which comes with PyTorch too, uses all of it, and adds a bias and a tanh on
the way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST = 2**20
"""Multiplications from which on the longer way to oneDNN is worth while."""


class Dense(nn.Linear):
    """A linear layer that takes the faster way."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_in) onto (..., n_out)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + b (..., n_out), which can be differentiated as often as is asked for."""
    if not _is_for_onednn(x, weight):
        return functional.linear(x, weight, bias)
    y = apply(_Linear, x.flatten(0, -2), weight, bias)
    return y.view(*x.shape[:-1], len(weight))


def tanh_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return tanh(x W^T + b) of x (n, n_in), with no way back."""
    if not _is_for_onednn(x, weight):
        return torch.addmm(bias, x, weight.T).tanh_()
    return _onednn(x, weight, bias, "tanh")


def apply(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    """Return the result, a tensor of any shape, of a function that brings its own derivatives."""
    result: Tensor = function.apply(*arguments)
    return result


class _Linear(torch.autograd.Function):
    """The way back is made of the same product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias, "none")

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        on_x, on_weight, on_bias = ctx.needs_input_grad
        return (
            linear(slope, weight.T) if on_x else None,
            linear(slope.T, x.T) if on_weight else None,
            slope.sum(0) if on_bias else None,
        )


def _is_for_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() * len(weight) >= LEAST
        and torch.backends.mkldnn.is_available()
    )


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, then: str) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], "")
    return y
