from __future__ import annotations

from pathlib import Path

import mdtraj
import openmm
import pytest
import torch
from paths import SHARED

from deepcg.forces.constraints import (
    connected,
    from_frames,
    from_system,
    from_water,
    held_pairs,
)
from deepcg.runtime.errors import InputError
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.topology import MoleculeGraph

DATA = SHARED


def shared(path: str) -> Path:
    if not (DATA / path).is_file():
        pytest.skip(f"{path} of the shared data is not here")
    return DATA / path


def system(masses: list[float], bonds: list[tuple[int, int]]) -> openmm.System:
    made = openmm.System()
    for mass in masses:
        made.addParticle(mass)
    for i, j in bonds:
        made.addConstraint(i, j, 0.1)
    return made


def groups(*lists: list[int]) -> frozenset[frozenset[int]]:
    return frozenset(frozenset(group) for group in lists)


def test_groups_are_connected_components():
    assert connected([(5, 3), (1, 2), (3, 9)]) == groups([3, 5, 9], [1, 2])
    assert connected([]) == frozenset()


def test_a_chain_of_held_bonds_is_one_group():
    methyl = system([12, 1, 1, 1, 12], [(0, 1), (0, 2), (0, 3)])
    assert from_system(methyl) == groups([0, 1, 2, 3])


def test_a_virtual_site_joins_a_rigid_group_and_only_that():
    made = system([16, 1, 1, 0, 16, 1, 1, 0], [(0, 1), (0, 2), (1, 2)])
    for first in (0, 4):
        average = openmm.ThreeParticleAverageSite(first, first + 1, first + 2, 0.8, 0.1, 0.1)
        made.setVirtualSite(first + 3, average)
    assert from_system(made) == groups([0, 1, 2, 3])


def test_fixed_atoms_are_refused():
    with pytest.raises(InputError, match="atom 1 of the System has no mass"):
        from_system(system([16, 0], []))


def test_files_that_hold_no_system_are_refused(tmp_path):
    with pytest.raises(InputError, match="no System at"):
        from_system(tmp_path / "none.xml")
    (tmp_path / "bad.xml").write_text("nothing")
    with pytest.raises(InputError, match="not the XML file of an OpenMM System") as caught:
        from_system(tmp_path / "bad.xml")
    assert "\n" not in str(caught.value)
    integrator = openmm.XmlSerializer.serialize(openmm.VerletIntegrator(0.001))
    (tmp_path / "other.xml").write_text(integrator)
    with pytest.raises(InputError, match="holds an OpenMM VerletIntegrator"):
        from_system(tmp_path / "other.xml")


@pytest.mark.parametrize(
    ("stem", "n"), [("water/tip3p216", 216), ("alanine/alanine", 342)], ids=["water", "alanine"]
)
def test_rigid_waters_are_the_same_from_the_system_and_from_the_model(stem, n):
    found = from_system(shared(f"{stem}.system.xml"))
    assert len(found) == n
    assert found == from_water(MoleculeGraph(mdtraj.load_topology(shared(f"{stem}.pdb"))))


def test_held_bonds_are_seen_in_the_data():
    graph = MoleculeGraph(mdtraj.load_topology(shared("water/tip3p216.pdb")))
    with mdtraj.open(str(shared("water/tip3p216.dcd"))) as file:
        positions = torch.from_numpy(file.read(n_frames=4)[0] / 10)
    sample = Frames(positions, None, None, torch.zeros(648).long())
    assert from_frames(graph, sample) == from_water(graph)
    # a stretching vibration of 0.0023 nm, the stiffest O-H bonds' at 300 K, is not held
    generator = torch.Generator().manual_seed(0)
    positions = positions.repeat(5, 1, 1)
    moved = positions + 0.0023 / 2**0.5 * torch.randn(positions.shape, generator=generator)
    assert from_frames(graph, Frames(moved, None, None, sample.types)) == frozenset()
    with pytest.raises(InputError, match="one frame cannot tell"):
        from_frames(graph, sample[:1])


def test_where_no_atoms_are_bonded_none_are_held():
    """Ions: there are no pairs to take the spread of, and no warning says so."""
    topology = mdtraj.Topology()
    residue = topology.add_residue("NA", topology.add_chain())
    for name in ("NA1", "NA2"):
        topology.add_atom(name, mdtraj.element.sodium, residue)
    graph = MoleculeGraph(topology)
    sample = Frames(torch.rand(3, 2, 3), None, None, torch.zeros(2).long())
    assert from_frames(graph, sample) == frozenset()
    assert held_pairs(groups([0]), graph, sample).shape == (0, 2)
