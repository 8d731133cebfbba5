"""Runs under different biases make one surface: exact answers, and what OpenMM makes of a table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from five_atoms import five_atoms
from numpy.typing import NDArray

from deepcg.analysis.surfaces.estimates import CVSamples, free_energy_surface_of
from deepcg.analysis.surfaces.mbar_weights import bias_at, pooled
from deepcg.analysis.surfaces.surface import FreeEnergySurface, difference
from deepcg.atomistic.alanine.torsion_bias import axis
from deepcg.trajectory.frames import CVFrames
from deepcg.units import thermal_energy
from deepcg.workflow.fes.sources import Coordinates, _on_one_scale, trajectories
from free_energy import Grid, Replicates

Floats = NDArray[np.float64]
PERIOD, KT, BINS = 2 * np.pi, thermal_energy(300), 24


def energy(x: Floats, y: Floats) -> Floats:
    """Return U, kJ/mol: two wells, and a barrier of 12 between them along x."""
    return 6 * np.cos(2 * x) + 2 * np.sin(x) + 3 * np.cos(y)


def table_of(height: float, n: int = 73) -> Floats:
    """Return a bias that fills a share of the wells along x."""
    x, y = np.meshgrid(axis(n), axis(n), indexing="ij")
    return height * energy(x, y)


def frames(n: int, seed: int, table: Floats, *, forces: bool = False) -> CVFrames:
    """Return independent frames under a bias, with the weights of their own run alone."""
    rng = np.random.default_rng(seed)
    tries = rng.uniform(-np.pi, np.pi, (60 * n, 2))
    bias = bias_at(table, tries)
    boltzmann = np.exp(-(energy(*tries.T) + bias) / KT)
    kept = rng.random(len(tries)) < boltzmann / boltzmann.max()
    x, weights = tries[kept][:n], np.exp(bias[kept][:n] / KT)
    slopes = np.stack([-12 * np.sin(2 * x[:, 0]) + 2 * np.cos(x[:, 0]), -3 * np.sin(x[:, 1])], 1)
    noisy = torch.from_numpy(rng.normal(0, 10, x.shape) - slopes)
    weights /= weights.mean()
    return CVFrames(torch.from_numpy(x), noisy if forces else None, torch.from_numpy(weights))


def sampled(parts: list[CVFrames], tables: tuple[Floats, ...] = ()) -> CVSamples:
    names, units = ("phi", "psi"), ("rad", "rad")
    return CVSamples("it", names, units, (PERIOD, PERIOD), tuple(parts), 300.0, "it", tables)


def exact() -> FreeEnergySurface:
    grid = Grid((np.linspace(-np.pi, np.pi, BINS + 1),) * 2, (PERIOD, PERIOD))
    points = grid.points(5)
    inside = np.exp(-energy(points[..., 0], points[..., 1]) / KT).mean(1).reshape(BINS, BINS)
    value = -KT * np.log(inside / inside.max())
    none = Replicates(value, np.empty((0, BINS, BINS)), 1.0)
    return FreeEnergySurface("exact", ("phi", "psi"), ("rad", "rad"), grid, none, 300.0, "exact")


def squares(found: FreeEnergySurface) -> float:
    """Return the rms of z over the bins where U is low."""
    z = difference(found, exact(), 15.0).value / found.error
    return float(np.sqrt(np.nanmean(z[exact().energy.value < 15] ** 2)))


TABLES = (table_of(-0.9), table_of(-0.3))


@pytest.mark.parametrize("forces", [False, True])
def test_runs_under_two_biases_give_the_surface_and_its_error(forces: bool):
    """z of some 300 bins, known to 10 % or so; each run's own weights are far from it."""
    parts = [frames(6000, k, table, forces=forces) for k, table in enumerate(TABLES)]
    assert 0.7 < squares(free_energy_surface_of(sampled(parts, TABLES), exact().grid)) < 1.35


def test_a_run_that_saw_one_well_does_not_count_for_both():
    """A run kept from one well by a wall has the same sum of its own weights as one that saw both.

    The share of that well has a standard error of 0.0042 (8 460 independent frames): right weights
    are five times as far off in one of 10^6 runs.
    """
    x = axis(73)[:, None]
    wall = np.broadcast_to(30 / (1 + np.exp(-8 * np.sin(x))), (73, 73)).copy()
    tables = table_of(-0.9), wall
    parts = [frames(6000, 10 + k, table) for k, table in enumerate(tables)]
    whole = sampled(parts, tables)
    weigh, _ = whole.weighting()
    right = whole.values[:, 0] > 0
    x, y = np.meshgrid(*(np.linspace(-np.pi, np.pi, 400, endpoint=False),) * 2, indexing="ij")
    density = np.exp(-energy(x, y) / KT)
    share = density[x > 0].sum() / density.sum()
    assert abs(weigh(np.ones(len(right)))[right].mean() * right.mean() - share) < 0.021
    assert abs(whole.weights[right].mean() * right.mean() - share) > 0.3


def test_frames_at_finer_intervals_do_not_count_more():
    """Every frame of a run ten times: as many independent ones, and the same weight in all."""
    short = [frames(2000, 20 + k, table).values.numpy() for k, table in enumerate(TABLES)]
    long = [short[0], np.repeat(short[1], 10, axis=0)]
    weigh, strata = pooled(TABLES, short, KT)
    again, many = pooled(TABLES, long, KT)
    share = weigh(np.ones(4000))[strata == 1].sum() / 4000
    found = again(np.ones(22_000))[many == 1].sum() / 22_000
    # the inefficiency of a run is known to some 5 %, and both runs say much the same of a well
    assert found == pytest.approx(share, rel=0.05)


def test_runs_under_one_bias_are_one_stratum():
    weigh, strata = pooled(
        (TABLES[0], TABLES[1], TABLES[0].copy()),
        [frames(500, k, TABLES[k % 2]).values.numpy() for k in range(3)],
        KT,
    )
    assert strata.tolist() == [0] * 500 + [1] * 500 + [0] * 500
    assert weigh(np.ones(1500)).mean() == pytest.approx(1)


def test_a_table_is_read_as_openmm_reads_it():
    rng = np.random.default_rng(5)
    table = rng.normal(0, 10, (25, 25))
    table[-1], table[:, -1] = table[0], table[:, 0]
    table[-1, -1] = table[0, 0]
    ends = (-np.pi, np.pi) * 2
    function = openmm.Continuous2DFunction(25, 25, table.ravel(order="F").tolist(), *ends, True)
    force = openmm.CustomCompoundBondForce(1, "bias(x1, y1)")
    force.addTabulatedFunction("bias", function)
    force.addBond([0])
    system = openmm.System()
    system.addParticle(1.0)
    system.addForce(force)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    values = rng.uniform(-np.pi, np.pi, (50, 2))
    wanted = []
    for x, y in values:
        context.setPositions([[x, y, 0.0]])
        wanted.append(context.getState(energy=True).getPotentialEnergy()._value)
    np.testing.assert_allclose(bias_at(table, values), wanted, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(bias_at(table, values + PERIOD), wanted, rtol=1e-9, atol=1e-8)


def test_tables_of_other_coordinates_are_left_alone():
    """A bias on angles that the surface is not of cannot be known from the surface's."""
    parts = [frames(500, k, table) for k, table in enumerate(TABLES)]
    whole = sampled(parts)
    assert _on_one_scale(whole, list(TABLES)).tables == TABLES
    assert _on_one_scale(whole, [TABLES[0].T, TABLES[1].T]) is whole
    assert _on_one_scale(whole, [TABLES[0], None]) is whole
    straight = replace(whole, periods=(None, PERIOD))
    assert _on_one_scale(straight, list(TABLES)) is straight


def test_files_with_tables_are_pooled(tmp_path: Path):
    """Angles come from positions, tables from beside them."""
    paths = []
    for k, table in enumerate(TABLES):
        part = frames(300, k, table)
        x = part.values.numpy()
        assert part.weights is not None
        np.savez(
            tmp_path / f"{k}.npz",
            positions=five_atoms(x).astype(np.float32),
            numbers=np.full(5, 6),
            bias=(KT * np.log(part.weights.numpy())).astype(np.float32),
            temperature=np.array(300.0),
            bias_grid=table,
        )
        paths.append(tmp_path / f"{k}.npz")
    on = "dihedral:0,1,2,3;dihedral:1,2,3,4"
    found = trajectories(tuple(paths), Coordinates(on, None, 300.0))
    assert len(found.tables) == 2
    parts = [frames(300, k, table).values.numpy() for k, table in enumerate(TABLES)]
    weigh, _ = pooled(TABLES, parts, KT)
    np.testing.assert_allclose(found.weights, weigh(np.ones(600)), rtol=1e-3)
