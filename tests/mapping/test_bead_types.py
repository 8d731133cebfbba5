"""Bead types that chemistry gives, maps of peptides, and maps that lose handedness."""

from __future__ import annotations

import mdtraj
import numpy as np
import pytest

from deepcg.mapping.bead_types import equivalent_atoms, stereocenters, type_names
from deepcg.mapping.beads import build_mapping
from deepcg.mapping.chirality import check_handedness
from deepcg.runtime.errors import InputError
from deepcg.trajectory.topology import MoleculeGraph

PEPTIDE = {  # residues of ACE-ALA-NME: atoms, bonds; the caps' bonds to ALA are added below
    "ACE": (("CH3", "H1", "H2", "H3", "C", "O"), "CH3-H1 CH3-H2 CH3-H3 CH3-C C-O"),
    "ALA": (
        ("N", "H", "CA", "HA", "CB", "HB1", "HB2", "HB3", "C", "O"),
        "N-H N-CA CA-HA CA-CB CB-HB1 CB-HB2 CB-HB3 CA-C C-O",
    ),
    "NME": (("N", "H", "C", "H1", "H2", "H3"), "N-H N-C C-H1 C-H2 C-H3"),
}


def peptide(order: list[int] | None = None) -> mdtraj.Topology:
    """Return ACE-ALA-NME, its atoms in the usual order or, in one residue, in another."""
    topology = mdtraj.Topology()
    chain, ends = topology.add_chain(), {}
    for name, (atoms, bonds) in PEPTIDE.items():
        residue = topology.add_residue(name, chain)
        for atom in atoms:
            element = mdtraj.element.Element.getBySymbol(atom[0])
            ends[name, atom] = topology.add_atom(atom, element, residue)
        for pair in bonds.split():
            one, other = pair.split("-")
            topology.add_bond(ends[name, one], ends[name, other])
    topology.add_bond(ends["ACE", "C"], ends["ALA", "N"])
    topology.add_bond(ends["ALA", "C"], ends["NME", "N"])
    return topology if order is None else shuffled(topology, order)


def shuffled(topology: mdtraj.Topology, order: list[int]) -> mdtraj.Topology:
    other = mdtraj.Topology()
    residue = other.add_residue("MOL", other.add_chain())
    old = list(topology.atoms)
    new = {i: other.add_atom(old[i].name, old[i].element, residue) for i in order}
    for a, b in topology.bonds:
        other.add_bond(new[a.index], new[b.index])
    return other


def test_full_equivalence_merges_the_hydrogens_of_methyl_groups_alone():
    classes = equivalent_atoms(MoleculeGraph(peptide())).tolist()
    groups = {frozenset(np.flatnonzero(np.array(classes) == c).tolist()) for c in set(classes)}
    methyl = {frozenset({1, 2, 3}), frozenset({11, 12, 13}), frozenset({19, 20, 21})}
    single = set(range(22)) - set().union(*methyl)
    assert groups == methyl | {frozenset({i}) for i in single}


def test_classes_and_names_do_not_depend_on_the_order_of_atoms():
    order = np.random.default_rng(0).permutation(22).tolist()
    straight = equivalent_atoms(MoleculeGraph(peptide()))
    assert equivalent_atoms(MoleculeGraph(peptide(order))).tolist() == straight[order].tolist()
    names = type_names(MoleculeGraph(peptide()), order)
    assert type_names(MoleculeGraph(peptide(order)), range(22)) == names


def test_names_are_as_long_as_they_have_to_be():
    topology = peptide()
    names = type_names(MoleculeGraph(topology), range(22))
    assert names[5] == names[15] == "O"
    assert names[11] == names[12] == names[13]
    assert names[0] == names[10] == "C(CH3)"
    assert names[8] == "C(C2HN)"
    assert len(set(names)) == 8
    assert {names[7], names[17]} == {"H(N)"}
    assert type_names(MoleculeGraph(topology), [8, 5]) == ["C", "O"]


def test_the_backbone_with_c_beta_has_six_beads():
    mapping = build_mapping("backbone-cb", peptide())
    assert mapping.weights.indices.tolist() == [4, 6, 8, 10, 14, 16]
    assert mapping.masses.sum().item() == pytest.approx(144.17, abs=0.01)
    water = mdtraj.Topology()
    water.add_atom("O", mdtraj.element.oxygen, water.add_residue("HOH", water.add_chain()))
    with pytest.raises(InputError, match="no residue has N, CA and C"):
        build_mapping("backbone-cb", water)


def test_c_alpha_is_the_stereocenter_of_alanine():
    assert stereocenters(MoleculeGraph(peptide())) == [8]


def test_glycine_has_none():
    """With hydrogen in place of the methyl group, two neighbors of C-alpha are equivalent."""
    topology, kept = peptide(), [i for i in range(22) if i not in (11, 12, 13)]
    glycine = topology.subset(kept)
    glycine.atom(10).element = mdtraj.element.hydrogen
    assert stereocenters(MoleculeGraph(glycine)) == []


@pytest.mark.parametrize(
    "name", ["solute", "heavy", "backbone-cb", "com", "select:name CA or name N"]
)
def test_maps_that_show_the_hand_or_have_none_are_taken(name: str):
    check_handedness(build_mapping(name, peptide()), MoleculeGraph(peptide()), name)


@pytest.mark.parametrize("query", ["name C or name N or name CA", "name C O N CA"])
def test_a_backbone_without_c_beta_is_refused(query: str):
    name = f"select:{query}"
    with pytest.raises(InputError, match=r"handedness of ALA\d?-CA.*HA, CB.*--force-achiral") as e:
        check_handedness(build_mapping(name, peptide()), MoleculeGraph(peptide()), name)
    assert "\n" not in str(e.value)
