"""The repulsion begins where the data end, smoothly, and keeps beads apart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from deepcg.geometry.neighbor_list import neighbors
from deepcg.potentials.beads import NetworkPotential, energy_and_forces
from deepcg.potentials.priors import Repulsion, onset_of_contacts

KT = 2.5
ONSET = torch.tensor([[0.25, 0.30], [0.30, 0.0]], dtype=torch.float64)


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def pair(r: Tensor, types: list[int]) -> tuple[Tensor, Tensor]:
    """Return U (f,) and the force along the pair (f,) on its second bead at distances r (f,)."""
    positions = torch.zeros(len(r), 2, 3)
    positions[:, 1, 0] = r
    potential = NetworkPotential([Repulsion(ONSET, KT)], 0.5, torch.tensor(types))
    energy, forces = energy_and_forces(potential, positions, None)
    return energy, forces[:, 1, 0]


@pytest.mark.parametrize(("types", "onset"), [([0, 0], 0.25), ([0, 1], 0.30), ([1, 0], 0.30)])
def test_nothing_is_felt_beyond_the_onset(types: list[int], onset: float):
    energy, force = pair(torch.tensor([onset, onset + 1e-9, onset + 0.05, 0.6]), types)
    assert not energy.any()
    assert not force.any()
    energy, force = pair(torch.tensor([onset - 1e-3]), types)
    assert energy > 0
    assert force > 0


def test_types_that_never_met_do_not_repel():
    energy, force = pair(torch.tensor([1e-3, 0.1, 0.3]), [1, 1])
    assert not energy.any()
    assert not force.any()


def test_the_wall_is_its_strength_high_one_width_inside():
    energy, force = pair(torch.tensor([0.25 - 0.02]), [0, 0])
    torch.testing.assert_close(energy, torch.tensor([2 * KT]))
    torch.testing.assert_close(force, torch.tensor([3 * 2 * KT / 0.02]))


def test_two_derivatives_are_continuous_at_the_onset():
    """U, U' and U'' are a cube, a square and a line of the depth: zero at the onset."""
    depth = torch.tensor([1e-4, 2e-4])
    energy, force = pair(0.25 - depth, [0, 0])
    torch.testing.assert_close(energy[1] / energy[0], torch.tensor(8.0), rtol=1e-9, atol=0)
    torch.testing.assert_close(force[1] / force[0], torch.tensor(4.0), rtol=1e-9, atol=0)


def test_forces_are_minus_the_gradient():
    generator = torch.Generator().manual_seed(1)
    positions = 0.5 * torch.rand(2, 12, 3, generator=generator)
    box = 1.0 * torch.eye(3).expand(2, 3, 3)
    types = torch.arange(12) % 2
    potential = NetworkPotential([Repulsion(ONSET, KT)], 0.45, types)
    _, forces = energy_and_forces(potential, positions, box)
    assert forces.abs().max() > 10
    assert forces.sum(1).abs().max() < 1e-9
    h, direction = 1e-6, torch.randn(2, 12, 3, generator=generator)
    low, high = (potential(positions + s * h * direction, box) for s in (-1, 1))
    torch.testing.assert_close(  # a cubic has a truncation of (h / width)^2 = 3e-9 at most
        (forces * direction).sum((1, 2)), (low - high) / (2 * h), rtol=1e-6, atol=0
    )


def test_the_cutoff_is_the_largest_onset():
    assert Repulsion(ONSET, KT).cutoff == pytest.approx(0.3)


def test_the_onset_is_the_closest_contact_of_each_two_types():
    positions = torch.tensor(
        [
            [[0.0, 0, 0], [0.30, 0, 0], [0.0, 0.42, 0], [2.0, 0, 0]],
            [[0.0, 0, 0], [0.33, 0, 0], [0.0, 0.28, 0], [2.0, 0, 0]],
        ]
    )
    types = torch.tensor([0, 0, 1, 2])
    onset = onset_of_contacts(neighbors(positions, None, 0.6), types, 3)
    wanted = torch.tensor([[0.30, 0.28, 0], [0.28, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(onset, wanted)


def test_contacts_are_found_through_the_faces_of_the_box():
    positions = torch.tensor([[[0.05, 0.5, 0.5], [0.95, 0.5, 0.5]]])
    near = neighbors(positions, torch.eye(3)[None], 0.45)
    onset = onset_of_contacts(near, torch.zeros(2, dtype=torch.long), 1)
    torch.testing.assert_close(onset, torch.tensor([[0.1]]))


def test_data_are_untouched_by_the_repulsion_they_gave():
    positions = torch.rand(5, 20, 3, generator=torch.Generator().manual_seed(2))
    types = torch.arange(20) % 2
    near = neighbors(positions, None, 0.4)
    prior = Repulsion(onset_of_contacts(near, types, 2), KT)
    assert not prior(near, types).any()
