"""Bonds that a topology lacks are completed where distances are clear, and told where not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from ase.build import bulk, fcc111, graphene, molecule
from paths import SHARED

from deepcg.runtime.errors import InputError
from deepcg.trajectory.bond_guesses import contacts, guess_bonds
from deepcg.trajectory.bonds import Bonding, completed
from deepcg.trajectory.reader import open_trajectory
from deepcg.trajectory.sanity_checks import Bonds
from deepcg.trajectory.topology import MoleculeGraph, formula, guessed_topology, make_whole

Atom = tuple[str, str]  # name, element
WATER = np.array([[0, 0, 0], [0.0957, 0, 0], [-0.024, 0.0927, 0]])
CO2 = np.array([[0, 0, 0], [0.116, 0, 0], [-0.116, 0, 0]])
BUTANE = np.array([[0, 0, 0], [0.153, 0, 0], [0.204, 0.144, 0], [0.357, 0.144, 0]])
SEQUENCE = ("GLY", "TYR", "ASP", "PRO", "GLU", "THR", "GLY", "THR", "TRP", "GLY")
CHAIN = np.cumsum([[0.304, 0.2 * (-1) ** k, 0.05] for k in range(10)], axis=0)


class Made:
    """A topology, residue by residue, and where its atoms are."""

    def __init__(self) -> None:
        self.topology = mdtraj.Topology()
        self.chain = self.topology.add_chain()
        self.places: list[np.ndarray] = []

    def add(
        self,
        residue: str,
        atoms: Sequence[Atom],
        places: np.ndarray,
        bonds: Sequence[tuple[int, int]] = (),
    ) -> Made:
        """Add a residue with the bonds that the topology tells of it."""
        made = self.topology.add_residue(residue, self.chain, self.topology.n_residues + 1)
        known = [
            self.topology.add_atom(name, mdtraj.element.Element.getBySymbol(symbol), made)
            for name, symbol in atoms
        ]
        for i, j in bonds:
            self.topology.add_bond(known[i], known[j])
        self.places.append(places)
        return self

    @property
    def positions(self) -> np.ndarray:
        return np.concatenate(self.places)

    def completed(self, choice: str = "auto", box: np.ndarray | None = None) -> Bonding:
        return completed(MoleculeGraph(self.topology), self.positions, box, choice)


def water(made: Made, x: float) -> Made:
    atoms = [("O", "O"), ("H1", "H"), ("H2", "H")]
    return made.add("HOH", atoms, WATER + along(x), [(0, 1), (0, 2)])


def along(x: float) -> np.ndarray:
    return np.array([x, 0, 0])


def formulas(graph: MoleculeGraph) -> dict[str, int]:
    atoms = list(graph.topology.atoms)
    return dict(Counter(formula(atoms[i].element.symbol for i in m) for m in graph.molecules))


def tetrahedral(length: float) -> np.ndarray:
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    return np.concatenate([[[0, 0, 0]], corners * length / np.sqrt(3)])


def planar(length: float) -> np.ndarray:
    angles = np.arange(3) * 2 * np.pi / 3
    ring = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    return np.concatenate([[[0, 0, 0]], length * ring])


@pytest.mark.parametrize(
    ("residue", "atoms", "places", "expected"),
    [
        ("CO2", [("C", "C"), ("O1", "O"), ("O2", "O")], CO2, "CO2"),
        ("N2", [("N1", "N"), ("N2", "N")], np.array([[0, 0, 0], [0.11, 0, 0]]), "N2"),
        ("NO3", [("N", "N"), *[(f"O{k}", "O") for k in range(3)]], planar(0.125), "NO3"),
        ("SO4", [("S", "S"), *[(f"O{k}", "O") for k in range(4)]], tetrahedral(0.149), "O4S"),
        ("PF6", [("P", "P"), *[(f"F{k}", "F") for k in range(4)]], tetrahedral(0.16), "F4P"),
        ("BUT", [(f"C{k}", "C") for k in range(4)], BUTANE, "C4"),
    ],
)
def test_a_molecule_without_hydrogen_is_completed_beside_water_that_has_its_bonds(
    residue: str, atoms: list[Atom], places: np.ndarray, expected: str
) -> None:
    made = water(water(Made(), 2.0), 3.0).add(residue, atoms, places)
    found = made.completed()
    assert formulas(found.graph) == {"H2O": 2, expected: 1}
    assert found.doubts == ()


def test_a_residue_without_bonds_is_completed_beside_one_of_its_kind_that_has_them() -> None:
    atoms = [("C", "C"), ("O1", "O"), ("O2", "O")]
    made = Made().add("CO2", atoms, CO2, [(0, 1), (0, 2)]).add("CO2", atoms, CO2 + along(1.0))
    assert formulas(made.completed().graph) == {"CO2": 2}


def test_hydrogens_and_a_heavy_atom_that_the_topology_forgot_are_completed() -> None:
    methanol = molecule("CH3OH")
    atoms = [(f"{s}{k}", s) for k, s in enumerate(methanol.get_chemical_symbols())]
    made = Made().add("MOH", atoms, methanol.positions / 10, [(0, 2)])  # one C-H of five bonds
    found = made.completed()
    assert formulas(found.graph) == {"CH4O": 1}
    assert found.doubts == ()


def test_a_mixture_of_nitrogen_and_argon_has_pairs_and_single_atoms() -> None:
    numbers = np.array([7, 7, 18, 18, 7, 7])
    positions = np.zeros((6, 3))
    positions[:, 0] = [0, 0.11, 0.47, 0.75, 1.1, 1.21]  # argon closer than any in the liquid
    assert guess_bonds(numbers, positions, None).tolist() == [[0, 1], [4, 5]]


def test_two_residues_that_the_topology_keeps_apart_at_the_distance_of_a_bond_are_told() -> None:
    pair = [("C1", "C"), ("C2", "C")]
    made = Made()
    made.add("ONE", pair, BUTANE[:2], [(0, 1)]).add("TWO", pair, BUTANE[2:], [(0, 1)])
    found = made.completed()
    assert formulas(found.graph) == {"C2": 2}
    assert len(found.doubts) == 1
    assert "no bond between ONE1-C2 (atom 1) and TWO2-C1 (atom 2)" in found.doubts[0]
    assert formulas(made.completed("guess").graph) == {"C4": 1}
    assert made.completed("guess").doubts == made.completed("none").doubts == ()
    assert formulas(made.completed("none").graph) == {"C2": 2}


def test_inside_a_molecule_the_topology_is_right_about_its_bonds() -> None:
    """A ring that it leaves open changes no molecule."""
    ring = 0.15 * np.array([[0, 0, 0], [1, 0, 0], [1.5, 0.87, 0], [1, 1.73, 0], [0, 1.73, 0]])
    ring = np.concatenate([ring, [[-0.075, 0.13, 0]]])
    atoms = [(f"C{k}", "C") for k in range(6)]
    found = Made().add("RNG", atoms, ring, list(pairwise(range(6)))).completed()
    assert (len(found.graph.bonds), found.doubts) == (5, ())


def test_lipids_whose_name_is_also_one_of_an_amino_acid_are_no_chain() -> None:
    made = Made()
    for k in range(4):  # DPP: in some files a phospholipid, in others diaminopropanoic acid
        places = np.array([[0.62 * k, 0, 0], [0.62 * k, 0.16, 0]])
        made.add("DPP", [("P", "P"), ("O11", "O")], places)
    assert made.completed().doubts == ()


@pytest.mark.parametrize(("apart", "told"), [(0.185, 0), (0.195, 1), (0.21, 1), (0.23, 0)])
def test_a_distance_between_bond_and_contact_is_told(apart: float, told: int) -> None:
    """1.22, 1.28, 1.38 and 1.51 times the sum of covalent radii."""
    made = Made().add("CC", [("C1", "C"), ("C2", "C")], np.array([[0, 0, 0], [apart, 0, 0]]))
    doubts = [d for d in made.completed().doubts if "more than a bond" in d]
    assert len(doubts) == told
    assert all(f"{apart:.3f} nm apart" in d and "CC1-C1 (atom 0)" in d for d in doubts)


def test_a_residue_of_atoms_too_far_from_one_another_for_bonds_is_told() -> None:
    """Four beads of a lipid, say, whose topology tells no bonds."""
    places = np.array([[0.4 * k, 0, 0] for k in range(4)])
    found = Made().add("LIP", [(f"C{k}", "C") for k in range(4)], places).completed()
    assert found.doubts == ("4 of the 4 atoms of LIP1 have no bond, as LIP1-C0 (atom 0)",)


def c_alphas(bonded: bool) -> Made:
    made = Made()
    for name, place in zip(SEQUENCE, CHAIN, strict=True):
        made.add(name, [("CA", "C")], place[None])
    if bonded:
        for a, b in pairwise(list(made.topology.atoms)):
            made.topology.add_bond(a, b)
    return made


def test_a_chain_of_c_alphas_needs_its_bonds_or_to_be_told() -> None:
    found = c_alphas(bonded=False).completed()
    assert len(found.doubts) == 1
    assert found.doubts[0].startswith("9 pairs of neighbors in a chain, as GLY1-CA (atom 0) and")
    assert formulas(c_alphas(bonded=False).completed("guess").graph) == {"C10": 1}
    assert formulas(c_alphas(bonded=False).completed("none").graph) == {"C": 10}
    whole = c_alphas(bonded=True).completed()
    assert (formulas(whole.graph), whole.doubts) == ({"C10": 1}, ())


def test_a_chain_of_c_alpha_and_c_beta_is_no_chain_of_residues_by_itself() -> None:
    made = Made()
    for place in CHAIN:
        both = place + np.array([[0, 0, 0], [0, 0, 0.153]])
        made.add("ALA", [("CA", "C"), ("CB", "C")], both, [(0, 1)])
    assert made.completed().doubts[0].startswith("9 pairs of neighbors in a chain")
    assert formulas(made.completed("guess").graph) == {"C20": 1}


def test_phosphates_that_stand_for_nucleotides_are_told() -> None:
    made = Made()
    for k in range(4):
        made.add("DA", [("P", "P")], np.array([[0.62 * k, 0, 0]]))
    assert made.completed().doubts[0].startswith("3 pairs of neighbors in a chain")


def test_single_beads_of_waters_and_whole_molecules_are_no_chain() -> None:
    made = Made()
    for k in range(4):
        made.add("HOH", [("O", "O")], np.array([[0.28 * k, 0, 0]]))
        made.add("ALA", [("ALA", "O")], np.array([[0.38 * k, 1, 0]]))  # centers of mass
    found = made.completed()
    assert (found.doubts, found.graph.bonds.size) == ((), 0)


def test_copper_has_no_bonds_and_neither_has_a_surface_with_oxide() -> None:
    copper = bulk("Cu", cubic=True) * (3, 3, 3)
    found = guess_bonds(copper.numbers, copper.positions / 10, copper.cell[:] / 10)
    assert not len(found)
    oxide = bulk("MgO", "rocksalt", a=4.21, cubic=True) * (2, 2, 2)
    assert not len(guess_bonds(oxide.numbers, oxide.positions / 10, oxide.cell[:] / 10))
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (2, 2, 2)
    assert not len(guess_bonds(salt.numbers, salt.positions / 10, salt.cell[:] / 10))


def test_a_thiol_on_gold_is_a_molecule_and_the_gold_is_atoms() -> None:
    gold = fcc111("Au", (3, 3, 2), vacuum=10)
    thiol = molecule("CH3SH")
    thiol.positions += gold.positions[-1] + [0, 0, 2.4] - thiol.positions[1]  # S above Au
    made = Made()
    made.add("AU", [("AU", "Au")] * len(gold), gold.positions / 10)
    symbols = thiol.get_chemical_symbols()
    made.add("SAM", [(f"{s}{k}", s) for k, s in enumerate(symbols)], thiol.positions / 10)
    found = made.completed(box=gold.cell[:] / 10)
    assert formulas(found.graph) == {"Au": 18, "CH4S": 1}
    assert found.doubts == ()


def test_bonds_of_a_metal_are_kept_where_the_topology_tells_them() -> None:
    atoms = [("FE", "Fe"), *[(f"N{k}", "N") for k in range(4)]]
    bare = Made().add("HEM", atoms, tetrahedral(0.2))
    assert formulas(bare.completed().graph) == {"Fe": 1, "N": 4}
    assert bare.completed().doubts == ()  # held by the metal: not forgotten
    told = Made().add("HEM", atoms, tetrahedral(0.2), [(0, k) for k in (1, 2, 3, 4)])
    assert formulas(told.completed().graph) == {"FeN4": 1}


def test_silicon_across_an_oxygen_is_not_bonded() -> None:
    half = np.radians(75)
    arm = 0.162 * np.array([np.sin(half), np.cos(half), 0])
    positions = np.array([[0, 0, 0], arm, arm * [-1, 1, 1]])
    found = contacts(np.array([8, 14, 14]), positions, None)
    assert found.bonds.tolist() == [[0, 1], [0, 2]]
    assert not len(found.doubtful)
    narrow = positions * [0.9, 1, 1]  # 0.282 nm, 1.27 times the sum of the radii
    assert contacts(np.array([8, 14, 14]), narrow, None).bonds.tolist() == [[0, 1], [0, 2]]


def test_a_stretched_hydrogen_of_ab_initio_water_keeps_its_oxygen() -> None:
    stretched = WATER * [[1], [0.13 / 0.0957], [1]]
    both = np.concatenate([stretched, WATER + along(0.27)])
    found = contacts(np.array([8, 1, 1, 8, 1, 1]), both, None)
    assert found.bonds.tolist() == [[0, 1], [0, 2], [3, 4], [3, 5]]
    assert not len(found.doubtful)


def infinite_chain(n: int = 13, step: float = 0.1434) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    positions = np.full((n, 3), 0.9)
    positions[:, 0] = 0.01 + step * np.arange(n)
    return np.full(n, 6), positions, np.diag([n * step, 1.8, 1.8])


def test_a_chain_that_reaches_itself_through_the_box_is_known() -> None:
    numbers, positions, box = infinite_chain()
    graph = MoleculeGraph(guessed_topology(numbers, positions, box))
    assert len(graph.bonds) == 13
    found = completed(graph, positions, box).graph
    assert found.through_box.tolist() == list(range(13))
    moved = (positions + along(1.0)) % np.diag(box)
    whole = make_whole(moved[None], box[None], found.spanning_tree)
    Bonds(found).check(Path("x"), 0, whole, box[None])
    with pytest.raises(InputError, match=r"is 1\.72 nm long in frame 0"):
        Bonds(found).check(Path("x"), 0, whole)  # in the open they are what they seem
    stretched = positions.copy()
    stretched[5, 0] += 0.42
    with pytest.raises(InputError, match="nm long in frame 0"):
        Bonds(found).check(Path("x"), 0, stretched[None], box[None])


@pytest.mark.parametrize("size", [(5, 5, 1), (2, 2, 1), (1, 1, 1)])
def test_graphene_reaches_itself_in_any_cell(size: tuple[int, int, int]) -> None:
    sheet = graphene(vacuum=10.0) * size
    graph = MoleculeGraph(guessed_topology(sheet.numbers, sheet.positions / 10, sheet.cell[:] / 10))
    found = completed(graph, sheet.positions / 10, sheet.cell[:] / 10).graph
    assert len(found.molecules) == 1
    assert len(found.through_box) == len(sheet)


def test_molecules_across_the_faces_of_a_box_reach_no_image_of_themselves() -> None:
    made = water(water(Made(), 0.05), 0.6).add("CO2", [("C", "C"), ("O1", "O"), ("O2", "O")], CO2)
    box = np.eye(3) * 1.2
    found = completed(MoleculeGraph(made.topology), made.positions % 1.2, box).graph
    assert formulas(found) == {"H2O": 2, "CO2": 1}
    assert not len(found.through_box)


def test_data_without_a_topology_may_be_taken_as_single_atoms() -> None:
    numbers, positions, box = infinite_chain()
    bare = MoleculeGraph(guessed_topology(numbers, positions, box, bonded=False))
    assert len(completed(bare, positions, box, "none").graph.molecules) == 13


def written(folder: Path, made: Made) -> Path:
    frame = mdtraj.Trajectory(made.positions[None], made.topology)
    frame.save_pdb(folder / "x.pdb")
    np.savez(folder / "x.npz", positions=made.positions[None], numbers=[6] * len(made.positions))
    return folder / "x.npz"


def test_the_reader_names_the_residue_and_the_ways_out(tmp_path: Path) -> None:
    path = written(tmp_path, c_alphas(bonded=False))
    with pytest.raises(InputError, match=r"x\.pdb: bonds are unsure: 9 pairs .*GLY1-CA") as caught:
        open_trajectory(path)
    for way_out in ("CONECT", ".psf", ".prmtop", "--bonds guess", "none"):
        assert way_out in str(caught.value)
    assert "\n" not in str(caught.value)
    assert open_trajectory(path, bonds="guess").describe()["molecules"] == {"C10": 1}
    assert open_trajectory(path, bonds="none").describe()["molecules"] == {"C": 10}
    with pytest.raises(InputError, match="unknown choice of bonds 'gues'; did you mean 'guess'"):
        open_trajectory(path, bonds="gues")


def test_conect_records_of_a_chain_are_enough(tmp_path: Path) -> None:
    path = written(tmp_path, c_alphas(bonded=False))
    pdb = path.with_suffix(".pdb")
    lines = [line for line in pdb.read_text().splitlines() if line.startswith(("ATOM", "HETATM"))]
    links = [f"CONECT{k:5d}{k + 1:5d}" for k in range(1, 10)]
    pdb.write_text("\n".join([*lines, *links, "END", ""]))
    assert open_trajectory(path).describe()["molecules"] == {"C10": 1}


REPORTED = SHARED / "reported"


@pytest.mark.skipif(not REPORTED.exists(), reason="needs ../shared/data/reported")
@pytest.mark.parametrize(
    ("name", "topology", "molecules"),
    [
        ("P1_co2", "P1_co2", {"H2O": 204, "CO2": 12}),
        ("I1_infinite_chain", "I1_infinite_chain", {"C13": 1, "H2O": 201}),
        ("K1_ca_only", "K1_ca_only_with", None),
        ("K1_ca_only", "K1_ca_only_without", None),
    ],
)
def test_reported_files(name: str, topology: str, molecules: dict[str, int] | None) -> None:
    files = REPORTED / f"{name}.npz", REPORTED / f"{topology}.pdb"
    if molecules is not None:
        assert open_trajectory(files[0], topology=files[1]).describe()["molecules"] == molecules
        return
    with pytest.raises(InputError, match="CONECT"):
        open_trajectory(files[0], topology=files[1])
