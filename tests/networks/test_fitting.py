"""Energies of features by packed fitting nets in single precision, against autograd in double."""

import copy

import pytest
import torch
from torch import Tensor, nn

from deepcg.networks.deeppot_se.descriptor import Fitting, Products, energies_of
from deepcg.networks.layers import Perceptron

N_FRAMES, N_BEADS = 2, 21
"""Of each type neither one group nor a whole number of them."""

CASES = [
    (Products(5, 3), (12, 12, 24)),  # layers add their input not at all, once and twice
    (Products(5, 3), (15, 8)),  # the first layer adds the products
    (Products(6, 6, triangular=True), (42, 10)),  # the first layer adds the products twice
    (Products(18, 18, triangular=True), (7,)),  # features fill more than four vectors
]


def nets_of(products: Products, widths: tuple[int, ...], n_types: int) -> nn.ModuleList:
    torch.manual_seed(3)
    nets = [Perceptron(len(products), widths, residual=True) for _ in range(n_types)]
    return nn.ModuleList(nets).double()


def features_of(products: Products) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    shape = N_FRAMES * N_BEADS, 4, products.channels
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("n_types", [1, 2])
@pytest.mark.parametrize(("products", "widths"), CASES)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 3e-6), (torch.float64, 1e-12)])
def test_energies_and_slopes_are_those_of_autograd(
    products: Products, widths: tuple[int, ...], n_types: int, dtype: torch.dtype, limit: float
) -> None:
    nets, features = nets_of(products, widths, n_types), features_of(products)
    types = torch.arange(N_BEADS) % n_types
    features.requires_grad_()
    wanted = energies_of(features, types, nets, products)
    (slopes,) = torch.autograd.grad(wanted.sum(), features)
    fitting = Fitting.of(copy.deepcopy(nets).to(dtype), products)
    assert (fitting.packed is not None) == (dtype == torch.float32)
    found = fitting.energies_and_slopes(features.detach().to(dtype), types, 0.5)
    for one, exact in zip(found, (wanted.detach(), 0.5 * slopes), strict=True):
        assert one.shape == exact.shape
        assert float((one - exact).abs().max() / exact.abs().max()) < limit


def test_nets_without_hidden_layers_are_not_packed() -> None:
    products = Products(4, 2)
    nets = nn.ModuleList([Perceptron(len(products), (), residual=True)])
    features, types = features_of(products).float(), torch.zeros(N_BEADS, dtype=torch.long)
    fitting = Fitting.of(nets, products)
    assert fitting.packed is None
    energies, _ = fitting.energies_and_slopes(features, types)
    torch.testing.assert_close(energies, energies_of(features, types, nets, products).detach())
