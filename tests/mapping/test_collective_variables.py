"""Collective variables: their names, signs, images and refusals."""

from __future__ import annotations

import math

import mdtraj
import numpy as np
import pytest
import torch

from deepcg.mapping.collective_variables import Variable, build_variables, is_collective
from deepcg.runtime.errors import InputError
from deepcg.trajectory.frames import CVFrames


def peptide(n_residues: int = 3) -> mdtraj.Topology:
    """A backbone of alanines with caps, as in the shared data but longer."""
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    last = None
    for number in range(n_residues):
        residue = topology.add_residue("ALA", chain, resSeq=number + 5)
        n, ca, c, o = (
            topology.add_atom(name, mdtraj.element.Element.getBySymbol(name[0]), residue)
            for name in ("N", "CA", "C", "O")
        )
        pairs = [(n, ca), (ca, c), (c, o)] + ([(last, n)] if last is not None else [])
        for pair in pairs:
            topology.add_bond(*pair)
        last = c
    return topology


def positions_of(topology: mdtraj.Topology, n: int = 50) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(n, topology.n_atoms, 3, generator=generator)


def test_dihedrals_are_those_of_mdtraj():
    topology = peptide()
    variables = build_variables("dihedrals", topology)
    positions = positions_of(topology)
    trajectory = mdtraj.Trajectory(positions.numpy(), topology)
    values = variables(positions).numpy()
    names = ("psi ALA 5", "phi ALA 6", "psi ALA 6", "phi ALA 7")
    assert variables.names == names
    for compute, columns in ((mdtraj.compute_phi, [1, 3]), (mdtraj.compute_psi, [0, 2])):
        atoms, expected = compute(trajectory)
        assert [list(variables.variables[k].atoms) for k in columns] == atoms.tolist()
        np.testing.assert_allclose(values[:, columns], expected, atol=2e-5)


def test_angles_and_distances_are_those_of_mdtraj():
    topology = peptide()
    variables = build_variables("angle:0,1,2;distance:3,7", topology)
    positions = positions_of(topology)
    trajectory = mdtraj.Trajectory(positions.numpy(), topology)
    expected = [
        mdtraj.compute_angles(trajectory, [[0, 1, 2]]),
        mdtraj.compute_distances(trajectory, [[3, 7]]),
    ]
    np.testing.assert_allclose(variables(positions), np.hstack(expected), atol=1e-5)
    assert (variables.units, variables.periods) == (("rad", "nm"), (None, None))
    assert variables.atoms.tolist() == [0, 1, 2, 3, 7]


def test_trans_is_pi_and_cis_is_zero():
    points = torch.tensor([[[1.0, 0, 0], [0, 0, 0], [0, 1, 0], [-1, 1, 0]]])
    variables = build_variables("dihedral:0,1,2,3", peptide(1))
    assert variables(points).abs().item() == pytest.approx(math.pi)
    points[0, 3, 0] = 1
    assert variables(points).item() == pytest.approx(0)
    # the far bond is clockwise of the near one, seen along the middle bond: +y into the page
    points[0, 3] = torch.tensor([0.0, 1.0, -1.0])
    assert variables(points).item() == pytest.approx(math.pi / 2)


def test_gradients_are_right():
    variables = build_variables("dihedral:0,1,2,4;angle:4,2,0;distance:1,3", peptide())
    positions = positions_of(peptide(), 2).double().requires_grad_()
    assert torch.autograd.gradcheck(variables, (positions,))


def two_molecules() -> mdtraj.Topology:
    topology = mdtraj.Topology()
    for _ in range(2):
        residue = topology.add_residue("N2", topology.add_chain())
        pair = [topology.add_atom(n, mdtraj.element.nitrogen, residue) for n in ("N1", "N2")]
        topology.add_bond(*pair)
    return topology


def test_between_molecules_the_nearest_image_counts_and_within_one_it_does_not():
    box = torch.tensor([[2.0, 0, 0], [0.6, 2.0, 0], [0.3, -0.5, 2.0]]).expand(1, 3, 3)
    positions = torch.tensor([[[0.1, 0.1, 0.1], [1.4, 0.1, 0.1], [0.3, 0, 0], [0.3, 0.2, 0]]])
    spelled = "distance:0,2;distance:0,1;angle:0,2,3;angle:2,0,1;dihedral:1,0,3,2"
    variables = build_variables(spelled, two_molecules())
    near = variables(positions, box)
    torch.testing.assert_close(near, variables(positions))
    for image in torch.cartesian_prod(*[torch.arange(-2, 3)] * 3):
        moved = positions.clone()
        moved[:, 2:] += image.float() @ box[0]
        torch.testing.assert_close(variables(moved, box), near, atol=1e-5, rtol=0)
    far = positions.clone()
    far[:, 2:] += box[:, 1]
    assert variables(far)[0, 0] > near[0, 0] + 1  # open boundaries have no images


def test_any_function_of_atoms_is_a_variable():
    width = Variable("width", (0, 4), lambda x: (x[..., 1, :] - x[..., 0, :])[..., 0], None, "nm")
    variables = build_variables([width], peptide())
    positions = positions_of(peptide())
    torch.testing.assert_close(variables(positions)[:, 0], positions[:, 4, 0] - positions[:, 0, 0])
    assert build_variables(variables, peptide()) is variables
    with pytest.raises(InputError, match="of 12 atoms, but the topology has 4"):
        build_variables(variables, peptide(1))


@pytest.mark.parametrize("name", ["dihedrals", "dihedral:1,2,3,4", "distance:3,7;angle:1,2,3"])
def test_names_of_variables_are_told_from_mappings(name):
    assert is_collective(name)


@pytest.mark.parametrize("name", ["oxygens", "select:name CA", "com", "select:'resname ALA'"])
def test_names_of_mappings_are_not_variables(name):
    assert not is_collective(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dihedral:0,1,2", "does not name 4 atoms"),
        ("dihedral:0,1,2,x", "does not name 4 atoms"),
        ("dihedral:0,1,2,99", "of atom 99, but there are 12 atoms"),
        ("distance:3,3", "each once"),
        ("dihedral:0,1,2,3;dihedral:0,1,2,3", "have one name"),
        ("dihedrals:4", "finds its atoms by itself"),
        ("distance:0,1;torsion:1,2,3,4", "unknown collective variable 'torsion'"),
        ("distnace:0,1", "did you mean 'distance'"),
    ],
)
def test_wrong_names_are_refused_with_a_way_out(name, message):
    with pytest.raises(InputError, match=message):
        build_variables(name, peptide())


def test_an_atom_may_be_marked_and_keeps_its_name():
    plain, marked = (
        build_variables(name, peptide()) for name in ("distance:3,7", "distance:@3,@7")
    )
    assert plain.names == marked.names == ("distance 3-7",)
    assert plain.variables[0].atoms == marked.variables[0].atoms == (3, 7)


@pytest.mark.parametrize("name", ["distance:@3,7", "angle:1,@2,3", "dihedral:0,1,2,@3"])
def test_among_beads_there_are_no_atoms(name):
    with pytest.raises(InputError, match=r"@\d names an atom, and the sites are beads here"):
        build_variables(name, peptide(), of_beads=True)
    assert build_variables(name.replace("@", ""), peptide(), of_beads=True).names


def test_atoms_of_an_endless_molecule_are_taken_at_their_nearest_images():
    box = (2 * torch.eye(3)).expand(1, 3, 3)
    positions = torch.zeros(1, 12, 3)
    positions[:, 7, 0] = 1.9  # in the molecule of atom 3
    whole = build_variables("distance:3,7", peptide())
    endless = build_variables("distance:3,7", peptide(), through_box=np.arange(12))
    assert whole(positions, box).item() == pytest.approx(1.9)
    assert endless(positions, box).item() == pytest.approx(0.1, abs=1e-6)


def test_a_topology_without_backbone_has_no_dihedrals():
    with pytest.raises(InputError, match="neither phi nor psi"):
        build_variables("dihedrals", two_molecules())


def test_equal_residues_of_two_chains_have_different_names():
    both = peptide().join(peptide())
    names = build_variables("dihedrals", both).names
    assert names[0] == "psi ALA 5 of chain 0"
    assert len(set(names)) == len(names) == 8


def in_one_chain(*parts: mdtraj.Topology) -> mdtraj.Topology:
    """The molecules one after the other in a chain, as a .gro has them."""
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for part in parts:
        made = []
        for residue in part.residues:
            copy = topology.add_residue(residue.name, chain, residue.resSeq)
            made += [topology.add_atom(a.name, a.element, copy) for a in residue.atoms]
        for a, b in part.bonds:
            topology.add_bond(made[a.index], made[b.index])
    return topology


def test_equal_molecules_in_one_chain_have_different_names():
    names = build_variables("dihedrals", in_one_chain(peptide(), peptide())).names
    assert names[0] == "psi ALA 5 of molecule 0"
    assert names[4] == "psi ALA 5 of molecule 1"
    assert len(set(names)) == len(names) == 8


def test_two_chains_of_two_molecules_each_are_told_by_molecule():
    both = in_one_chain(peptide(2), peptide(2))
    names = build_variables("dihedrals", both.join(both)).names
    assert {name.rpartition(" of ")[2] for name in names} == {f"molecule {k}" for k in range(4)}
    assert len(set(names)) == len(names) == 8


def test_equal_residues_of_one_molecule_have_different_names():
    topology = peptide(4)
    for residue in topology.residues:
        residue.resSeq = 1
    names = build_variables("dihedrals", topology).names
    assert names[0] == "psi ALA 1 (residue 0 from 0)"
    assert len(set(names)) == len(names) == 6


@pytest.mark.parametrize("period", [0.0, -1.0, math.inf, math.nan])
def test_a_period_must_be_positive(period):
    with pytest.raises(InputError, match="period"):
        Variable("x", (0,), lambda x: x[..., 0, 0], period, "nm")


def test_frames_of_variables_are_cut_and_joined():
    frames = CVFrames(torch.rand(10, 2), torch.rand(10, 2), torch.rand(10))
    joined = CVFrames.join([frames[:4], frames[4:]])
    assert torch.equal(joined.values, frames.values)
    assert torch.equal(joined.forces, frames.forces)
    assert torch.equal(joined.weights, frames.weights)
    with pytest.raises(ValueError, match="forces has shape"):
        CVFrames(torch.rand(10, 2), torch.rand(10))
