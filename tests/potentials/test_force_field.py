"""Priors of molecules: OpenMM's own energies of each kind of term, and those that data give."""

from __future__ import annotations

from collections.abc import Callable

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from torch import Tensor

from deepcg.geometry.neighbor_list import neighbors
from deepcg.potentials.priors import (
    ForceField,
    Repulsion,
    Table,
    onset_of_contacts,
    statistical_tables,
    system_tables,
    water_table,
)
from deepcg.runtime.errors import InputError
from deepcg.trajectory.topology import MoleculeGraph

N, KT = 6, 2.5
CHAIN = [(i, i + 1) for i in range(N - 1)]


@pytest.fixture(autouse=True)
def float64() -> None:
    torch.set_default_dtype(torch.float64)


def shapes(n_frames: int = 5, seed: int = 0) -> Tensor:
    """Return zigzag chains of six atoms, bent and twisted at random."""
    generator = torch.Generator().manual_seed(seed)
    line = torch.stack([0.12 * torch.arange(N), 0.06 * (torch.arange(N) % 2), torch.zeros(N)], 1)
    return line + 0.03 * torch.randn(n_frames, N, 3, generator=generator)


def bonded() -> openmm.Force:
    force = openmm.HarmonicBondForce()
    for k, (i, j) in enumerate(CHAIN):
        force.addBond(i, j, 0.13 + 0.01 * k, 2e5 + 1e4 * k)
    return force


def angular() -> openmm.Force:
    force = openmm.HarmonicAngleForce()
    for i in range(N - 2):
        force.addAngle(i, i + 1, i + 2, 1.9 + 0.1 * i, 300.0 + i)
    return force


def torsional() -> openmm.Force:
    """Return torsions with phases that tell the sign of the angle, and an improper one."""
    force = openmm.PeriodicTorsionForce()
    for n, i in enumerate(range(N - 3), start=1):
        force.addTorsion(i, i + 1, i + 2, i + 3, n, 0.7 * n, 5.0 + n)
        force.addTorsion(i, i + 1, i + 2, i + 3, n + 1, 0.0, 1.0)
    force.addTorsion(1, 3, 2, 4, 2, np.pi, 9.0)
    return force


def nonbonded() -> openmm.Force:
    force = openmm.NonbondedForce()
    for i in range(N):
        force.addParticle(0.4 * (-1) ** i + 0.01 * i, 0.1 + 0.01 * i, 0.3 + 0.02 * i)
    force.createExceptionsFromBonds(CHAIN, 0.8333, 0.5)
    return force


def born() -> openmm.Force:
    force = openmm.GBSAOBCForce()
    force.setSolventDielectric(78.5)
    radii, scales = (0.17, 0.12, 0.155, 0.13, 0.15, 0.12), (0.72, 0.85, 0.79, 0.85, 0.85, 0.85)
    for i, (radius, scale) in enumerate(zip(radii, scales, strict=True)):
        force.addParticle(0.4 * (-1) ** i + 0.01 * i, radius, scale)
    return force


def system_of(*forces: openmm.Force) -> openmm.System:
    system = openmm.System()
    for _ in range(N):
        system.addParticle(12.0)
    for force in forces:
        system.addForce(force)
    return system


def by_openmm(system: openmm.System, positions: Tensor) -> tuple[Tensor, Tensor]:
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    energies, forces = [], []
    for frame in positions.numpy():
        context.setPositions(frame)
        state = context.getState(energy=True, forces=True)
        energies.append(state.getPotentialEnergy()._value)
        forces.append(state.getForces(asNumpy=True)._value)
    return torch.tensor(energies), torch.tensor(np.array(forces))


def agree(field: ForceField, system: openmm.System) -> None:
    found, wanted = field.forces(shapes()), by_openmm(system, shapes())
    for ours, theirs in zip(found, wanted, strict=True):
        assert theirs.abs().max() > 1
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6 * theirs.abs().max().item())


@pytest.mark.parametrize("make", [bonded, angular, torsional, nonbonded])
def test_each_kind_of_force_is_openmms(make: Callable[[], openmm.Force]):
    system = system_of(make())
    tables, left = system_tables(system, range(N))
    assert left == ()
    agree(ForceField(tables), system)


def test_all_together_are_openmms():
    system = system_of(bonded(), angular(), torsional(), nonbonded(), openmm.CMMotionRemover())
    tables, left = system_tables(system, range(N))
    assert (set(tables), left) == ({"bonds", "angles", "torsions", "pairs"}, ())
    agree(ForceField(tables), system)


def test_two_forces_of_a_kind_add_up():
    system = system_of(bonded(), bonded())
    agree(ForceField(system_tables(system, range(N))[0]), system)


def molecule() -> mdtraj.Topology:
    """Return C-H-N-H-O-H in a chain: what the radii depend on, not chemistry."""
    topology = mdtraj.Topology()
    residue = topology.add_residue("MOL", topology.add_chain())
    atoms = [topology.add_atom(s, mdtraj.element.Element.getBySymbol(s), residue) for s in "CHNHOH"]
    topology.add_bond(atoms[0], atoms[1])
    topology.add_bond(atoms[2], atoms[3])
    topology.add_bond(atoms[4], atoms[5])
    return topology


def test_implicit_water_is_openmms_obc2():
    table = water_table(system_of(nonbonded()), range(N), MoleculeGraph(molecule()), range(N))
    agree(ForceField({"born": table}), system_of(born()))


def test_an_atom_may_lie_inside_of_another():
    force = openmm.GBSAOBCForce()
    force.setSolventDielectric(78.5)
    rows = [(0.4, 0.30, 0.9), (-0.4, 0.12, 0.8)] * 3
    for row in rows:
        force.addParticle(*row)
    table = Table(torch.arange(N)[:, None], torch.tensor(rows))
    agree(ForceField({"born": table}), system_of(force))


def all_kinds() -> dict[str, Table]:
    forces = bonded(), angular(), torsional(), nonbonded()
    tables, _ = system_tables(system_of(*forces), range(N))
    volumes = Table(torch.tensor([[1, 0, 2, 4]]), torch.tensor([[1e-3, 1e7]]))
    water = water_table(system_of(nonbonded()), range(N), MoleculeGraph(molecule()), range(N))
    return {**tables, "volumes": volumes, "born": water}


@pytest.mark.parametrize("kinds", [("bonds",), ("angles", "born"), tuple(all_kinds())])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loops_are_the_definitions_and_their_slopes(kinds: tuple[str, ...], dtype: torch.dtype):
    field = ForceField({kind: all_kinds()[kind] for kind in kinds})
    x = shapes().to(dtype)
    moved = x.double().requires_grad_()
    energy = field(moved)
    (gradient,) = torch.autograd.grad(energy.sum(), moved)
    found, forces = field.forces(x)
    assert (found.dtype, forces.dtype) == (dtype, dtype)
    small = 1e-11 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(found, energy.detach().to(dtype), rtol=small, atol=small)
    torch.testing.assert_close(
        forces, -gradient.to(dtype), rtol=small, atol=small * gradient.abs().max().item()
    )


def test_implicit_water_needs_charges():
    with pytest.raises(InputError, match="0 NonbondedForce"):
        water_table(system_of(bonded()), range(N), MoleculeGraph(molecule()), range(N))


def test_terms_are_those_among_the_chosen_atoms():
    atoms = [4, 1, 2, 3]  # bead 0 is atom 4
    tables, _ = system_tables(system_of(bonded(), angular()), atoms)
    assert tables["bonds"].atoms.tolist() == [[1, 2], [2, 3], [3, 0]]
    assert tables["angles"].atoms.tolist() == [[1, 2, 3], [2, 3, 0]]


def test_forces_of_unknown_form_are_named():
    tables, left = system_tables(system_of(openmm.CustomBondForce("r"), born()), range(N))
    assert not tables
    assert left == ("CustomBondForce", "GBSAOBCForce")


def test_a_mirror_image_has_another_volume_and_the_same_distances():
    atoms = torch.tensor([[1, 0, 2, 4]])
    field = ForceField({"volumes": Table(atoms, torch.tensor([[1e-3, 1e6]]))})
    pairs = ForceField({"bonds": Table(torch.tensor([[0, 1]]), torch.tensor([[0.1, 1e5]]))})
    x = shapes()
    mirrored = x * torch.tensor([1.0, 1.0, -1.0])
    torch.testing.assert_close(pairs(mirrored), pairs(x))
    assert (field(mirrored) - field(x)).abs().min() > 1e-3


def test_forces_are_minus_the_gradient_of_volumes():
    atoms = torch.tensor([[1, 0, 2, 4], [3, 5, 2, 0]])
    field = ForceField({"volumes": Table(atoms, torch.tensor([[1e-3, 1e7], [0.0, 2e7]]))})
    x = shapes()
    generator = torch.Generator().manual_seed(3)
    h, direction = 1e-6, torch.randn(x.shape, generator=generator)
    slope = (field(x + h * direction) - field(x - h * direction)) / (2 * h)
    torch.testing.assert_close(
        (field.forces(x)[1] * direction).sum((1, 2)), -slope, rtol=1e-5, atol=1e-5
    )


def test_a_straight_angle_has_finite_forces():
    x = torch.tensor([[[0.0, 0, 0], [0.1, 0, 0], [0.2, 0, 0]]])
    field = ForceField({"angles": Table(torch.tensor([[0, 1, 2]]), torch.tensor([[3.0, 100.0]]))})
    assert torch.isfinite(field.forces(x)[1]).all()


def walk(n_frames: int) -> Tensor:
    """Return frames of a chain with Gaussian bonds (0.15 +- 0.004 nm) along x, all straight."""
    generator = torch.Generator().manual_seed(4)
    steps = 0.15 + 0.004 * torch.randn(n_frames, 3, generator=generator)
    x = torch.zeros(n_frames, 4, 3)
    x[:, 1:, 0] = steps.cumsum(1)
    x[:, 1::2, 1] = 0.1
    return x


def test_bonds_are_as_stiff_as_in_the_data():
    """n = 4000 lengths: k has a standard error of sqrt(2 / n) = 2.2 %; 4 of them, 1 in 16 000."""
    x = torch.zeros(4000, 2, 3)
    x[:, 1, 2] = 0.15 + 0.004 * torch.randn(4000, generator=torch.Generator().manual_seed(5))
    ((length, k),) = statistical_tables(x, np.array([[0, 1]]), KT)["bonds"].parameters.tolist()
    assert length == pytest.approx(0.15, abs=4 * 0.004 / 4000**0.5)
    assert k == pytest.approx(KT / 0.004**2, rel=4 * 0.022)


def test_weights_count():
    x = torch.zeros(2, 2, 3)
    x[:, 1, 0] = torch.tensor([0.10, 0.20])
    tables = statistical_tables(x, np.array([[0, 1]]), KT, torch.tensor([3.0, 1.0]))
    ((length, k),) = tables["bonds"].parameters.tolist()
    assert length == pytest.approx(0.125)
    assert k == pytest.approx(KT / (0.75 * 0.025**2 + 0.25 * 0.075**2))


def test_held_bonds_get_springs_that_dynamics_can_bear():
    x = walk(10)
    x[:, 1] = x[:, 0] + torch.tensor([0.15, 0.0, 0.0])
    k = statistical_tables(x, np.array([[0, 1]]), KT)["bonds"].parameters[0, 1].item()
    assert k == pytest.approx(KT / 2e-3**2)


def test_stiff_dihedrals_are_held_and_free_ones_are_not():
    generator = torch.Generator().manual_seed(6)

    def chains(phi: Tensor) -> Tensor:
        x = torch.zeros(len(phi), 4, 3)
        x[:, 0] = torch.tensor([0.1, 0.1, 0.0])
        x[:, 2] = torch.tensor([0.0, 0.0, 0.15])
        x[:, 1] = 0.0
        x[:, 0, 2] = -0.03
        x[:, 3] = torch.stack([0.1 * phi.cos(), 0.1 * phi.sin(), torch.full_like(phi, 0.2)], 1)
        return x

    chain, n = np.array([[0, 1], [1, 2], [2, 3]]), 4000
    spread = 0.1
    narrow = torch.pi + spread * torch.randn(n, generator=generator)  # across the seam
    table = statistical_tables(chains(narrow), chain, KT)["torsions"]
    assert table.atoms.tolist() == [[0, 1, 2, 3]]
    x = chains(torch.linspace(-3, 3, 7))
    field = ForceField({"torsions": table})
    deep = chains(narrow.mean()[None])
    assert field(deep).item() == pytest.approx(0.0, abs=1e-3)
    assert field(x).max() > 1.9 * KT / spread**2  # 2 k at the top
    wide = statistical_tables(chains(6 * torch.rand(n, generator=generator)), chain, KT)
    assert "torsions" not in wide


def test_centers_with_three_neighbors_keep_their_hand():
    x = torch.zeros(50, 4, 3)
    x[:, 1:] = 0.15 * torch.eye(3) + 0.005 * torch.randn(50, 3, 3)
    table = statistical_tables(x, np.array([[0, 1], [0, 2], [0, 3]]), KT)["volumes"]
    assert table.atoms.tolist() == [[0, 1, 2, 3]]
    assert table.parameters[0, 0].item() == pytest.approx(0.15**3, rel=0.05)


def test_bonded_beads_do_not_repel_each_other():
    x = torch.tensor([[[0.0, 0, 0], [0.10, 0, 0], [0.20, 0, 0], [0.31, 0, 0]]])
    table = Table(torch.tensor([[0, 1], [1, 2], [2, 3]]), torch.ones(3, 2))
    angles = Table(torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.ones(2, 2))
    held = ForceField({"bonds": table, "angles": angles}).excluded
    near, types = neighbors(x, None, 0.5), torch.zeros(4, dtype=torch.long)
    onset = onset_of_contacts(near, types, 1, held)
    torch.testing.assert_close(onset, torch.tensor([[0.31]]))
    wall = Repulsion(torch.tensor([[0.33]]), KT, excluded=held)
    assert wall(near, types)[0].tolist() == pytest.approx([KT, 0, 0, KT])
