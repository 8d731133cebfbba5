from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
import pytest
from numpy.typing import NDArray

from deepcg.atomistic.alanine.config import AlanineSimulation, BiasSettings
from deepcg.atomistic.alanine.metadynamics import MetadynamicsSettings, MetadynamicsState, fill
from deepcg.atomistic.alanine.molecule import alanine, alanine_system, torsions
from deepcg.atomistic.alanine.simulation import simulate_alanine
from deepcg.atomistic.alanine.torsion_bias import (
    BIAS_GROUP,
    POINTS,
    UNBIASED,
    BiasedSystem,
    Table,
    axis,
    bias_energy,
    hill,
    read_table,
    tempered,
    umbrella,
    write_table,
)
from deepcg.atomistic.equilibration import Thermostat, minimize
from deepcg.atomistic.system import open_context, open_platform, read_system
from deepcg.runtime.errors import InputError
from deepcg.runtime.progress import silent
from deepcg.trajectory.reader import iter_frames, open_trajectory
from deepcg.units import thermal_energy


class Cut(Exception):
    """The run was cut off."""


def cut_at(stage: str, done: int):
    def progress(now: int, total: int, what: str) -> None:
        if what.startswith(stage) and now == done:
            raise Cut

    return progress


def wavy(phi: NDArray[np.float64], psi: NDArray[np.float64]) -> NDArray[np.float64]:
    """A bias that tells phi from psi, and plus from minus."""
    return 7 * np.sin(phi) + 3 * np.cos(2 * psi - 0.4) + 2 * np.sin(phi - psi)


def table_of(n: int = POINTS) -> Table:
    return wavy(axis(n)[:, None], axis(n)[None])


def vacuum(phi: float = -1.2, psi: float = 2.6) -> tuple[openmm.System, NDArray[np.float64]]:
    topology, positions = alanine(phi, psi)
    system = alanine_system(
        "ff99sb", "vacuum", topology, constraints="none", hydrogen_mass=3.0, cutoff=None
    )
    return system, positions


def context_of(system: openmm.System, positions: NDArray[np.float64]) -> openmm.Context:
    integrator = openmm.VerletIntegrator(0.001)
    context = open_context(system, integrator, open_platform("Reference"))
    context.setPositions(positions)
    return context


def small(output: Path, bias: BiasSettings, **changes: object) -> AlanineSimulation:
    config = {
        "solvent": "vacuum",
        "ns": 0.0008,
        "interval_ps": 0.04,
        "equilibration_ps": 0.1,
        "checkpoint_ps": 0.2,
        "platform": "CPU",
        "threads": 1,
        "store": "solute",
    }
    return AlanineSimulation(output=output, biasing=bias, **{**config, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("at", [(-1.2, 2.6), (0.3, -2.0), (3.13, -3.13), (-3.14, 0.0)])
def test_the_bias_is_read_at_phi_then_psi(at: tuple[float, float]) -> None:
    system, positions = vacuum(*at)
    context = context_of(BiasedSystem(system, table_of()).system, positions)
    phi, psi = (np.array(angle) for angle in torsions(positions))
    # a cubic spline on 3 degrees is off by (0.052)^4 / 384 * |f''''| = 3e-6 kJ/mol
    assert bias_energy(context) == pytest.approx(float(wavy(phi, psi)), abs=1e-4)


def test_a_bias_goes_on_across_the_end_of_the_angles() -> None:
    below, above = (
        bias_energy(context_of(BiasedSystem(s, table_of()).system, x))
        for s, x in (vacuum(np.pi - 1e-4, 1.0), vacuum(-np.pi + 1e-4, 1.0))
    )
    slope = 7 * -1 + 2 * np.cos(np.pi - 1)  # of wavy in phi at pi
    assert above - below == pytest.approx(2e-4 * slope, abs=1e-5)


def test_forces_for_labels_never_contain_the_bias() -> None:
    system, positions = vacuum()
    plain = context_of(system, positions).getState(forces=True, energy=True)
    biased = context_of(BiasedSystem(system, table_of()).system, positions)
    apart = biased.getState(forces=True, energy=True, groups=set(UNBIASED))
    together = biased.getState(forces=True)
    np.testing.assert_array_equal(
        apart.getForces(asNumpy=True)._value, plain.getForces(asNumpy=True)._value
    )
    assert apart.getPotentialEnergy() == plain.getPotentialEnergy()
    pull = together.getForces(asNumpy=True)._value - plain.getForces(asNumpy=True)._value
    assert np.abs(pull).max() > 1


def test_frames_of_a_biased_run_are_labelled_without_it(tmp_path: Path) -> None:
    table = tmp_path / "bias.npy"
    np.save(table, table_of())
    (path,) = simulate_alanine(small(tmp_path / "run", BiasSettings(bias=f"file:{table}")))
    system = read_system(path.with_suffix(".system.xml"))
    assert all(force.getForceGroup() != BIAS_GROUP for force in system.getForces())
    with np.load(path) as saved:
        frames = dict(saved)
    for x, forces in zip(frames["positions"], frames["forces"], strict=True):
        state = context_of(system, x.astype(float)).getState(forces=True)
        expected = state.getForces(asNumpy=True)._value
        # float32 positions, bonds of 4e5 kJ/mol/nm^2
        np.testing.assert_allclose(forces, expected, atol=0.5)
    expected = wavy(frames["phi"].astype(float), frames["psi"].astype(float))
    np.testing.assert_allclose(frames["bias"], expected, atol=1e-4)
    np.testing.assert_allclose(torsions(frames["positions"])[:, 0], frames["phi"], atol=1e-5)
    np.testing.assert_allclose(frames["bias_grid"], table_of())


def test_a_table_comes_back_from_its_file(tmp_path: Path) -> None:
    write_table(tmp_path / "bias.npz", table_of(25), 310.0)
    np.testing.assert_allclose(read_table(tmp_path / "bias.npz"), table_of(25))
    with np.load(tmp_path / "bias.npz") as saved:
        assert saved["temperature"] == 310
        for name in ("phi", "psi"):
            np.testing.assert_allclose(saved[name], axis(25))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((9, 8)), "the bias has shape (9, 8): give (n, n)"),
        (np.zeros(9), "the bias has shape (9,)"),
        (np.full((9, 9), np.nan), "the bias is not finite everywhere"),
        (np.arange(81.0).reshape(9, 9), "the bias at -pi is not that at pi (by 72 kJ/mol)"),
        (np.array([["a"] * 9] * 9), "is not finite"),
    ],
)
def test_a_wrong_table_is_refused(
    content: NDArray[np.float64], message: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "bias.npy", content)
    with pytest.raises(InputError) as error:
        read_table(tmp_path / "bias.npy")
    assert message in str(error.value)


def test_a_wrong_file_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", walls=np.zeros(3))
    (tmp_path / "text.npy").write_text("1 2 3")
    for name, message in (("other.npz", "no bias or bias_grid: it has walls"), ("text.npy", "no")):
        with pytest.raises(InputError, match=message):
            read_table(tmp_path / name)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_table(tmp_path / "none.npy")


def test_a_window_is_a_spring_that_closes_smoothly() -> None:
    table = umbrella((1.0, -2.0), 50.0)
    i, j = (int(np.abs(axis(POINTS) - center).argmin()) for center in (1.0, -2.0))
    assert np.unravel_index(table.argmin(), table.shape) == (i, j)
    away = axis(POINTS)[i + 1] - 1.0, axis(POINTS)[j] + 2.0
    harmonic = 25.0 * (away[0] ** 2 + away[1] ** 2)
    assert table[i + 1, j] == pytest.approx(harmonic, rel=1e-3)
    np.testing.assert_allclose(table[0], table[-1])
    np.testing.assert_allclose(table[:, 0], table[:, -1])


def test_hills_shrink_as_the_bias_grows() -> None:
    # Barducci et al.: w exp(-V / (k dT)), dT = (gamma - 1) T
    kT = thermal_energy(300.0)
    assert tempered(1.5, 0.0, 300.0, 10.0) == 1.5
    assert tempered(1.5, 9 * kT, 300.0, 10.0) == pytest.approx(1.5 / np.e)
    bump = hill((0.5, -1.0), 2.0, 0.3)
    i, j = (int(np.abs(axis(POINTS) - center).argmin()) for center in (0.5, -1.0))
    assert np.unravel_index(bump.argmax(), bump.shape) == (i, j)
    # a Gaussian of this width has the volume 2 pi w^2 on the plane; of hills on the torus,
    # 2 pi w^2 (1 + w^2 / 4 + ...) (the Bessel function of order 0, twice)
    volume = bump[:-1, :-1].sum() * (2 * np.pi / (POINTS - 1)) ** 2
    assert volume == pytest.approx(2 * 2 * np.pi * 0.3**2 * (1 + 0.3**2 / 4), rel=0.003)


def thermostat(seed: int = 5) -> Thermostat:
    return Thermostat(300.0, 5.0, 0.002, seed, open_platform("CPU"), 1)


def test_walkers_leave_the_hills_that_the_rule_says(tmp_path: Path) -> None:
    system, positions = vacuum()
    bath = thermostat()
    states = [minimize(bath, system, positions) for _ in range(2)]
    hills = MetadynamicsSettings(
        height=2.0, width=0.3, bias_factor=3.0, every=20, number=1, per_segment=1
    )
    first = fill(bath, system, hills, MetadynamicsState.begin(states), tmp_path / "a.npz", silent)
    at = [torsions(s.getPositions(asNumpy=True)._value) for s in first.states]
    np.testing.assert_allclose(
        first.table, sum(hill((phi, psi), 2.0, 0.3) for phi, psi in at), atol=1e-9
    )
    # in one segment, so that the first hill has to act before there is a checkpoint
    more = MetadynamicsSettings(
        height=2.0, width=0.3, bias_factor=3.0, every=20, number=2, per_segment=2
    )
    second = fill(bath, system, more, MetadynamicsState.begin(states), tmp_path / "b.npz", silent)
    expected = first.table.copy()
    for state in second.states:
        x = state.getPositions(asNumpy=True)._value
        before = bias_energy(context_of(BiasedSystem(system, first.table).system, x))
        phi, psi = torsions(x)
        expected += hill((phi, psi), tempered(2.0, before, 300.0, 3.0), 0.3)
    np.testing.assert_allclose(second.table, expected, atol=1e-5)


META = BiasSettings(bias="metadynamics", freeze_after_ns=0.001, hill_every_ps=0.04)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return simulate_alanine(small(tmp_path_factory.mktemp("whole"), META, walkers=2))


@pytest.mark.parametrize("cut", [("leave hills", 12), ("simulate walker 2", 7)])
def test_metadynamics_goes_on_where_it_was(
    cut: tuple[str, int], whole: tuple[Path, ...], tmp_path: Path
) -> None:
    with pytest.raises(Cut):
        simulate_alanine(small(tmp_path, META, walkers=2), cut_at(*cut))
    resumed = simulate_alanine(small(tmp_path, META, walkers=2, resume=True))
    for one, other in zip(resumed, whole, strict=True):
        assert one.read_bytes() == other.read_bytes()
        ending = ".bias.npz"
        assert one.with_suffix(ending).read_bytes() == other.with_suffix(ending).read_bytes()


def test_all_walkers_are_weighted_by_the_one_frozen_bias(whole: tuple[Path, ...]) -> None:
    surfaces = [read_table(path.with_suffix(".bias.npz")) for path in whole]
    np.testing.assert_array_equal(*surfaces)
    # 2 walkers, 25 hills of 1 kJ/mol, hardly tempered yet: their volume is known
    volume = surfaces[0][:-1, :-1].sum() * (2 * np.pi / (POINTS - 1)) ** 2
    assert 0.5 * 50 < volume / (2 * np.pi * 0.3**2) <= 50 * 1.05
    system, _ = vacuum()
    for path in whole:
        with np.load(path) as saved:
            for x, bias in zip(saved["positions"], saved["bias"], strict=True):
                biased = BiasedSystem(system, surfaces[0]).system
                assert bias == pytest.approx(bias_energy(context_of(biased, x)), abs=1e-3)
            assert len(saved["bias"]) == 20


def test_whole_frames_have_the_weights_of_solute_frames(
    whole: tuple[Path, ...], tmp_path: Path
) -> None:
    dcd = simulate_alanine(small(tmp_path, META, walkers=2, store="all"))[0]
    (ours,), (theirs,) = (
        [f.weights for f in iter_frames(open_trajectory(p))] for p in (dcd, whole[0])
    )
    assert ours is not None
    assert ours.std() > 0.05
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    some = next(iter_frames(open_trajectory(dcd), start=3, stop=9))
    np.testing.assert_array_equal(some.weights, ours[3:9])
    with dcd.with_suffix(".log.csv").open("a") as file:
        file.write("1,2\n")
    with pytest.raises(InputError, match="has 21 rows for the 20 frames"):
        open_trajectory(dcd)


def test_every_window_has_a_trajectory_that_stays_near(tmp_path: Path) -> None:
    bias = BiasSettings(bias="umbrella", windows=2, force_constant=400.0)
    paths = simulate_alanine(small(tmp_path, bias, equilibration_ps=1.0, ns=0.0004))
    assert [path.name for path in paths] == [f"traj-{k}.npz" for k in range(4)]
    centers = [(phi, psi) for phi in (-np.pi / 2, np.pi / 2) for psi in (-np.pi / 2, np.pi / 2)]
    for path, (phi, psi) in zip(paths, centers, strict=True):
        with np.load(path) as saved:
            away = [saved["phi"] - phi, saved["psi"] - psi]
            expected = 400.0 * (2 - np.cos(away[0]) - np.cos(away[1]))
            np.testing.assert_allclose(saved["bias"], expected, atol=0.01)
            # sqrt(kT / 400) is 0.08 rad; the peptide's own forces, up to 80 kJ/mol/rad, shift it
            assert np.abs(away).max() < 0.6


@pytest.mark.slow
def test_metadynamics_agrees_with_openmms_own(tmp_path: Path) -> None:
    """The biases of two programs, on one System, tend to the same -(1 - 1/gamma) F."""
    system, positions = vacuum()
    bath, gamma, height, width, every, n_hills = thermostat(), 8.0, 1.0, 0.35, 100, 5000
    hills = MetadynamicsSettings(
        height=height,
        width=width,
        bias_factor=gamma,
        every=every,
        number=n_hills,
        per_segment=n_hills,
    )
    start = MetadynamicsState.begin([minimize(bath, system, positions)])
    ours = fill(bath, system, hills, start, tmp_path / "hills.npz", silent).table
    theirs = openmm_bias(system, positions, gamma, height, width, every, n_hills)
    deep = ours > ours.max() - 20
    difference = (ours - theirs)[deep]
    # 1 ns each: hills of height 1 fluctuate by about 1 kJ/mol about the limit
    assert (difference - difference.mean()).std() < 1.5
    assert deep.mean() > 0.1


def openmm_bias(
    system: openmm.System,
    positions: NDArray[np.float64],
    gamma: float,
    height: float,
    width: float,
    every: int,
    n_hills: int,
) -> Table:
    """Return the bias of OpenMM's own metadynamics, on the points of ours."""
    from openmm import app

    from deepcg.atomistic.alanine.molecule import PHI, PSI

    system = openmm.XmlSerializer.clone(system)
    variables = []
    for atoms in (PHI, PSI):
        angle = openmm.CustomTorsionForce("theta")
        angle.addTorsion(*atoms, [])
        variables.append(
            app.metadynamics.BiasVariable(angle, -np.pi, np.pi, width, True, gridWidth=POINTS)
        )
    meta = app.Metadynamics(system, variables, 300.0, gamma, height, every)
    topology, _ = alanine(-1.2, 2.6)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 5.0, 0.002)
    simulation = app.Simulation(
        topology, system, integrator, open_platform("CPU"), {"Threads": "1"}
    )
    simulation.context.setPositions(positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(300.0, 3)
    meta.step(simulation, every * n_hills)
    bias = -meta.getFreeEnergy()._value * (gamma - 1) / gamma  # [psi, phi], as its grid is
    return np.asarray(bias).T
