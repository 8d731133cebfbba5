"""What forces on phi and psi cost beside reading the frames that they are made from.

Prints thousands of frames per second of a small peptide in a box, as `deepcg simulate` leaves
it: reading positions (.dcd) and forces (.npy), the closed forms of both dihedrals, and the general
estimator.
python benchmarks/labelling.py [threads]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mdtraj
import numpy as np
import torch

from deepcg.compute.allocator import keep_freed_memory
from deepcg.forces.cv_estimators import VARIABLE_ESTIMATORS
from deepcg.mapping.collective_variables import build_variables
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.reader import iter_frames, open_trajectory
from deepcg.trajectory.topology import MoleculeGraph

N_FRAMES, CHUNK = 10_000, 500
ATOMS = "ACE CH3,H1,H2,H3,C,O;ALA N,H,CA,HA,CB,HB1,HB2,HB3,C,O;NME N,H,C,H1,H2,H3"
BONDS = "0-1 0-2 0-3 0-4 4-5 4-6 6-7 6-8 8-9 8-10 10-11 10-12 10-13 8-14 14-15 14-16 16-17 16-18"


def peptide() -> mdtraj.Topology:
    """Return alanine between two caps, 22 atoms."""
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for line in ATOMS.split(";"):
        name, atoms = line.split()
        residue = topology.add_residue(name, chain)
        for atom in atoms.split(","):
            topology.add_atom(atom, mdtraj.element.Element.getBySymbol(atom[0]), residue)
    sites = list(topology.atoms)
    for pair in (*BONDS.split(), "18-19", "18-20", "18-21"):
        topology.add_bond(*(sites[int(i)] for i in pair.split("-")))
    return topology


def write_trajectory(folder: Path) -> Path:
    """Write frames at random, and their topology."""
    generator = np.random.default_rng(0)
    shape = (N_FRAMES, 22, 3)
    positions = np.linspace(0, 2, 22)[:, None] + 0.3 * generator.random(shape)
    forces = 100 * generator.standard_normal(shape)
    trajectory = folder / "peptide.dcd"
    frames = mdtraj.Trajectory(positions.astype(np.float32), peptide())
    frames.unitcell_vectors = np.tile(4 * np.eye(3), (N_FRAMES, 1, 1))
    frames.save_dcd(str(trajectory))
    frames[0].save_pdb(str(folder / "peptide.pdb"))
    np.save(folder / "peptide.forces.npy", forces.astype(np.float32))
    return trajectory


def thousands_per_second(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the best rate: other work on the machine only makes it slower."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1e-3 * N_FRAMES / min(times)


def main() -> None:
    """Time them side by side."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else torch.get_num_threads())
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        source = open_trajectory(write_trajectory(Path(folder)))
        reading = thousands_per_second(lambda: list(iter_frames(source, chunk=CHUNK)))
        chunks = list(iter_frames(source, chunk=CHUNK))
    variables, masses = build_variables("dihedrals", peptide()), MoleculeGraph(peptide()).masses
    sample = Frames.join(chunks)[:: N_FRAMES // 200]
    print(f"{N_FRAMES} frames of 22 atoms, {torch.get_num_threads()} threads, 1000 frames/s")
    print(f"reading                 {reading:8.0f}")
    for name in ("rotation", "inverse-gradient"):
        build = VARIABLE_ESTIMATORS[name]
        estimate = build(variables, [sample], frozenset(), MoleculeGraph(peptide()), masses, 300.0)
        rate = thousands_per_second(lambda estimate=estimate: [estimate(c) for c in chunks])
        print(f"{name:24s}{rate:8.0f}   {reading / rate:5.2f} of the time of reading")


if __name__ == "__main__":
    main()
