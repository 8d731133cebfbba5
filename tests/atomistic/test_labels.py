from __future__ import annotations

import json
import shutil
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
from numpy.typing import NDArray

from deepcg.atomistic.labels import Labels, label
from deepcg.atomistic.system import read_system
from deepcg.atomistic.water import WaterSimulation, simulate_water
from deepcg.runtime.errors import InputError

N = 32
FRAMES = 12


def simulated(folder: Path, model: str) -> Path:
    return simulate_water(
        WaterSimulation(
            output=folder,
            molecules=N,
            model=model,
            ns=FRAMES * 5e-5,
            interval_ps=0.05,
            equilibration_ps=0.5,
            cutoff=0.4,
            platform="CPU",
            threads=1,
        )
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        model: simulated(tmp_path_factory.mktemp(model), model) for model in ("tip3p", "tip4pew")
    }


@pytest.fixture
def water(made: dict[str, Path], tmp_path: Path) -> Path:
    """A copy to write beside."""
    for ending in (".dcd", ".pdb", ".system.xml"):
        shutil.copy(made["tip3p"].with_suffix(ending), tmp_path)
    return tmp_path / "traj.dcd"


def quick(trajectory: Path, **options: object) -> Labels:
    return label(trajectory, platform="CPU", threads=1, **options)  # type: ignore[arg-type]


def frames_of(path: Path) -> mdtraj.Trajectory:
    return mdtraj.load(str(path), top=str(path.with_suffix(".pdb")))


def save(trajectory: mdtraj.Trajectory, path: Path) -> None:
    trajectory.save_dcd(str(path))


def system_of(path: Path) -> Path:
    return path.with_suffix(".system.xml")


def contents(labels: Labels) -> list[bytes]:
    return [file.read_bytes() for file in labels.files]


def edit_system(path: Path, extra: openmm.Force) -> None:
    system = read_system(path)
    system.addForce(extra)
    path.write_text(openmm.XmlSerializer.serialize(system))


def reference(path: Path) -> openmm.Context:
    """A context in double precision."""
    platform = openmm.Platform.getPlatform("Reference")
    return openmm.Context(read_system(system_of(path)), openmm.VerletIntegrator(0.001), platform)


class Cut(Exception):
    """The labelling was cut off."""


def cut_after(frames: int):
    def progress(done: int, total: int, what: str) -> None:
        if done >= frames:
            raise Cut

    return progress


@pytest.mark.parametrize("model", ["tip3p", "tip4pew"])
def test_labels_are_the_forces_of_a_fresh_context(
    model: str, made: dict[str, Path], tmp_path: Path
) -> None:
    labels = quick(made[model], output=tmp_path, chunk=5)
    trajectory = frames_of(made[model])
    forces = np.load(labels.forces, mmap_mode="r")
    energies = np.load(labels.energies, mmap_mode="r")
    assert forces.shape == trajectory.xyz.shape
    assert forces.dtype == np.float32
    real = [a.index for a in trajectory.topology.atoms if a.element.symbol != "VS"]
    for i in (0, 4, 5, 11):
        context = reference(made[model])
        context.setPeriodicBoxVectors(*trajectory.unitcell_vectors[i].astype(float))
        context.setPositions(trajectory.xyz[i].astype(float))
        context.computeVirtualSites()
        state = context.getState(forces=True, energy=True)
        # the CPU platform sums in single precision: 1e-3 beside forces of 1000 kJ/mol/nm
        np.testing.assert_allclose(
            forces[i][real], state.getForces(asNumpy=True)._value[real], atol=0.05, rtol=1e-4
        )
        assert energies[i] == pytest.approx(state.getPotentialEnergy()._value, rel=1e-4)


@pytest.mark.parametrize("model", ["tip3p", "tip4pew"])
def test_a_molecules_forces_add_up_to_the_force_on_it(
    model: str, made: dict[str, Path], tmp_path: Path
) -> None:
    forces = np.load(quick(made[model], output=tmp_path).forces)
    trajectory = frames_of(made[model])
    context = reference(made[model])
    context.setPeriodicBoxVectors(*trajectory.unitcell_vectors[3].astype(float))
    per_molecule = trajectory.n_atoms // N
    x = trajectory.xyz[3].astype(float)
    h = 1e-6  # nm: a longer shift would carry pairs across the cutoff, where the energy jumps

    def energy(molecule: int, shift: NDArray[np.float64]) -> float:
        moved = x.copy()
        moved[molecule * per_molecule : (molecule + 1) * per_molecule] += shift
        context.setPositions(moved)
        context.computeVirtualSites()
        return float(context.getState(energy=True).getPotentialEnergy()._value)

    for molecule in (0, 7, 31):
        total = forces[3].reshape(N, per_molecule, 3)[molecule].sum(0)
        slope = [
            (energy(molecule, -h * axis) - energy(molecule, h * axis)) / (2 * h)
            for axis in np.eye(3)
        ]
        np.testing.assert_allclose(total, slope, atol=0.1, rtol=1e-3)  # single precision, as above


def test_virtual_sites_feel_nothing_and_are_put_in_their_place(
    made: dict[str, Path], tmp_path: Path
) -> None:
    path = made["tip4pew"]
    forces = np.load(quick(path, output=tmp_path).forces)
    assert not forces[:, 3::4].any()
    elsewhere = frames_of(path)
    elsewhere.xyz[:, 3::4] += 0.03
    save(elsewhere, tmp_path / "moved.dcd")
    moved = quick(tmp_path / "moved.dcd", topology=path.with_suffix(".pdb"), system=system_of(path))
    np.testing.assert_allclose(np.load(moved.forces), forces, atol=0.5)  # DCD rounds twice: 1e-7 nm


def test_a_cut_labelling_goes_on_to_the_same_files(water: Path, tmp_path: Path) -> None:
    frames = frames_of(water)  # so near to one another that they could share a neighbor list
    drift = np.random.default_rng(1).normal(scale=0.002, size=(N, 3)).repeat(3, axis=0)  # whole
    frames.xyz = frames.xyz[0] + np.arange(FRAMES)[:, None, None] * drift
    save(frames, water)
    whole = quick(water, output=tmp_path / "whole", chunk=2)
    with pytest.raises(Cut):
        quick(water, chunk=2, progress=cut_after(6))
    assert not Labels.of(water).forces.exists()
    seen: list[int] = []
    labels = quick(water, chunk=2, progress=lambda done, total, what: seen.append(done))
    assert seen == [8, 10, 12]
    assert contents(labels) == contents(whole)
    assert not list(tmp_path.glob("*.part*"))


def test_labels_are_computed_once(water: Path, tmp_path: Path) -> None:
    labels = quick(water)
    before = labels.forces.stat().st_mtime_ns
    assert quick(water) == labels
    assert quick(water, output=tmp_path / "elsewhere") == labels
    assert labels.forces.stat().st_mtime_ns == before
    assert json.loads(labels.provenance.read_text())["units"] == "kJ/mol/nm"


def test_stale_labels_are_computed_again(water: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = quick(water)
    before = np.load(labels.forces)
    field = openmm.CustomExternalForce("10*x")
    field.addParticle(0, [])
    edit_system(system_of(water), field)
    with pytest.raises(InputError, match="places in space"):
        quick(water)
    quick(water, forces_with=["CustomExternalForce"])
    assert "belongs to other files" in caplog.text
    change = np.load(labels.forces) - before
    np.testing.assert_allclose(change[:, 0, 0], -10, atol=1e-3)  # float32 beside 1000
    assert not change[:, 1:].any()


def test_labels_without_a_bias_are_those_of_a_system_that_never_had_it(water: Path) -> None:
    plain = np.load(quick(water).forces)
    bias = openmm.CustomCVForce("100*(d-0.5)^2")
    apart = openmm.CustomBondForce("r")
    apart.addBond(0, 3)
    bias.addCollectiveVariable("d", apart)
    edit_system(system_of(water), bias)
    with pytest.raises(InputError, match=r"CustomCVForce .*collective variables.*--forces-without"):
        quick(water)
    without = quick(water, forces_without=["CustomCVForce"])
    np.testing.assert_array_equal(np.load(without.forces), plain)
    assert json.loads(without.provenance.read_text())["forces_without"] == ["CustomCVForce"]
    kept = quick(water, forces_with=["CustomCVForce"])
    assert np.abs(np.load(kept.forces) - plain).max() > 1


def test_labels_of_a_trajectory_that_grew_are_stale(water: Path) -> None:
    quick(water)
    frames = frames_of(water)
    later = frames[:]
    later.xyz = frames.xyz + np.float32(0.01)
    save(mdtraj.join([frames, later]), water)
    assert len(np.load(quick(water).forces)) == 2 * FRAMES


def test_a_cut_labelling_of_other_files_is_not_continued(water: Path) -> None:
    with pytest.raises(Cut):
        quick(water, chunk=2, progress=cut_after(6))
    edit_system(system_of(water), openmm.CMMotionRemover())
    seen: list[int] = []
    quick(water, chunk=6, progress=lambda done, total, what: seen.append(done))
    assert seen == [6, 12]


def test_forces_from_elsewhere_are_not_replaced(water: Path) -> None:
    path = Labels.of(water).forces
    np.save(path, np.zeros((FRAMES, 3 * N, 3), np.float32))
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"traj\.forces\.npy was not computed here: move it away"):
        quick(water)
    assert path.read_bytes() == before


def test_a_barostat_in_the_system_changes_nothing(water: Path, tmp_path: Path) -> None:
    plain = quick(water, output=tmp_path / "plain")
    edit_system(system_of(water), openmm.MonteCarloBarostat(1.0, 300.0))
    assert np.array_equal(np.load(quick(water).forces), np.load(plain.forces))


def refusal(trajectory: Path, **options: object) -> str:
    """The message, which is one line and leaves no file of labels."""
    with pytest.raises(InputError) as error:
        quick(trajectory, **options)
    assert "\n" not in str(error.value)
    names = [path.name for path in trajectory.parent.iterdir()]
    assert not [name for name in names if "forces" in name or "energies" in name]
    return str(error.value)


def test_a_missing_system_is_named(water: Path) -> None:
    system_of(water).unlink()
    assert "traj.system.xml: give --system FILE" in refusal(water)


def test_a_system_of_other_particles_is_refused(water: Path, made: dict[str, Path]) -> None:
    message = refusal(water, system=system_of(made["tip4pew"]))
    assert "128 particles" in message
    assert "96 atoms" in message


def test_a_system_that_would_run_code_is_refused(water: Path) -> None:
    text = system_of(water).read_text()
    evil = '<Force type="PythonForce" version="1"/></Forces>'
    system_of(water).write_text(text.replace("</Forces>", evil))
    assert "holds a PythonForce, which would run code from the file" in refusal(water)


def test_a_file_that_is_no_system_is_refused(water: Path, tmp_path: Path) -> None:
    state = reference(water).getState(positions=True)
    for text in ("<System", openmm.XmlSerializer.serialize(state)):
        (tmp_path / "other.xml").write_text(text)
        with pytest.raises(InputError, match=r"other\.xml"):
            read_system(tmp_path / "other.xml")


def test_a_frame_without_finite_energy_is_named(water: Path) -> None:
    frames = frames_of(water)
    frames.xyz[4, 3:6] = frames.xyz[4, 0:3]  # a molecule upon another
    save(frames, water)
    message = refusal(water, chunk=3)
    assert "frame 4 (from 0) of" in message
    assert "is not finite: do atoms overlap?" in message


def test_a_frame_whose_box_is_too_small_is_named(water: Path) -> None:
    frames = frames_of(water)
    frames.unitcell_lengths[7] *= 0.7
    save(frames, water)
    message = refusal(water)
    assert "frame 7 (from 0) of" in message
    assert "cutoff" in message


def test_a_periodic_system_needs_a_box(water: Path) -> None:
    frames = frames_of(water)
    frames.unitcell_vectors = None
    save(frames, water)
    assert "frame 0 (from 0)" in (message := refusal(water))
    assert "has no box, but its System is periodic" in message


def test_an_absent_platform_is_named(water: Path) -> None:
    with pytest.raises(InputError, match="unknown platform 'CUDAA'"):
        label(water, platform="CUDAA")


def test_frames_that_are_left_out_are_not_numbers_and_others_as_before(
    made: dict[str, Path], tmp_path: Path
) -> None:
    whole = np.load(quick(made["tip3p"], output=tmp_path / "whole").forces)
    labels = quick(made["tip3p"], output=tmp_path / "some", skip_frames="0,4-5", chunk=5)
    forces, energies = np.load(labels.forces), np.load(labels.energies)
    left_out = np.isin(np.arange(FRAMES), (0, 4, 5))
    assert np.isnan(forces[left_out]).all()
    assert np.isnan(energies[left_out]).all()
    np.testing.assert_allclose(forces[~left_out], whole[~left_out], rtol=1e-3, atol=0.5)
    assert quick(made["tip3p"], output=tmp_path / "some", skip_frames="0,4-5") == labels
    again = quick(made["tip3p"], output=tmp_path / "some")
    assert np.isfinite(np.load(again.forces)).all()


def test_labels_of_all_frames_serve_where_some_are_left_out(water: Path) -> None:
    before = contents(quick(water))
    assert contents(quick(water, skip_frames="3")) == before
