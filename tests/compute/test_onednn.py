"""Linear layers by oneDNN against PyTorch's own, with all ways back."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from deepcg.compute.onednn import LEAST, Dense, linear, tanh_linear

SHAPES = [(3_000, 50, 100), (216, 171, 240), (6, 7, 5)]
"""Rows, inputs and outputs: the last is too small to take the longer way."""


def case(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    n, n_in, n_out = shape
    generator = torch.Generator().manual_seed(n)
    x, weight = (
        torch.randn(n, n_in, generator=generator),
        torch.randn(n_out, n_in, generator=generator),
    )
    return x, weight / n_in**0.5, torch.randn(n_out, generator=generator)


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_those_of_double_precision(shape: tuple[int, int, int]) -> None:
    x, weight, bias = case(shape)
    wanted = functional.linear(x.double(), weight.double(), bias.double())
    # sums of n_in products, each rounded to 6e-8, of numbers of order one
    assert error(linear(x, weight, bias), wanted) < 1e-6
    # the slope of tanh is at most 1, and what oneDNN makes of it is good to 4e-7
    apart = (tanh_linear(x, weight, bias).double() - wanted.tanh()).abs().max()
    assert apart < 1e-6 * wanted.abs().max() + 4e-7
    assert error(linear(x, weight), wanted - bias.double()) < 1e-6
    assert error(linear(x.view(1, *x.shape), weight, bias)[0], wanted) < 1e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_forces_can_be_matched_through_a_layer(shape: tuple[int, int, int]) -> None:
    """The way back is differentiated once more, in input, weights and bias."""

    def gradients(x: Tensor, layer: torch.nn.Linear) -> tuple[Tensor, ...]:
        x = x.clone().requires_grad_()
        (force,) = torch.autograd.grad(layer(x).tanh().square().sum(), x, create_graph=True)
        return torch.autograd.grad(force.square().sum(), (x, layer.weight, layer.bias))

    x, weight, bias = case(shape)
    layer = Dense(shape[1], shape[2])
    layer.load_state_dict({"weight": weight, "bias": bias})
    wanted = torch.nn.Linear(shape[1], shape[2], dtype=torch.float64)
    wanted.load_state_dict(layer.state_dict())
    for found, exact in zip(gradients(x, layer), gradients(x.double(), wanted), strict=True):
        assert error(found, exact) < 1e-5


def test_large_layers_are_not_pytorchs_product(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(functional, "linear", None)
    x, weight, bias = case(SHAPES[0])
    assert x.numel() * len(weight) >= LEAST
    assert linear(x, weight, bias).shape == (3_000, 100)
    with pytest.raises(TypeError):
        linear(x.double(), weight.double(), bias.double())
