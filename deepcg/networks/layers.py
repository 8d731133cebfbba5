"""Layers that several networks are made of, with values and slopes without autograd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepcg.compute.onednn import Dense, linear, tanh_linear


class Residual(nn.Module):
    """tanh(W x + b) with the input added: once at equal width, twice at double width.

    With ``timestep`` the new part is scaled by trained factors, which start small.
    """

    def __init__(self, n_in: int, n_out: int, *, timestep: bool) -> None:
        super().__init__()
        self.linear = Dense(n_in, n_out)
        self.timestep = nn.Parameter(0.1 * torch.ones(n_out)) if timestep else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_in) onto (..., n_out)."""
        y = torch.tanh(self.linear(x))
        if self.timestep is not None:
            y = y * self.timestep
        return self._added(y, x)

    def forward_and_curve(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what ``forward`` does, and the slope of the new part in the sum inside tanh.

        Both are (..., n_out).
        """
        y = tanh_linear(x, self.linear.weight, self.linear.bias)
        curve = torch.addcmul(y.new_ones(()), y, y, value=-1)
        if self.timestep is not None:
            y, curve = y * self.timestep, curve.mul_(self.timestep)
        return self._added(y, x), curve

    def slope_before(self, slope: Tensor, curve: Tensor) -> Tensor:
        """Return the gradient in the input from that in the output (n, n_out)."""
        new = linear(slope * curve, self.linear.weight.T)
        for part in slope.split(new.shape[-1], dim=-1) if self.repeats else ():
            new += part
        return new

    def _added(self, y: Tensor, x: Tensor) -> Tensor:
        if self.repeats == 0:
            return y
        return y + (x if self.repeats == 1 else torch.cat([x, x], dim=-1))

    @property
    def repeats(self) -> int:
        """How often the input is added to the output."""
        n_in, n_out = self.linear.in_features, self.linear.out_features
        return n_out // n_in if n_out in (n_in, 2 * n_in) else 0


class Perceptron(nn.Module):
    """Tanh layers and a linear output of width 1.

    With ``residual`` a layer adds its input wherever the widths allow it.
    """

    def __init__(self, n_in: int, widths: Sequence[int], *, residual: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in widths:
            if residual and width in (n_in, 2 * n_in):
                layers.append(Residual(n_in, width, timestep=True))
            else:
                layers += [Dense(n_in, width), nn.Tanh()]
            n_in = width
        self.layers = nn.Sequential(*layers, nn.Linear(n_in, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_in) onto (...)."""
        y: Tensor = self.layers(x)
        return y.squeeze(-1)

    @torch.no_grad()
    def values_and_slopes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what ``forward`` does of x (n, n_in), and its gradient in x, without autograd."""
        passed: list[tuple[Residual | Dense, Tensor]] = []
        *layers, last = (layer for layer in self.layers if not isinstance(layer, nn.Tanh))
        for layer in layers:
            if isinstance(layer, Residual):
                x, curve = layer.forward_and_curve(x)
            else:
                assert isinstance(layer, Dense)
                x = tanh_linear(x, layer.weight, layer.bias)
                curve = torch.addcmul(x.new_ones(()), x, x, value=-1)
            passed.append((layer, curve))
        assert isinstance(last, nn.Linear)
        slope = last.weight.expand(len(x), -1)
        for layer, curve in reversed(passed):
            if isinstance(layer, Residual):
                slope = layer.slope_before(slope, curve)
            else:
                slope = linear(slope * curve, layer.weight.T)
        y: Tensor = last(x)
        return y.squeeze(-1), slope

    def first_layer(self, mean: Tensor, scale: Tensor, sizes: Sequence[int]) -> FirstLayer:
        """Return the first layer for inputs that come in parts and are not standardized yet.

        A mean (n_in,) is taken off them, and the rest is scaled: as a part of the weights that
        costs nothing.
        """
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        weight = first.weight * scale
        return FirstLayer(weight.split(list(sizes), dim=1), first.bias - weight @ mean)

    def after_first_layer(self, hidden: Tensor) -> Tensor:
        """Map what the first layer's weights make of an input onto (...)."""
        y: Tensor = self.layers[1:](hidden)
        return y.squeeze(-1)


@dataclass(frozen=True, slots=True, eq=False)
class FirstLayer:
    """A linear layer of parts: weights (n_out, size of the part) for each, and a bias (n_out,)."""

    weights: Sequence[Tensor]
    bias: Tensor

    def __call__(self, parts: Sequence[Tensor]) -> Tensor:
        """Map parts (n, size) onto (n, n_out)."""
        hidden = self.bias
        for part, weight in zip(parts, self.weights, strict=True):
            hidden = torch.addmm(hidden, part, weight.T)
        return hidden
