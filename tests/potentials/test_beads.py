"""Any callable is a potential; a network's forces are those of the same function of positions."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from deepcg.geometry.neighbor_list import find_pairs
from deepcg.networks import PairSpline
from deepcg.potentials.beads import NetworkPotential, energy_and_forces
from deepcg.potentials.priors import Repulsion
from deepcg.potentials.verlet_list import VerletForces, force_field

TYPES = torch.arange(16) % 2
BOX = torch.tensor([[1.3, 0, 0], [0.3, 1.3, 0], [-0.2, 0.4, 1.4]], dtype=torch.float64)


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def potential() -> NetworkPotential:
    torch.manual_seed(1)
    repulsion = Repulsion(torch.full((2, 2), 0.25), 2.5)
    return NetworkPotential([PairSpline(0.55, 2), repulsion], 0.55, TYPES)


@pytest.fixture
def frames() -> tuple[Tensor, Tensor]:
    positions = torch.rand(3, 16, 3, generator=torch.Generator().manual_seed(2)) @ BOX
    return positions, BOX.expand(3, 3, 3)


@pytest.mark.parametrize("periodic", [True, False])
def test_a_plain_callable_has_the_same_forces(
    potential: NetworkPotential, frames: tuple[Tensor, Tensor], periodic: bool
):
    positions, box = frames
    boundary = box if periodic else None
    wanted, wanted_forces = energy_and_forces(potential, positions, boundary)
    energy, forces = energy_and_forces(lambda x, b: potential(x, b), positions, boundary)
    torch.testing.assert_close(energy, wanted, rtol=1e-13, atol=0)
    torch.testing.assert_close(
        forces, wanted_forces, rtol=0, atol=1e-12 * float(forces.abs().max())
    )
    assert forces.abs().max() > 1
    assert not energy.requires_grad
    assert not forces.requires_grad


def test_a_plain_callable_can_be_trained(frames: tuple[Tensor, Tensor]):
    stiffness = torch.tensor(3.0, requires_grad=True)
    positions, box = frames

    def spring(x: Tensor, _: Tensor | None) -> Tensor:
        return stiffness * x.square().sum((1, 2)) / 2

    _, forces = energy_and_forces(spring, positions, box, create_graph=True)
    torch.testing.assert_close(forces, -3 * positions)
    forces.square().sum().backward()
    torch.testing.assert_close(stiffness.grad, 6 * positions.square().sum())


def test_energies_of_terms_add_up(potential: NetworkPotential, frames: tuple[Tensor, Tensor]):
    alone = [NetworkPotential([term], 0.55, TYPES) for term in potential.terms]
    parts = torch.stack([one(*frames) for one in alone])
    assert (parts.abs() > 0).all()
    torch.testing.assert_close(potential(*frames), parts.sum(0))


def test_positions_keep_no_history(potential: NetworkPotential, frames: tuple[Tensor, Tensor]):
    positions, box = frames
    history = (2 * positions.requires_grad_()) / 2
    energy, forces = energy_and_forces(potential, history, box, create_graph=True)
    (energy.sum() + forces.square().sum()).backward()
    assert positions.grad is None
    assert positions.is_leaf
    with torch.no_grad():
        again, same = energy_and_forces(potential, history, box)
    torch.testing.assert_close(again, energy.detach())
    torch.testing.assert_close(same, forces.detach())


def test_a_network_gets_a_list_and_a_callable_its_box(
    potential: NetworkPotential, frames: tuple[Tensor, Tensor]
):
    positions, box = frames
    wanted, wanted_forces = energy_and_forces(potential, positions, box)
    listed = force_field(potential, BOX)
    assert isinstance(listed, VerletForces)
    for field in (listed, force_field(lambda x, b: potential(x, b), BOX)):
        energy, forces = field(positions)
        torch.testing.assert_close(energy, wanted, rtol=1e-11, atol=0)
        torch.testing.assert_close(forces, wanted_forces, rtol=0, atol=1e-9)
    energy, _ = force_field(lambda x, b: potential(x, b), None)(positions)
    torch.testing.assert_close(energy, potential(positions, None))


def test_forces_from_a_kept_list_are_those_of_the_frames(
    potential: NetworkPotential, frames: tuple[Tensor, Tensor]
):
    positions, box = frames
    pairs = find_pairs(positions, box, 0.55)
    some = torch.tensor([2, 0])
    near = potential.environments(positions, pairs)[some]
    _, forces = potential.forces(near)
    _, wanted = energy_and_forces(potential, positions[some], box[some])
    torch.testing.assert_close(forces, wanted, rtol=0, atol=1e-10)


def test_a_model_is_its_state(potential: NetworkPotential, frames: tuple[Tensor, Tensor]):
    torch.manual_seed(9)
    other = NetworkPotential(
        [PairSpline(0.55, 2), Repulsion(torch.zeros(2, 2), 2.5)], 0.55, torch.zeros_like(TYPES)
    )
    assert not torch.allclose(other(*frames), potential(*frames))
    other.load_state_dict(potential.state_dict())
    assert torch.equal(other(*frames), potential(*frames))
    single = potential.float()
    assert single.types.dtype == torch.int64
    positions, box = (x.float() for x in frames)
    energy, forces = energy_and_forces(single, positions, box)
    assert energy.dtype == forces.dtype == torch.float32
    torch.testing.assert_close(energy.double(), other(*frames), rtol=1e-4, atol=0)


def test_the_virial_is_minus_the_derivative_in_the_size_of_everything(
    potential: NetworkPotential, frames: tuple[Tensor, Tensor]
):
    positions, box = frames
    step = 1e-5
    larger, smaller = (
        potential(positions * scale, box * scale).detach() for scale in (1 + step, 1 - step)
    )
    found = potential.virial(positions, box)
    assert found.abs().min() > 1
    # truncation: some h^2 of the third derivative, which a core of 12 powers makes 1e3 times larger
    torch.testing.assert_close(found, (smaller - larger) / (2 * step), rtol=1e-6, atol=0)


def test_a_copy_has_weights_of_its_own(potential: NetworkPotential, frames: tuple[Tensor, Tensor]):
    """Also one that has been evaluated: its fast paths are those of its own networks."""
    before = energy_and_forces(potential, *frames)
    other = copy.deepcopy(potential)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(1.0)
    for one, same in zip(before, energy_and_forces(potential, *frames), strict=True):
        torch.testing.assert_close(one, same, rtol=0, atol=0)
    changed = energy_and_forces(other, *frames)
    assert (changed[1] - before[1]).abs().max() > 1e-3 * before[1].abs().max()
