from __future__ import annotations

import hashlib
import json
from pathlib import Path

import ase.io
import mdtraj
import numpy as np
import openmm
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from openmm import app, unit
from paths import SHARED

from deepcg.runtime.errors import InputError
from deepcg.runtime.provenance import file_hash
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.reader import (
    Trajectory,
    check_forces_available,
    iter_frames,
    open_trajectory,
)
from deepcg.trajectory.topology import guessed_topology

N_FRAMES, N_WATERS = 6, 8
N_ATOMS = 3 * N_WATERS
CELL = np.array([[2.0, 0, 0], [0.6, 1.9, 0], [-0.5, 0.4, 1.8]])
NUMBERS = np.tile([8, 1, 1], N_WATERS)
HEADER = 276  # bytes of a DCD that MDTraj or OpenMM writes
FRAME = 56 + 3 * (4 * N_ATOMS + 8)


def waters() -> np.ndarray:
    """Whole molecules (f, n, 3), some of them across the faces of the box."""
    rng = np.random.default_rng(5)
    shape = np.array([[0, 0, 0], [0.0957, 0, 0], [-0.024, 0.0927, 0]])
    grid = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1]), -1).reshape(-1, 3) / 2
    places = (grid @ CELL)[:, None] + shape
    shake = rng.normal(0, 0.003, (N_FRAMES, N_WATERS, 3, 3))
    return (places + shake).reshape(N_FRAMES, N_ATOMS, 3).astype(np.float32)


@pytest.fixture
def topology() -> mdtraj.Topology:
    return guessed_topology(NUMBERS, waters()[0], CELL)


@pytest.fixture
def forces() -> np.ndarray:
    return np.random.default_rng(6).normal(0, 400, (N_FRAMES, N_ATOMS, 3)).astype(np.float32)


@pytest.fixture
def trajectory(topology: mdtraj.Topology) -> mdtraj.Trajectory:
    lengths = np.linalg.norm(CELL, axis=1)
    angles = [np.degrees(np.arccos(CELL[i] @ CELL[j] / lengths[i] / lengths[j]))
              for i, j in ((1, 2), (0, 2), (0, 1))]  # fmt: skip
    return mdtraj.Trajectory(
        waters(),
        topology,
        time=np.arange(N_FRAMES) * 0.25,
        unitcell_lengths=np.tile(lengths, (N_FRAMES, 1)),
        unitcell_angles=np.tile(angles, (N_FRAMES, 1)),
    )


@pytest.fixture
def dcd(tmp_path: Path, trajectory: mdtraj.Trajectory, forces: np.ndarray) -> Path:
    """A trajectory with all that belongs to it beside it."""
    trajectory.save_dcd(str(tmp_path / "x.dcd"))
    trajectory[0].save_pdb(str(tmp_path / "x.pdb"))
    np.save(tmp_path / "x.forces.npy", forces)
    write_system(tmp_path / "x.system.xml", [15.999, 1.008, 1.008] * N_WATERS)
    return tmp_path / "x.dcd"


def write_system(path: Path, masses: list[float]) -> None:
    system = openmm.System()
    for mass in masses:
        system.addParticle(mass)
    path.write_text(openmm.XmlSerializer.serialize(system))


def frames_of(source: Trajectory, **options: int) -> Frames:
    return Frames.join(iter_frames(source, **options))


def test_what_belongs_to_a_trajectory_is_found_beside_it(dcd: Path, forces: np.ndarray) -> None:
    source = open_trajectory(dcd)
    assert source.system == dcd.with_name("x.system.xml")
    assert source.forces == dcd.with_name("x.forces.npy")
    assert (source.n_frames, source.n_atoms, source.atoms) == (N_FRAMES, N_ATOMS, None)
    frames = frames_of(source, chunk=4)
    assert frames.positions.dtype == torch.float32
    assert frames.types.tolist() == NUMBERS.tolist()
    np.testing.assert_allclose(frames.positions, waters(), atol=3e-7)
    assert frames.forces is not None
    np.testing.assert_array_equal(frames.forces, forces)
    assert frames.box is not None
    np.testing.assert_allclose(frames.box[0], CELL, atol=1e-6)


def test_chunks_and_ranges_give_the_same_frames(dcd: Path) -> None:
    source = open_trajectory(dcd)
    whole = frames_of(source)
    part = frames_of(source, chunk=2, start=1, stop=4)
    assert len(part) == 3
    assert torch.equal(part.positions, whole.positions[1:4])
    assert part.forces is not None
    assert whole.forces is not None
    assert torch.equal(part.forces, whole.forces[1:4])
    assert next(iter_frames(source, with_forces=False)).forces is None


@pytest.mark.filterwarnings("ignore:.*netCDF4:UserWarning")  # MDTraj then uses scipy's reader
@pytest.mark.parametrize("ending", ["xtc", "nc", "h5", "pdb", "gro", "trr"])
def test_everything_mdtraj_writes_is_read(
    ending: str, tmp_path: Path, trajectory: mdtraj.Trajectory
) -> None:
    """.xtc, .pdb and .gro round to 1e-3, 1e-4 and 1e-3 nm, .pdb angles to 0.01 degrees."""
    if ending == "h5":
        pytest.importorskip("tables")
    path = tmp_path / f"y.{ending}"
    trajectory.save(str(path))
    trajectory[0].save_pdb(str(tmp_path / "y.pdb")) if ending != "pdb" else None
    source = open_trajectory(path)
    frames = frames_of(source, chunk=4)
    assert source.forces is None
    tolerance = {"xtc": 6e-4, "pdb": 6e-5, "gro": 6e-4}.get(ending, 3e-7)
    np.testing.assert_allclose(frames.positions, trajectory.xyz, atol=tolerance)
    part = frames_of(source, chunk=2, start=3)
    assert torch.equal(part.positions, frames.positions[3:])
    assert frames.box is not None
    np.testing.assert_allclose(frames.box[-1], CELL, atol=3 * tolerance + 1e-6)
    if ending in ("xtc", "nc", "h5", "trr"):
        assert source.frame_time == pytest.approx(0.25)


def test_reading_says_nothing(dcd: Path, capfd: pytest.CaptureFixture[str]) -> None:
    frames_of(open_trajectory(dcd))
    assert capfd.readouterr() == ("", "")


def test_broken_molecules_are_whole_in_frames(
    dcd: Path, trajectory: mdtraj.Trajectory, forces: np.ndarray
) -> None:
    rng = np.random.default_rng(7)
    shifts = rng.integers(-1, 2, trajectory.xyz.shape)
    shifts[:, ::3] = 0
    trajectory.xyz = (trajectory.xyz + shifts @ CELL).astype(np.float32)
    trajectory.save_dcd(str(dcd))
    np.testing.assert_allclose(frames_of(open_trajectory(dcd)).positions, waters(), atol=2e-6)


def test_boxes_in_other_forms_are_reduced_and_vectors_turn_with_them(
    tmp_path: Path, forces: np.ndarray
) -> None:
    """Another basis of the lattice, rotated: distances, and forces along them, are the same."""
    turn, _ = np.linalg.qr(np.random.default_rng(8).normal(size=(3, 3)))
    turn *= np.linalg.det(turn)
    basis = np.array([[1, 0, 0], [1, 1, 0], [-1, 2, 1]]) @ CELL @ turn
    frames = []
    for x, f in zip(waters() @ turn * 10, forces @ turn / 964.8533212331, strict=True):
        atoms = Atoms(NUMBERS, x, cell=basis * 10, pbc=True)
        atoms.calc = SinglePointCalculator(atoms, forces=f)
        frames.append(atoms)
    ase.io.write(tmp_path / "x.extxyz", frames)
    read_back = frames_of(open_trajectory(tmp_path / "x.extxyz"))
    assert read_back.box is not None
    assert read_back.forces is not None
    box = read_back.box.numpy()
    assert (box == np.tril(box)).all()
    assert np.linalg.det(box) == pytest.approx(np.linalg.det(CELL), rel=1e-6)
    assert (np.abs(box[:, 2, 0]) <= box[:, 0, 0] / 2 + 1e-6).all()
    for bond in ((0, 1), (3, 5)):
        new = read_back.positions[:, bond[1]] - read_back.positions[:, bond[0]]
        old = waters()[:, bond[1]] - waters()[:, bond[0]]
        np.testing.assert_allclose(new.norm(dim=-1), np.linalg.norm(old, axis=-1), atol=1e-6)
        work = (new * read_back.forces[:, bond[1]]).sum(-1)
        np.testing.assert_allclose(work, (old * forces[:, bond[1]]).sum(-1), atol=2e-3)


def test_forces_without_axes_are_refused_for_a_rotated_box(
    tmp_path: Path, forces: np.ndarray
) -> None:
    basis = np.roll(CELL, 1, axis=1)
    atoms = [Atoms(NUMBERS, x * 10, cell=basis * 10, pbc=True) for x in np.roll(waters(), 1, -1)]
    ase.io.write(tmp_path / "x.extxyz", atoms)
    np.save(tmp_path / "x.forces.npy", forces)
    with pytest.raises(InputError, match="the axes of its forces are not known"):
        frames_of(open_trajectory(tmp_path / "x.extxyz"))
    note = {"units": "kJ/mol/nm"}  # written for the positions as they are read
    (tmp_path / "x.forces.json").write_text(json.dumps(note))
    read_back = frames_of(open_trajectory(tmp_path / "x.extxyz")).forces
    assert read_back is not None
    np.testing.assert_array_equal(read_back, forces)


def test_forces_of_a_named_file_are_matched_by_its_positions(dcd: Path, forces: np.ndarray) -> None:
    shifted = waters() + np.float32(0.3)  # another origin is no other configuration
    np.savez(dcd.with_name("f.npz"), positions=shifted * 10, forces=forces / 41.84, box=CELL * 10)
    source = open_trajectory(dcd, forces=dcd.with_name("f.npz"), units="A,kcal/mol")
    read_back = frames_of(source, chunk=4).forces
    assert read_back is not None
    np.testing.assert_allclose(read_back, forces, rtol=1e-6)
    np.savez(dcd.with_name("f.npz"), positions=shifted[[0, 1, 2, 3, 5, 4]], forces=forces)
    source = open_trajectory(dcd, forces=dcd.with_name("f.npz"))
    with pytest.raises(InputError, match="of frame 4 is not in the same place"):
        frames_of(source, chunk=3)


def test_solute_of_a_wet_topology(tmp_path: Path, topology: mdtraj.Topology) -> None:
    wet = mdtraj.Topology()
    residue = wet.add_residue("MET", wet.add_chain())
    atoms = [wet.add_atom(n, mdtraj.element.carbon, residue) for n in ("C1", "C2")]
    wet.add_bond(*atoms)
    for water in topology.residues:
        copy = wet.add_residue("HOH", wet.chain(0))
        new = [wet.add_atom(a.name, a.element, copy) for a in water.atoms]
        wet.add_bond(new[0], new[1])
        wet.add_bond(new[0], new[2])
    xyz = np.concatenate([[[1, 1, 1], [1.15, 1, 1]], waters()[0]])
    mdtraj.Trajectory(xyz, wet).save_pdb(str(tmp_path / "wet.pdb"))
    np.savez(tmp_path / "dry.npz", positions=np.tile(xyz[:2], (4, 1, 1)))
    write_system(tmp_path / "wet.xml", [12.011] * 2 + [15.999, 1.008, 1.008] * N_WATERS)
    source = open_trajectory(
        tmp_path / "dry.npz", topology=tmp_path / "wet.pdb", system=tmp_path / "wet.xml"
    )
    assert source.atoms is not None
    assert source.atoms.tolist() == [0, 1]
    assert source.topology.n_bonds == 1


@pytest.mark.parametrize("stale", [0, 3, 2_000_000])
def test_a_dcd_whose_header_counts_wrong_is_read(dcd: Path, stale: int) -> None:
    data = bytearray(dcd.read_bytes())
    data[8:12] = stale.to_bytes(4, "little")
    dcd.write_bytes(data)
    assert len(frames_of(open_trajectory(dcd))) == N_FRAMES


@pytest.mark.parametrize("cut", [1, 50, 70, FRAME - 1])
def test_a_truncated_dcd_names_its_last_good_frame_and_the_remedy_works(
    dcd: Path, cut: int, forces: np.ndarray
) -> None:
    data = dcd.read_bytes()
    dcd.write_bytes(data[: HEADER + 4 * FRAME + cut])
    with pytest.raises(
        InputError, match=r"frame 4 is cut .* last good frame is 3, from 0"
    ) as error:
        open_trajectory(dcd)
    size = int(str(error.value).split("truncate -s ")[1].split()[0])
    dcd.write_bytes(data[:size])
    np.save(dcd.with_name("x.forces.npy"), forces[:4])
    assert open_trajectory(dcd).n_frames == 4


@pytest.mark.parametrize("size", [0, 40, 90, 200, HEADER - 1])
def test_a_dcd_cut_in_its_header_is_refused(dcd: Path, size: int) -> None:
    dcd.write_bytes(dcd.read_bytes()[:size])
    with pytest.raises(InputError, match="header"):
        open_trajectory(dcd)


def test_a_dcd_of_openmm_tells_the_time_between_frames(
    tmp_path: Path, trajectory: mdtraj.Trajectory
) -> None:
    with (tmp_path / "x.dcd").open("wb") as file:
        top = trajectory.topology.to_openmm()
        top.setPeriodicBoxVectors(CELL * unit.nanometer)
        writer = app.DCDFile(file, top, 0.002 * unit.picoseconds, 0, 250)
        for xyz in waters().astype(float):
            writer.writeModel(xyz * unit.nanometer, periodicBoxVectors=CELL * unit.nanometer)
    trajectory[0].save_pdb(str(tmp_path / "x.pdb"))
    source = open_trajectory(tmp_path / "x.dcd")
    assert source.frame_time == pytest.approx(0.5, rel=1e-6)
    frames = frames_of(source)
    np.testing.assert_allclose(frames.positions, waters(), atol=3e-7)
    assert frames.box is not None
    np.testing.assert_allclose(frames.box[0], CELL, atol=1e-6)


def test_a_damaged_dcd_names_the_frame(dcd: Path) -> None:
    data = bytearray(dcd.read_bytes())
    data[HEADER + 2 * FRAME + 56] ^= 1
    dcd.write_bytes(data)
    with pytest.raises(InputError, match="frame 2 is damaged"):
        frames_of(open_trajectory(dcd), chunk=2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_force_that_is_no_number_names_frame_and_atom(
    dcd: Path, forces: np.ndarray, bad: float
) -> None:
    forces[4, 7, 1] = bad
    np.save(dcd.with_name("x.forces.npy"), forces)
    with pytest.raises(InputError, match=r"x\.forces\.npy: the forces of atom 7 in frame 4"):
        frames_of(open_trajectory(dcd), chunk=2)


def test_a_position_that_is_no_number_names_frame_and_atom(
    dcd: Path, trajectory: mdtraj.Trajectory
) -> None:
    trajectory.xyz[3, 2, 0] = np.nan
    trajectory.save_dcd(str(dcd))
    with pytest.raises(InputError, match=r"x\.dcd: the positions of atom 2 in frame 3"):
        frames_of(open_trajectory(dcd), chunk=2)


@pytest.mark.parametrize("edges", [[0, 1, 1], [1, -1, 1], [np.nan, 1, 1]])
def test_a_box_without_volume_names_the_frame(edges: list[float], tmp_path: Path) -> None:
    box = np.tile(np.eye(3) * 2, (N_FRAMES, 1, 1))
    box[5] = np.diag(edges)
    np.savez(tmp_path / "x.npz", positions=waters(), box=box, numbers=NUMBERS)
    with pytest.raises(InputError, match="the box of frame 5 has volume"):
        frames_of(open_trajectory(tmp_path / "x.npz"), chunk=2)


def test_a_missing_package_is_named(dcd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dcd.with_name("y.h5").touch()
    monkeypatch.setattr("deepcg.trajectory.formats.mdtraj_file.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install tables"):
        open_trajectory(dcd.with_name("y.h5"))


def test_no_topology(dcd: Path) -> None:
    dcd.with_name("x.pdb").unlink()
    with pytest.raises(InputError, match=r"no topology beside it \(x\.pdb\): give --topology"):
        open_trajectory(dcd)


def test_neither_forces_nor_system(dcd: Path) -> None:
    check_forces_available(open_trajectory(dcd))
    dcd.with_name("x.forces.npy").unlink()
    check_forces_available(open_trajectory(dcd))
    dcd.with_name("x.system.xml").unlink()
    with pytest.raises(InputError, match="--forces FILE or --system FILE"):
        check_forces_available(open_trajectory(dcd))


@pytest.mark.parametrize("what", ["trajectory", "topology", "system", "forces"])
def test_a_missing_file_is_named(dcd: Path, what: str) -> None:
    options = {"trajectory": dcd, what: dcd.with_name("not-there.dat")}
    with pytest.raises(InputError, match=r"there is no .*not-there\.dat"):
        open_trajectory(**options)


def test_wrong_numbers_of_atoms_and_frames(
    dcd: Path, trajectory: mdtraj.Trajectory, forces: np.ndarray
) -> None:
    np.save(dcd.with_name("x.forces.npy"), forces[:, :-3])
    with pytest.raises(InputError, match=r"forces on 21 atoms, .* has 24 atoms"):
        open_trajectory(dcd)
    np.save(dcd.with_name("x.forces.npy"), forces[:-1])
    with pytest.raises(InputError, match=r"forces for 5 frames, .* has 6 frames"):
        open_trajectory(dcd)
    np.save(dcd.with_name("x.forces.npy"), forces)
    write_system(dcd.with_name("x.system.xml"), [16.0, 1.0, 1.0, 0.0] * N_WATERS)
    with pytest.raises(InputError, match="has 32 particles, the topology 24 atoms"):
        open_trajectory(dcd)
    trajectory[0].atom_slice(range(21)).save_pdb(str(dcd.with_name("x.pdb")))
    with pytest.raises(InputError, match=r"x\.dcd has 24 atoms, its topology .* 21"):
        open_trajectory(dcd)


def test_a_system_in_another_order_is_refused(dcd: Path) -> None:
    write_system(dcd.with_name("x.system.xml"), [15.999] * N_WATERS + [1.008] * 2 * N_WATERS)
    with pytest.raises(InputError, match=r"atom 1 is HOH.-H1 .* mass 15.999 Da .* another order"):
        open_trajectory(dcd)
    moved_to_hydrogens = [10.0, 4.0, 4.0] * N_WATERS
    write_system(dcd.with_name("x.system.xml"), moved_to_hydrogens)
    open_trajectory(dcd)


@pytest.mark.parametrize("text", ["<State/>", "<System><Particles><Particle", "no xml at all"])
def test_a_system_that_is_none_is_refused(dcd: Path, text: str) -> None:
    dcd.with_name("x.system.xml").write_text(text)
    with pytest.raises(InputError, match="OpenMM System"):
        open_trajectory(dcd)


def test_forces_of_another_system_are_refused(dcd: Path) -> None:
    system = dcd.with_name("x.system.xml").read_bytes()
    note = {"units": "kJ/mol/nm", "system_sha256": hashlib.sha256(system).hexdigest()}
    dcd.with_name("x.forces.json").write_text(json.dumps(note))
    open_trajectory(dcd)
    dcd.with_name("x.system.xml").write_bytes(system + b"\n")
    with pytest.raises(InputError, match="computed from another System"):
        open_trajectory(dcd)


def test_forces_of_another_trajectory_are_refused(dcd: Path) -> None:
    note = {"units": "kJ/mol/nm", "trajectory_hash": file_hash(dcd)}
    dcd.with_name("x.forces.json").write_text(json.dumps(note))
    open_trajectory(dcd)
    data = bytearray(dcd.read_bytes())
    data[HEADER + 100] ^= 1
    dcd.write_bytes(data)
    with pytest.raises(InputError, match="computed from another trajectory"):
        open_trajectory(dcd)


def test_units_that_nothing_uses_are_refused(dcd: Path) -> None:
    dcd.with_name("x.forces.npy").unlink()
    with pytest.raises(InputError, match="leave out --units"):
        open_trajectory(dcd, units="A,eV")


def test_forces_alone_are_no_trajectory(dcd: Path) -> None:
    with pytest.raises(InputError, match="has no positions"):
        open_trajectory(dcd.with_name("x.forces.npy"), topology=dcd.with_name("x.pdb"))


def test_a_description_is_plain_values(dcd: Path) -> None:
    said = open_trajectory(dcd).describe()
    assert json.loads(json.dumps(said)) == said
    assert said["molecules"] == {"H2O": N_WATERS}
    assert said["frames"] == N_FRAMES


def test_a_hash_is_that_of_sha256sum_and_sees_every_part(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"some data")
    before = file_hash(tmp_path)
    assert file_hash(file) == "sha256:" + hashlib.sha256(b"some data").hexdigest()
    file.write_bytes(b"some Data")
    assert file_hash(tmp_path) != before


@pytest.mark.skipif(not (SHARED / "aimd-water").exists(), reason="needs ../shared/data/aimd-water")
def test_ab_initio_water_is_one_source() -> None:
    source = open_trajectory(SHARED / "aimd-water")
    frames = frames_of(source, chunk=150)
    assert len(frames) == 400
    assert source.describe()["molecules"] == {"H2O": 64}
    assert frames.forces is not None
    per_component = frames.forces.square().mean().sqrt().item()
    assert per_component == pytest.approx(785, abs=10)  # 0.814 eV/A
    bonds = frames.positions[:, 64:].unflatten(1, (2, 64)) - frames.positions[:, None, :64]
    assert bonds.norm(dim=-1).max() < 0.126  # whole in all frames


@pytest.mark.skipif(not (SHARED / "alanine").exists(), reason="needs ../shared/data/alanine")
def test_alanine_walkers_are_the_solute_with_weights() -> None:
    folder = SHARED / "alanine"
    source = open_trajectory(
        folder / "walker-a.npz",
        topology=folder / "alanine.pdb",
        system=folder / "alanine.system.xml",
    )
    assert source.atoms is not None
    assert source.atoms.tolist() == list(range(22))
    frames = next(iter_frames(source, chunk=100, start=12_950))
    assert len(frames) == 50
    assert frames.weights is not None
    assert (frames.weights > 0).all()


@pytest.mark.skipif(not (SHARED / "water").exists(), reason="needs ../shared/data/water")
def test_the_shared_water_is_read_as_mdtraj_reads_it() -> None:
    source = open_trajectory(SHARED / "water" / "tip3p216.dcd")
    assert source.n_frames == 2000
    frames = frames_of(source, chunk=10, start=1990)
    top = str(SHARED / "water" / "tip3p216.pdb")
    last = next(mdtraj.iterload(str(source.trajectory), top=top, chunk=10, skip=1990))
    np.testing.assert_array_equal(frames.positions, last.xyz)


def test_frames_are_read_without_asking_the_topology_again(
    dcd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of the molecules when a trajectory is opened is handed on."""
    source = open_trajectory(dcd)

    def asked(topology: mdtraj.Topology) -> None:
        raise AssertionError("the topology was asked again")

    for name in ("atoms", "bonds", "residues"):
        monkeypatch.setattr(mdtraj.Topology, name, property(asked))
    for k in range(2):
        np.testing.assert_allclose(frames_of(source).positions, waters(), atol=2e-6)
        assert len(next(iter_frames(source, chunk=1, start=k))) == 1
