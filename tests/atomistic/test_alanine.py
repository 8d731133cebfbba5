from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
from numpy.typing import NDArray
from openmm import app
from paths import SHARED

from deepcg.atomistic.alanine.config import AlanineSimulation, BiasSettings
from deepcg.atomistic.alanine.molecule import (
    PHI,
    PSI,
    alanine,
    alanine_system,
    solvated,
    torsions,
    usual_edge,
)
from deepcg.atomistic.alanine.simulation import simulate_alanine
from deepcg.atomistic.system import open_context, open_platform, read_system
from deepcg.runtime.errors import InputError
from deepcg.trajectory.reader import iter_frames, open_trajectory

ALANINE = SHARED / "alanine"
NAMES = "CH3 H1 H2 H3 C O N H CA HA CB HB1 HB2 HB3 C O N H C H1 H2 H3"


def small(output: Path, **changes: object) -> AlanineSimulation:
    config = AlanineSimulation(
        output=output,
        solvent="vacuum",
        ns=0.001,
        interval_ps=0.04,
        equilibration_ps=0.1,
        checkpoint_ps=0.4,
        platform="CPU",
        threads=1,
    )
    return replace(config, **changes)  # type: ignore[arg-type]


def in_water(output: Path, **changes: object) -> AlanineSimulation:
    fewer = {"solvent": "explicit", "waters": 60, "box_length": 1.3, "cutoff": 0.5, "ns": 0.0002}
    return small(output, **{**fewer, **changes})


def log_of(trajectory: Path) -> dict[str, NDArray[np.float64]]:
    with trajectory.with_suffix(".log.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def energy_and_forces(
    system: openmm.System, positions: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    context = open_context(system, openmm.VerletIntegrator(0.001), open_platform("Reference"), None)
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


def handedness(positions: NDArray[np.float64]) -> float:
    """The signed volume N, C, CB about CA: positive in L-alanine, by the CORN rule."""
    n, ca, cb, c = positions[[6, 8, 10, 14]]
    return float(np.dot(np.cross(n - ca, c - ca), cb - ca))


class Cut(Exception):
    """The run was cut off."""


def cut_at(stage: str, done: int):
    def progress(now: int, total: int, what: str) -> None:
        if what.startswith(stage) and now == done:
            raise Cut

    return progress


@pytest.mark.parametrize("angles", [(-1.2, 2.6), (1.0, 0.5), (-3.0, 3.1), (3.1, -0.1)])
def test_the_angles_are_those_asked_for(angles: tuple[float, float]) -> None:
    topology, positions = alanine(*angles)
    np.testing.assert_allclose(torsions(positions), angles, atol=1e-9)
    frame = mdtraj.Trajectory(positions[None], mdtraj.Topology.from_openmm(topology))
    np.testing.assert_allclose(mdtraj.compute_dihedrals(frame, [PHI, PSI])[0], angles, atol=1e-5)
    assert handedness(positions) > 0.002  # nm^3
    omega = mdtraj.compute_dihedrals(frame, [(0, 4, 6, 8), (8, 14, 16, 18)])
    np.testing.assert_allclose(np.abs(omega), np.pi, atol=1e-3)  # both peptide bonds are trans


def test_hydrogen_points_away_from_nitrogen_and_carbonyl() -> None:
    # the CORN rule: seen from the hydrogen, CO, R and N stand clockwise
    x = alanine(-1.2, 2.6)[1]
    towards = x[8] - x[9]
    c, cb, n = (x[i] - x[8] for i in (14, 10, 6))
    assert np.dot(np.cross(c, cb), towards) > 0
    assert np.dot(np.cross(cb, n), towards) > 0
    assert np.dot(np.cross(n, c), towards) > 0


def test_atoms_are_in_the_order_of_the_pdb() -> None:
    topology, _ = alanine(-1.2, 2.6)
    assert " ".join(atom.name for atom in topology.atoms()) == NAMES
    assert [residue.name for residue in topology.residues()] == ["ACE", "ALA", "NME"]
    assert topology.getNumBonds() == 21


def test_water_is_of_the_exact_count() -> None:
    waters = 83
    edge = usual_edge(waters)
    topology, positions = solvated("ff99sb", *alanine(-1.2, 2.6), waters=waters, edge=edge)
    assert topology.getNumAtoms() == len(positions) == 22 + 3 * waters
    apart = np.linalg.norm(positions[22:, None] - positions[:22], axis=-1)
    assert apart.min() > 0.12


@pytest.mark.skipif(not ALANINE.is_dir(), reason="the shared data are not here")
def test_the_system_is_that_of_the_shared_data() -> None:
    pdb = app.PDBFile(str(ALANINE / "alanine.pdb"))
    x = np.array(pdb.positions._value)
    built = solvated("ff99sb", *alanine(-1.2, 2.6), waters=342, edge=2.3238)[0]
    assert [a.name for a in built.atoms()] == [a.name for a in pdb.topology.atoms()]
    ours = alanine_system(
        "ff99sb", "explicit", built, constraints="none", hydrogen_mass=3.0, cutoff=0.9
    )
    theirs = read_system(ALANINE / "alanine.system.xml")
    masses = [[s.getParticleMass(i)._value for i in range(len(x))] for s in (ours, theirs)]
    np.testing.assert_allclose(*masses)
    (energy, forces), (energy_0, forces_0) = (energy_and_forces(s, x) for s in (ours, theirs))
    assert energy == pytest.approx(energy_0, rel=1e-4)
    np.testing.assert_allclose(forces, forces_0, rtol=1e-4, atol=1e-4 * forces_0.std())
    assert handedness(x) > 0.002


@pytest.mark.parametrize("force_field", ["ff99sb", "ff14sb"])
@pytest.mark.parametrize("solvent", ["vacuum", "obc"])
def test_without_water_there_is_no_box(force_field: str, solvent: str, tmp_path: Path) -> None:
    config = small(tmp_path, force_field=force_field, solvent=solvent, ns=0.0002)
    (path,) = simulate_alanine(config)
    trajectory = mdtraj.load(str(path), top=str(path.with_suffix(".pdb")))
    assert trajectory.n_frames == 5
    assert trajectory.n_atoms == 22
    assert trajectory.unitcell_lengths is None
    log = log_of(path)
    angles = mdtraj.compute_dihedrals(trajectory, [PHI, PSI])
    np.testing.assert_allclose(log["phi_rad"], angles[:, 0], atol=2e-4)
    np.testing.assert_allclose(log["psi_rad"], angles[:, 1], atol=2e-4)
    assert (log["bias_kJ_mol"] == 0).all()
    kinds = {f.getName() for f in read_system(path.with_suffix(".system.xml")).getForces()}
    assert ("CustomGBForce" in kinds) == (solvent == "obc")


def test_bonds_to_hydrogen_can_be_rigid(tmp_path: Path) -> None:
    (path,) = simulate_alanine(small(tmp_path, constraints="hbonds"))
    assert json.loads(path.with_suffix(".run.json").read_text())["dt_fs"] == 4
    system = read_system(path.with_suffix(".system.xml"))
    assert system.getNumConstraints() == 12
    x = mdtraj.load(str(path), top=str(path.with_suffix(".pdb"))).xyz
    assert np.linalg.norm(x[:, 9] - x[:, 8], axis=-1).std() < 1e-5
    assert np.linalg.norm(x[:, 10] - x[:, 8], axis=-1).std() > 1e-4


def test_the_temperature_is_the_thermostats(tmp_path: Path) -> None:
    config = small(tmp_path, ns=0.02, interval_ps=0.1, friction=20.0, equilibration_ps=2.0)
    (path,) = simulate_alanine(config)
    # 63 degrees of freedom spread one value by 300 sqrt(2 / 63) = 53 K; the kinetic energy
    # forgets in 1/40 ps, so 200 frames are independent. 4 standard errors: false alarm 6e-5
    assert abs(log_of(path)["temperature_K"].mean() - 300) < 4 * 53.5 / np.sqrt(200)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One run in water as solute frames and as whole frames."""
    folder = tmp_path_factory.mktemp("stored")
    (npz,) = simulate_alanine(in_water(folder / "solute", store="solute"))
    (dcd,) = simulate_alanine(in_water(folder / "all"))
    return npz, dcd


def test_solute_frames_have_the_forces_of_the_whole_system(stored: tuple[Path, Path]) -> None:
    npz, dcd = stored
    whole = mdtraj.load(str(dcd), top=str(dcd.with_suffix(".pdb")))
    system = read_system(dcd.with_suffix(".system.xml"))
    with np.load(npz) as saved:
        frames = dict(saved)
    assert frames["positions"].shape == frames["forces"].shape == (5, 22, 3)
    for k in range(5):
        x = whole.xyz[k].astype(float)
        np.testing.assert_allclose(frames["positions"][k], x[:22] - x[8], atol=1e-5)
        _, forces = energy_and_forces(system, x)
        # the DCD has float32 positions, and a bond pulls with 3e5 kJ/mol/nm^2
        np.testing.assert_allclose(frames["forces"][k], forces[:22], atol=2.0)
    np.testing.assert_allclose(frames["phi"], log_of(npz)["phi_rad"], atol=1e-5)
    assert frames["temperature"] == 300
    np.testing.assert_allclose(frames["box"], 1.3 * np.eye(3))


def test_what_is_stored_can_be_read_back(stored: tuple[Path, Path]) -> None:
    for path, n_atoms in zip(stored, (22, 22 + 180), strict=True):
        source = open_trajectory(path)
        frames = next(iter_frames(source))
        assert len(frames) == 5
        assert source.system == path.with_suffix(".system.xml")
        assert frames.positions.shape[1] == n_atoms
        assert (frames.forces is not None) == (n_atoms == 22)


def test_a_pressure_finds_the_box(tmp_path: Path) -> None:
    config = in_water(tmp_path, box_length=None, pressure=1.0, cutoff=None, waters=120)
    with pytest.raises(InputError, match=r"a cutoff of 0\.6 nm does not fit in a box of 40 waters"):
        simulate_alanine(replace(config, waters=40))
    (path,) = simulate_alanine(replace(config, equilibration_ps=2.0, friction=5.0))
    record = json.loads(path.with_suffix(".run.json").read_text())
    edge = read_system(path.with_suffix(".system.xml")).getDefaultPeriodicBoxVectors()[0][0]._value
    assert edge == pytest.approx(record["edge_nm"])
    # a volume of 120 waters fluctuates by 2.4 %, its mean over 1 ps by no more
    assert edge**3 == pytest.approx(usual_edge(120) ** 3, rel=0.15)
    assert edge != usual_edge(120)


@pytest.mark.parametrize("store", ["all", "solute"])
def test_a_resumed_run_is_the_run_that_was_not_cut(store: str, tmp_path: Path) -> None:
    (whole,) = simulate_alanine(small(tmp_path / "whole", store=store))
    with pytest.raises(Cut):
        simulate_alanine(small(tmp_path / "cut", store=store), cut_at("simulate", 17))
    growing = tmp_path / "cut" / ("traj.dcd" if store == "all" else "traj.frames.bin")
    with growing.open("ab") as file:
        file.write(b"half a frame")
    (cut,) = simulate_alanine(small(tmp_path / "cut", store=store, resume=True))
    assert cut.read_bytes() == whole.read_bytes()
    for name, values in log_of(whole).items():
        if name != "speed_ns_day":
            np.testing.assert_array_equal(log_of(cut)[name], values)


def test_solute_frames_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(Cut):
        simulate_alanine(small(tmp_path, store="solute"), cut_at("simulate", 24))
    with np.load(tmp_path / "traj.npz") as saved:
        assert len(saved["positions"]) == len(saved["bias"]) == 20  # two segments of ten
    assert open_trajectory(tmp_path / "traj.npz").n_frames == 20


def test_walkers_are_independent_runs_with_files_of_their_own(tmp_path: Path) -> None:
    paths = simulate_alanine(small(tmp_path, walkers=2, ns=0.0002))
    assert [path.name for path in paths] == ["traj-0.dcd", "traj-1.dcd"]
    one, other = (mdtraj.load(str(p), top=str(p.with_suffix(".pdb"))).xyz for p in paths)
    assert np.abs(one - other).max() > 0.01
    (alone,) = simulate_alanine(small(tmp_path / "alone", ns=0.0002))
    assert alone.read_bytes() == paths[0].read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"solvent": "water"}, "unknown solvent 'water'"),
        ({"force_field": "ff99sv"}, "unknown force field 'ff99sv'; did you mean 'ff99sb'?"),
        ({"constraints": "hbond"}, "did you mean 'hbonds'?"),
        ({"store": "peptide"}, "unknown choice of what to store: 'peptide'"),
        ({"walkers": 0}, "walkers is 0: give a positive number"),
        ({"hydrogen_mass": 5.0}, "hydrogen_mass is 5: give 1.008 to 4.0 Da"),
        ({"dt_fs": 4.5}, "dt_fs is 4.5: give at most 4 with constraints none and hydrogens of 3"),
        ({"dt_fs": 2.5, "constraints": "hbonds", "hydrogen_mass": 1.008}, "give at most 2"),
        ({"box_length": 2.0}, "with solvent vacuum: leave out box_length, cutoff"),
        ({"interval_ps": 0.041}, "interval_ps is 0.041: give a multiple of the time step, 2 fs"),
        (
            {"solvent": "explicit", "box_length": 1.0},
            "a cutoff of 0.6 nm does not fit in a box of 342",
        ),
        ({"biasing": BiasSettings(bias="meta")}, "unknown bias 'meta'"),
        ({"biasing": BiasSettings(bias="umbrella"), "walkers": 2}, "there is one in each window"),
        ({"biasing": BiasSettings(bias_factor=1.0)}, "bias_factor is 1: give more than 1"),
        ({"biasing": BiasSettings(bias="file:no.npy")}, "no.npy cannot be read"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        simulate_alanine(small(tmp_path / "run", **changes))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_overwritten_nor_mixed(tmp_path: Path) -> None:
    simulate_alanine(small(tmp_path, ns=0.0002))
    with pytest.raises(InputError, match="resume it, or give another output folder"):
        simulate_alanine(small(tmp_path, ns=0.0002))
    with pytest.raises(InputError, match=r"says solvent = vacuum, not obc"):
        simulate_alanine(small(tmp_path, ns=0.0002, resume=True, solvent="obc"))
