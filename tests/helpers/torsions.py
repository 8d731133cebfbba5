"""Four atoms in a row, whose torsion has a known free energy: data for fits that take seconds."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import mdtraj
import numpy as np
import torch

from deepcg.mapping.collective_variables import dihedral


def write_torsions(path: Path, *, seed: int, low: float, high: float, n: int) -> Path:
    """Write frames with forces, .npz and .pdb, of a torsion with U = 10 cos x + 5 cos 3x, kJ/mol.

    Torsions are uniform between ``low`` and ``high``; forces have 3 kJ/mol/rad of noise.
    """
    rng = np.random.default_rng(seed)
    turn = rng.uniform(low, high, n)
    x = np.zeros((n, 4, 3))
    x[:, 0], x[:, 2], x[:, 3] = [0.14, 0, -0.05], [0, 0, 0.15], [0, 0, 0.2]
    x[:, 3, 0], x[:, 3, 1] = 0.14 * np.cos(turn), 0.14 * np.sin(turn)
    x += rng.normal(0, 0.002, x.shape)  # bonds that never change would be held
    points = torch.from_numpy(x).requires_grad_()
    angle = dihedral(points)
    energy = 10 * angle.cos() + 5 * (3 * angle).cos()
    (slope,) = torch.autograd.grad(energy.sum(), points)
    forces = rng.normal(0, 20, x.shape) - slope.numpy()
    np.savez(path, positions=x.astype("f4"), forces=forces.astype("f4"))
    mdtraj.Trajectory(x[:1], _chain()).save_pdb(str(path.with_suffix(".pdb")))
    return path


def _chain() -> mdtraj.Topology:
    topology = mdtraj.Topology()
    residue = topology.add_residue("BUT", topology.add_chain())
    atoms = [topology.add_atom(f"C{k}", mdtraj.element.carbon, residue) for k in range(4)]
    for one, other in pairwise(atoms):
        topology.add_bond(one, other)
    return topology
