from __future__ import annotations

from itertools import pairwise

import mdtraj
import numpy as np
import pytest
import torch
from paths import SHARED
from scipy.sparse import csr_array

from deepcg.mapping.beads import (
    LinearMapping,
    bead_topology,
    build_mapping,
    check_images,
    default_map,
    linear,
)
from deepcg.runtime.errors import InputError
from deepcg.trajectory.bonds import completed
from deepcg.trajectory.pdb_writer import save_pdb
from deepcg.trajectory.topology import MoleculeGraph

DATA = SHARED


def pdb(path: str) -> mdtraj.Trajectory:
    if not (DATA / path).is_file():
        pytest.skip(f"{path} of the shared data is not here")
    return mdtraj.load_pdb(DATA / path)


@pytest.fixture(scope="module")
def alanine() -> mdtraj.Trajectory:
    return pdb("alanine/alanine.pdb")


def water_box(n: int, *, sites: bool = False, by_species: bool = False) -> mdtraj.Topology:
    topology, element = mdtraj.Topology(), mdtraj.element
    chain = topology.add_chain()
    atoms = [("O", element.oxygen), ("H1", element.hydrogen), ("H2", element.hydrogen)]
    atoms += [("M", element.virtual)] * sites
    if by_species:  # atoms of a residue are consecutive: all are one residue
        residue = topology.add_residue("MOL", chain)
        made = [[topology.add_atom(*atom, residue) for _ in range(n)] for atom in atoms]
        bonded = list(zip(*made, strict=True))
    else:
        residues = [topology.add_residue("HOH", chain) for _ in range(n)]
        bonded = [tuple(topology.add_atom(*atom, r) for atom in atoms) for r in residues]
    for o, h1, h2, *_ in bonded:
        topology.add_bond(o, h1)
        topology.add_bond(o, h2)
    return topology


def test_oxygens_are_the_oxygens_and_carry_the_molecules():
    mapping = build_mapping("oxygens", water_box(5))
    x = torch.randn(2, 15, 3)
    assert torch.equal(mapping(x), x[:, ::3])
    assert mapping.type_names == ("O",)
    assert mapping.types.tolist() == [0] * 5
    np.testing.assert_allclose(mapping.masses, 18.0153, atol=1e-3)


def test_atoms_may_be_ordered_by_species():
    topology = water_box(4, by_species=True)
    assert MoleculeGraph(topology).molecule_index.tolist() == [0, 1, 2, 3] * 3
    mapping = build_mapping("com", topology)
    assert mapping.type_names == ("H2O",)
    x = torch.randn(3, 12, 3, dtype=torch.float64)
    o, h = 15.99943, 1.007947
    expected = (o * x[:, :4] + h * x[:, 4:8] + h * x[:, 8:]) / (o + 2 * h)
    torch.testing.assert_close(mapping(x), expected)


def test_centers_of_mass_are_those_of_mdtraj(alanine):
    mapping = build_mapping("com", alanine.topology)
    assert mapping.type_names == ("ACE-ALA-NME", "HOH")
    ours = mapping(torch.from_numpy(alanine.xyz).double())
    for bead, atoms in [(0, range(22)), (342, range(22 + 341 * 3, 22 + 342 * 3))]:
        theirs = mdtraj.compute_center_of_mass(alanine.atom_slice(list(atoms)))
        np.testing.assert_allclose(ours[:, bead], theirs, atol=1e-6)  # float32 positions
    assert mapping.masses[0].item() == pytest.approx(144.17, abs=0.01)


def test_heavy_atoms_carry_their_hydrogens(alanine):
    mapping = build_mapping("heavy", alanine.topology)
    assert len(mapping.types) == 10 + 342
    assert [t for t in mapping.type_names if t.startswith("O")] == ["O(C)", "O(H2)"]
    c, n, o, h = 12.0107, 14.0067, 15.9994, 1.00794
    solute = [c + 3 * h, c, o, n + h, c + h, c + 3 * h, c, o, n + h, c + 3 * h]
    np.testing.assert_allclose(mapping.masses[:10], solute, atol=1e-3)


def test_the_solute_is_neither_water_nor_ions(alanine):
    ion = water_box(2)
    for symbol in ("sodium", "chlorine"):
        residue = ion.add_residue(symbol[:2].upper(), ion.chain(0))
        ion.add_atom(symbol, getattr(mdtraj.element, symbol), residue)
    mapping = build_mapping("solute", alanine.topology.join(ion))
    x = torch.randn(alanine.n_atoms + 8, 3)
    assert torch.equal(mapping(x), x[:22])
    assert mapping.masses.sum().item() == pytest.approx(144.17, abs=0.01)
    with pytest.raises(InputError, match="all is water and monatomic ions"):
        build_mapping("solute", ion)


@pytest.mark.parametrize("query", ["name CA or name CB", '"name CA or name CB"', "'name CA CB'"])
def test_a_selection_may_be_quoted(alanine, query):
    mapping = build_mapping(f"select:{query}", alanine.topology)
    x = torch.randn(alanine.n_atoms, 3)
    assert torch.equal(mapping(x), x[[8, 10]])
    # the whole solute is shared out: nothing of it is lost
    assert mapping.masses.sum().item() == pytest.approx(144.17, abs=0.01)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("oxygen", "unknown mapping 'oxygen'.*choices: backbone-cb, com"),
        ("select", "unknown mapping 'select'; did you mean 'select:QUERY'"),
        ("select:name FOO", r"nothing matches the selection 'name FOO' \(15 atoms\)"),
        ("select:name ==", "'name ==': it stops making sense at end of text .character 8."),
        ("select:name and )", r"'name and \)': it stops making sense at ' ' .character 9."),
        ("select:mass > x", "cannot read the selection 'mass > x': '>' not supported"),
        ("select:not", "cannot read the selection 'not'"),
        ("select:' '", "cannot read the selection ' '"),
    ],
)
def test_a_wrong_map_gets_one_clear_line(name, message):
    with pytest.raises(InputError, match=message) as caught:
        build_mapping(name, water_box(5))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_no_oxygen_is_an_error():
    topology = mdtraj.Topology()
    residue = topology.add_residue("AR", topology.add_chain())
    topology.add_atom("AR", mdtraj.element.argon, residue)
    with pytest.raises(InputError, match="no oxygen in the topology"):
        build_mapping("oxygens", topology)


def test_a_mapping_object_is_taken_as_it_is_if_it_fits():
    mapping = build_mapping("com", water_box(5))
    assert build_mapping(mapping, water_box(5)) is mapping
    with pytest.raises(InputError, match="mapping is of 15 atoms, but the topology has 18"):
        build_mapping(mapping, water_box(6))


def test_weights_must_sum_to_one():
    with pytest.raises(InputError, match=r"weights of bead 1 sum to 0.5"):
        linear([[1, 0, 0], [0, 0.5, 0]], water_box(1), ["A", "B"])
    with pytest.raises(InputError, match="shape"):
        linear([[1, 0]], water_box(1), ["A"])


def test_a_mapping_is_differentiable_in_the_positions():
    dense = torch.tensor([[0.5, 0.5, 0], [0.2, 0.3, 0.5]], dtype=torch.float64)
    types, masses = torch.tensor([0, 1]), torch.ones(2)
    mapping = LinearMapping(csr_array(dense.numpy()), types, masses, ("A", "B"))
    x = torch.randn(3, 3, dtype=torch.float64)
    jacobian = torch.func.jacrev(mapping)(x)  # (beads, 3, atoms, 3)
    expected = torch.einsum("ba,cd->bcad", dense, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(jacobian, expected)


def test_virtual_sites_belong_to_their_molecule_and_weigh_nothing():
    topology = water_box(3, sites=True)
    assert MoleculeGraph(topology).molecule_index.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    mapping = build_mapping("com", topology)
    assert not mapping.weights.toarray()[:, 3::4].any()
    assert len(build_mapping("heavy", topology).types) == 3
    on_site = build_mapping("select:name M", topology)
    np.testing.assert_allclose(on_site.masses, 18.0153, atol=1e-3)


def test_the_bead_topology_survives_a_pdb_file(alanine, tmp_path):
    solute = alanine.atom_slice(range(22))
    mapping = build_mapping("heavy", solute.topology)
    beads = mapping(torch.from_numpy(solute.xyz)).numpy()
    written = mdtraj.Trajectory(beads, bead_topology(mapping, MoleculeGraph(solute.topology)))
    written.save_pdb(tmp_path / "beads.pdb")
    read = mdtraj.load_pdb(tmp_path / "beads.pdb")
    assert " ".join(a.name for a in read.top.atoms) == "CH3 C O N CA CB C O N C"
    assert [r.name for r in read.top.residues] == ["ACE", "ALA", "NME"]
    assert written.top.n_bonds == 9
    for angle in (mdtraj.compute_phi, mdtraj.compute_psi):
        np.testing.assert_allclose(angle(read)[1], angle(solute)[1], atol=2e-2)  # PDB: 1e-4 nm


def test_beads_of_equal_molecules_in_one_chain_differ_in_a_pdb_file(alanine, tmp_path):
    """MDTraj would bond what follows in one chain."""
    solute = alanine.atom_slice(range(22))
    one = solute.topology
    both = mdtraj.Topology()
    chain = both.add_chain()
    for _ in range(2):
        made = []
        for residue in one.residues:
            copy = both.add_residue(residue.name, chain, residue.resSeq)
            made += [both.add_atom(a.name, a.element, copy) for a in residue.atoms]
        for a, b in one.bonds:
            both.add_bond(made[a.index], made[b.index])
    mapping = build_mapping("backbone-cb", both)
    beads = bead_topology(mapping, MoleculeGraph(both))
    xyz = mapping(torch.from_numpy(np.concatenate([solute.xyz, solute.xyz + 1], axis=1))).numpy()
    mdtraj.Trajectory(xyz, beads).save_pdb(tmp_path / "beads.pdb")
    read = mdtraj.load_pdb(tmp_path / "beads.pdb").topology
    assert (read.n_chains, read.n_atoms) == (2, len(mapping.types))
    names = {(a.residue.chain.index, a.residue.resSeq, a.name) for a in read.atoms}
    assert len(names) == read.n_atoms
    assert len(MoleculeGraph(read).molecules) == len(MoleculeGraph(beads).molecules) == 2


def test_the_bonds_of_a_chain_of_c_alpha_survive_a_pdb_file(tmp_path):
    """Their own, of standard residues, and none between two chains."""
    topology = mdtraj.Topology()
    for _ in range(2):
        chain = topology.add_chain()
        atoms = [
            topology.add_atom("CA", mdtraj.element.carbon, topology.add_residue("GLY", chain))
            for _ in range(4)
        ]
        for pair in pairwise(atoms):
            topology.add_bond(*pair)
    places = 0.38 * np.arange(8)[:, None] * np.eye(3)[:1]
    save_pdb(tmp_path / "beads.pdb", mdtraj.Trajectory(places[None], topology))
    read = mdtraj.load_pdb(tmp_path / "beads.pdb").topology
    pairs = {(a.index, b.index) for a, b in read.bonds}
    assert pairs == {(0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (6, 7)}
    assert completed(MoleculeGraph(read), places, None).doubts == ()


def peptide_and_waters() -> mdtraj.Topology:
    """N-CA-C(-O) of a glycine, and two waters."""
    topology, element = water_box(2), mdtraj.element
    residue = topology.add_residue("GLY", topology.chain(0))
    n, ca, c, o = (
        topology.add_atom(name, element.Element.getBySymbol(name[0]), residue)
        for name in ("N", "CA", "C", "O")
    )
    for pair in ((n, ca), (ca, c), (c, o)):
        topology.add_bond(*pair)
    return topology


def test_oxygens_are_the_default_of_water_alone():
    for sites in (False, True):
        assert default_map(MoleculeGraph(water_box(3, sites=sites)), "x.dcd") == "oxygens"
    assert default_map(MoleculeGraph(water_box(3, by_species=True)), "x.dcd") == "oxygens"


def test_elsewhere_no_map_is_guessed_and_what_each_would_give_is_told():
    with pytest.raises(InputError) as caught:
        default_map(MoleculeGraph(peptide_and_waters()), "x.dcd")
    told = str(caught.value)
    assert told.startswith("x.dcd has 2 H2O + 1 C2NO: say with --map")
    assert "com (3 beads), heavy (6 beads), oxygens (3 beads), solute (4 beads)" in told
    assert "\n" not in told


@pytest.mark.parametrize(("symbol", "shown"), [("sodium", "Na"), ("chlorine", "Cl")])
def test_water_with_an_ion_is_not_water_alone(symbol, shown):
    topology = water_box(2)
    residue = topology.add_residue("ION", topology.chain(0))
    topology.add_atom("X", getattr(mdtraj.element, symbol), residue)
    told = rf"2 H2O \+ 1 {shown}: .*com \(3 beads\), heavy \(3 beads\), oxygens \(2 beads\)"
    with pytest.raises(InputError, match=told):
        default_map(MoleculeGraph(topology), "x.dcd")


def test_a_liquid_without_oxygen_has_no_default():
    topology = mdtraj.Topology()
    for _ in range(3):
        residue = topology.add_residue("AR", topology.add_chain())
        topology.add_atom("AR", mdtraj.element.argon, residue)
    with pytest.raises(InputError, match=r"3 Ar: .*com \(3 beads\), heavy \(3 beads\), select"):
        default_map(MoleculeGraph(topology), "x.dcd")


def test_a_molecule_that_reaches_itself_through_the_box_has_no_center():
    topology = peptide_and_waters()
    endless = MoleculeGraph(topology, np.arange(6, 10))
    with pytest.raises(InputError, match="com: a bead is on several atoms of the molecule of 4"):
        check_images(build_mapping("com", topology), endless, "com")
    for name in ("heavy", "oxygens", "solute"):
        check_images(build_mapping(name, topology), endless, name)
    check_images(build_mapping("com", topology), MoleculeGraph(topology), "com")
    with pytest.raises(InputError) as caught:
        default_map(endless, "x.dcd")
    assert "com (" not in str(caught.value)


def test_beads_are_bonded_through_the_atoms_between_them(alanine):
    solute = alanine.topology.subset(range(22))
    mapping = build_mapping("select:name CH3 CA or (resname NME and name C)", solute)
    bonds = {(a.index, b.index) for a, b in bead_topology(mapping, MoleculeGraph(solute)).bonds}
    assert bonds == {(0, 1), (1, 2)}


def test_bead_topology_of_waters_has_a_residue_each_and_no_bonds():
    for name in ("com", "oxygens"):
        topology = water_box(3, by_species=True)
        beads = bead_topology(build_mapping(name, topology), MoleculeGraph(topology))
        assert (beads.n_atoms, beads.n_residues, beads.n_bonds) == (3, 3, 0)


def test_weights_are_no_dense_matrix():
    topology = water_box(20_000)  # 60 000 atoms
    for name in ("oxygens", "com"):
        mapping = build_mapping(name, topology)
        assert mapping.weights.nnz <= topology.n_atoms  # dense: 10 GB
        assert mapping(torch.zeros(2, topology.n_atoms, 3)).shape == (2, 20_000, 3)
