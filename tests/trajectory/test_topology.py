from __future__ import annotations

from itertools import pairwise

import mdtraj
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import SHARED

from deepcg.geometry.box import reduced, volumes
from deepcg.trajectory.bond_guesses import guess_bonds
from deepcg.trajectory.bonds import with_bonds
from deepcg.trajectory.topology import MoleculeGraph, guessed_topology, make_whole

TRICLINIC = np.array([[2.0, 0, 0], [0.7, 1.8, 0], [-0.9, 0.6, 1.7]])
WATER = np.array([[0, 0, 0], [0.0957, 0, 0], [-0.024, 0.0927, 0]])
seeds = st.integers(0, 2**32 - 1)


def water_box(n_side: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Waters far from each other on a lattice in the triclinic box: numbers and positions."""
    grid = np.stack(np.meshgrid(*[np.arange(n_side) / n_side] * 3), -1).reshape(-1, 3)
    positions = ((grid @ TRICLINIC)[:, None] + WATER).reshape(-1, 3)
    return np.tile([8, 1, 1], len(grid)), positions


def chain(n_atoms: int) -> mdtraj.Topology:
    topology = mdtraj.Topology()
    residue = topology.add_residue("POL", topology.add_chain())
    atoms = [topology.add_atom("C", mdtraj.element.carbon, residue) for _ in range(n_atoms)]
    for a, b in pairwise(atoms):
        topology.add_bond(a, b)
    return topology


def four_site_water(n: int) -> mdtraj.Topology:
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(n):
        residue = topology.add_residue("HOH", chain)
        for name, symbol in (("O", "O"), ("H1", "H"), ("H2", "H"), ("M", "VS")):
            topology.add_atom(name, mdtraj.element.Element.getBySymbol(symbol), residue)
    topology.create_standard_bonds()
    return topology


def test_a_virtual_site_belongs_to_its_molecule() -> None:
    topology = four_site_water(2)
    assert [m.tolist() for m in MoleculeGraph(topology).molecules] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert MoleculeGraph(topology).numbers.tolist() == [8, 1, 1, 0] * 2
    assert MoleculeGraph(topology).masses[:4] == pytest.approx([15.999, 1.008, 1.008, 0], abs=1e-3)


def test_molecules_are_ordered_by_their_first_atoms() -> None:
    topology = chain(5)
    residue = next(topology.residues)
    atoms = list(topology.atoms)
    extra = [topology.add_atom("C", mdtraj.element.carbon, residue) for _ in range(2)]
    topology.add_bond(extra[1], atoms[2])
    assert [m.tolist() for m in MoleculeGraph(topology).molecules] == [[0, 1, 2, 3, 4, 6], [5]]


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_guessed_bonds_do_not_depend_on_which_image_an_atom_is_in(seed: int) -> None:
    numbers, positions = water_box()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(numbers))
    shifted = positions + rng.integers(-2, 3, positions.shape) @ TRICLINIC
    found = guess_bonds(numbers[order], shifted[order], TRICLINIC)
    expected = {frozenset((3 * w, 3 * w + h)) for w in range(len(numbers) // 3) for h in (1, 2)}
    assert {frozenset(order[pair].tolist()) for pair in found} == expected
    assert len(found) == len(expected)


def test_a_hydrogen_between_two_oxygens_is_bonded_to_the_nearer_one() -> None:
    positions = np.array([[0, 0, 0], [0.118, 0, 0], [0.238, 0, 0]])
    assert guess_bonds(np.array([8, 1, 8]), positions, None).tolist() == [[0, 1]]


def test_an_ion_beside_a_water_is_not_bonded() -> None:
    positions = np.concatenate([WATER, [[-0.15, -0.15, 0]]])
    assert len(guess_bonds(np.array([8, 1, 1, 11]), positions, None)) == 2


def test_interleaved_molecules_share_one_residue_and_others_have_their_own() -> None:
    numbers, positions = water_box(2)
    by_molecule = guessed_topology(numbers, positions, TRICLINIC)
    assert len(by_molecule.select("water")) == 24
    assert [a.name for a in by_molecule.residue(3).atoms] == ["O", "H1", "H2"]
    order = np.argsort(-numbers, kind="stable")
    by_species = guessed_topology(numbers[order], positions[order], TRICLINIC)
    assert by_species.n_residues == 1
    assert sorted(len(m) for m in MoleculeGraph(by_species).molecules) == [3] * 8


def test_missing_bonds_are_guessed_and_known_ones_kept() -> None:
    numbers, positions = water_box(2)
    topology = guessed_topology(numbers, positions, TRICLINIC)
    graph = MoleculeGraph(topology)
    assert with_bonds(graph, positions, TRICLINIC) is graph
    bare = topology.copy()
    bare._bonds = bare._bonds[::2]
    complete = with_bonds(MoleculeGraph(bare), positions, TRICLINIC)
    assert {frozenset(p) for p in complete.bonds.tolist()} == {
        frozenset(p) for p in graph.bonds.tolist()
    }
    assert bare.n_bonds == 8


@settings(max_examples=50, deadline=None)
@given(seed=seeds)
def test_broken_molecules_come_back(seed: int) -> None:
    """Exact but for the rounding of box vectors to float32 (1e-6 nm after a few of them)."""
    numbers, positions = water_box()
    rng = np.random.default_rng(seed)
    topology = guessed_topology(numbers, positions, TRICLINIC)
    whole = np.stack([positions] * 4).astype(np.float32)
    box = np.stack([TRICLINIC] * 4)
    shifts = rng.integers(-2, 3, whole.shape)
    shifts[:, ::3] = 0  # the first atoms say where the molecules are
    broken = (whole + shifts @ TRICLINIC).astype(np.float32)
    mended = make_whole(broken, box, MoleculeGraph(topology).spanning_tree)
    assert mended.dtype == np.float32
    np.testing.assert_allclose(mended, whole, rtol=0, atol=2e-6)
    same = ~shifts.any(-1)
    assert (mended[same] == broken[same]).all()


def test_whole_molecules_keep_every_bit() -> None:
    numbers, positions = water_box()
    whole = positions[None].astype(np.float32)
    tree = MoleculeGraph(guessed_topology(numbers, positions, TRICLINIC)).spanning_tree
    assert make_whole(whole, TRICLINIC[None], tree) is whole


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_a_chain_longer_than_the_box_is_made_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(2, 60, 3))
    steps *= 0.15 / np.linalg.norm(steps, axis=-1, keepdims=True)
    whole = np.cumsum(steps, axis=1)
    whole += np.arange(60)[:, None] * [0.1, 0, 0]  # 6 nm long in a box of 2 nm
    box = np.stack([TRICLINIC] * 2)
    fraction = whole @ np.linalg.inv(box)
    wrapped = (fraction - np.floor(fraction)) @ box
    mended = make_whole(wrapped, box, MoleculeGraph(chain(60)).spanning_tree)
    np.testing.assert_allclose(mended - mended[:, :1], whole - whole[:, :1], atol=1e-9)


@settings(max_examples=100, deadline=None)
@given(seed=seeds)
def test_a_reduced_box_spans_the_same_lattice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells = rng.uniform(-3, 3, (20, 3, 3))
    cell = cells[volumes(cells) > 0.5][0]  # none of 20 in one of a million seeds
    box, rotation = reduced(cell[None])
    turned = cell if rotation is None else cell @ rotation[0]
    within = turned @ np.linalg.inv(box[0])  # the old vectors are whole sums of the new ones
    np.testing.assert_allclose(within, np.round(within), atol=1e-6)
    assert volumes(box) == pytest.approx(volumes(cell[None]), rel=1e-9)
    assert box[0] == pytest.approx(np.tril(box[0]), abs=0)
    a, b, c = box[0]
    slack = 1e-9
    assert abs(b[0]) <= a[0] / 2 + slack
    assert abs(c[1]) <= b[1] / 2 + slack
    assert abs(c[0]) <= a[0] / 2 + slack
    if rotation is not None:
        np.testing.assert_allclose(rotation[0] @ rotation[0].T, np.eye(3), atol=1e-9)
        assert np.linalg.det(rotation[0]) == pytest.approx(1)


@pytest.mark.skipif(not (SHARED / "water").exists(), reason="needs ../shared/data/water")
def test_the_shared_water_has_216_molecules() -> None:
    topology = mdtraj.load_topology(str(SHARED / "water" / "tip3p216.pdb"))
    assert [m.tolist() for m in MoleculeGraph(topology).molecules] == (
        np.arange(648).reshape(216, 3).tolist()
    )


@pytest.mark.skipif(not (SHARED / "aimd-water").exists(), reason="needs ../shared/data/aimd-water")
def test_ab_initio_water_has_the_same_64_molecules_in_every_frame() -> None:
    numbers = np.repeat([8, 1], [64, 128])
    for folder in sorted((SHARED / "aimd-water").glob("data_*/set.*")):
        positions = np.load(folder / "coord.npy").reshape(-1, 192, 3) * 0.1
        boxes = np.load(folder / "box.npy").reshape(-1, 3, 3) * 0.1
        for frame, box in zip(positions[::4], boxes[::4], strict=True):
            found = guess_bonds(numbers, frame, box)
            assert found.tolist() == sorted([o, 64 + 64 * h + o] for o in range(64) for h in (0, 1))
