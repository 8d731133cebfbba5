"""The microscopic pressure against a gas, a homogeneous potential and OpenMM's own."""

from __future__ import annotations

import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app

from deepcg.atomistic.pressure import STRETCH, molecular_pressures
from deepcg.atomistic.water_box import water_box
from deepcg.trajectory.topology import MoleculeGraph
from deepcg.units import BAR, thermal_energy

KT = thermal_energy(300.0)


def atoms_alone(n: int) -> list[np.ndarray]:
    return [np.array([i]) for i in range(n)]


def test_a_homogeneous_potential_has_four_times_its_energy_as_virial() -> None:
    """U of r^-12 scales as lambda^-12, so that -dU/dV = 4 U / V."""
    system = openmm.System()
    force = openmm.CustomNonbondedForce("(0.3/r)^12")
    force.setNonbondedMethod(force.CutoffPeriodic)
    force.setCutoffDistance(0.9)  # where a pair has 2e-6 kJ/mol
    for _ in range(20):
        system.addParticle(18.0)
        force.addParticle()
    system.addForce(force)
    box = np.diag([2.0, 2.1, 1.9])[None]
    positions = np.random.default_rng(1).uniform(0, 1.9, (1, 20, 3))
    found = molecular_pressures(
        system, positions, box, atoms_alone(20), 300.0, platform="Reference"
    )
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference")
    )
    context.setPeriodicBoxVectors(*box[0])
    context.setPositions(positions[0])
    energy = context.getState(energy=True).getPotentialEnergy()._value
    volume = np.linalg.det(box[0])
    wanted = (20 * KT + 4 * energy) / volume / BAR
    # lambda^-12 as a function of lambda^3: the third derivative, 4 . 5 . 6, times (3 h)^2 / 6
    assert energy > 1
    assert found[0] == pytest.approx(wanted, rel=1.1 * 30 * (3 * STRETCH) ** 2 / 1.5)


def test_molecules_are_moved_whole() -> None:
    """A stiff bond between two atoms of a molecule adds nothing to the pressure of a gas."""
    system = openmm.System()
    bond = openmm.HarmonicBondForce()
    bond.setUsesPeriodicBoundaryConditions(True)
    for _ in range(2):
        system.addParticle(16.0)
        system.addParticle(1.0)
    bond.addBond(0, 1, 0.1, 1e6)
    bond.addBond(2, 3, 0.1, 1e6)
    system.addForce(bond)
    positions = np.array([[[0, 0, 0], [0.14, 0, 0], [1, 1, 1], [1, 1.08, 1]]], dtype=float)
    found = molecular_pressures(
        system,
        positions,
        np.eye(3)[None] * 2.0,
        [np.array([0, 1]), np.array([2, 3])],
        300.0,
        platform="Reference",
    )
    assert found[0] == pytest.approx(2 * KT / 8 / BAR, rel=1e-9)


def test_water_is_that_of_the_barostat_of_openmm() -> None:
    topology, positions = water_box("tip3p", 32, 1.1, np.random.default_rng(3))
    system = app.ForceField("tip3p.xml").createSystem(
        topology, nonbondedMethod=app.CutoffPeriodic, nonbondedCutoff=0.4
    )
    graph = MoleculeGraph(mdtraj.Topology.from_openmm(topology))
    box = np.array(topology.getPeriodicBoxVectors()._value)
    places = np.asarray(positions, dtype=float)
    found = molecular_pressures(
        system, places[None], box[None], graph.molecules, 300.0, platform="Reference"
    )
    barostat = openmm.MonteCarloBarostat(1.0, 300.0, 0)
    system.addForce(barostat)
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference")
    )
    context.setPeriodicBoxVectors(*box)
    context.setPositions(places)
    draws = []
    for seed in range(1, 65):
        context.setVelocitiesToTemperature(300, seed)
        draws.append(barostat.computeCurrentPressure(context)._value)
    error = np.std(draws, ddof=1) / 8
    assert abs(np.mean(draws) - found[0]) < 4 * error + abs(found[0]) * 0.01
