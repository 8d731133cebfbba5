from __future__ import annotations

import json
import struct
from pathlib import Path

import ase.io
import mdtraj
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from deepcg.runtime.errors import InputError
from deepcg.trajectory.formats import Block, TrajectoryFile, open_trajectory_file, parse_units
from deepcg.trajectory.formats.trr import open_trr

N_FRAMES, N_ATOMS = 7, 5
EV, KCAL = 96.48533212331, 4.184
NUMBERS = np.array([8, 1, 1, 8, 6])
CELL = np.array([[2.0, 0, 0], [0.5, 1.9, 0], [-0.4, 0.3, 1.8]])


@pytest.fixture
def positions() -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 1.5, (N_FRAMES, N_ATOMS, 3)).astype(np.float32)


@pytest.fixture
def forces() -> np.ndarray:
    return np.random.default_rng(2).normal(0, 500, (N_FRAMES, N_ATOMS, 3)).astype(np.float32)


def all_of(recording: TrajectoryFile) -> Block:
    return next(recording.blocks(100, 0, recording.n_frames))


def check(
    recording: TrajectoryFile, positions: np.ndarray, forces: np.ndarray, rtol: float = 3e-7
) -> None:
    """Whole, in chunks and from the middle; float32 rounds at 6e-8, text by its digits."""
    assert (recording.n_frames, recording.n_atoms) == (N_FRAMES, N_ATOMS)
    assert recording.has_positions
    assert recording.has_forces
    whole = all_of(recording)
    assert whole.positions is not None
    assert whole.forces is not None
    np.testing.assert_allclose(whole.positions, positions, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(whole.forces, forces, rtol=rtol, atol=500 * rtol)
    parts = list(recording.blocks(2, 1, 6))
    assert [len(p.positions) for p in parts if p.positions is not None] == [2, 2, 1]
    np.testing.assert_array_equal(
        np.concatenate([p.forces for p in parts if p.forces is not None]), whole.forces[1:6]
    )
    np.testing.assert_array_equal(
        np.concatenate([p.positions for p in parts if p.positions is not None]),
        whole.positions[1:6],
    )


def test_units_are_named_pairs() -> None:
    assert parse_units("nm,kJ/mol").force == 1
    assert parse_units("A, kcal/mol").force == pytest.approx(41.84)
    assert parse_units("A,eV").force == pytest.approx(964.8533, rel=1e-7)
    assert parse_units("bohr,hartree").force == pytest.approx(49614.752, rel=1e-7)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("A", "LENGTH,ENERGY"),
        ("A,kcal", "did you mean 'kcal/mol'"),
        ("Angstrom,eV", "choices: A, bohr, nm"),
    ],
)
def test_an_unknown_unit_names_the_choices(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_units(text)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("names", [("positions", "forces"), ("coords", "Fs"), ("R", "F")])
def test_npz(save, names, tmp_path: Path, positions: np.ndarray, forces: np.ndarray) -> None:
    path = tmp_path / "x.npz"
    save(path, **{names[0]: positions * 10, names[1]: forces / 10 / KCAL, "box": CELL * 10})
    recording = open_trajectory_file(path, units="A,kcal/mol")
    check(recording, positions, forces)
    box = all_of(recording).box
    assert box is not None
    np.testing.assert_allclose(box, np.broadcast_to(CELL, (N_FRAMES, 3, 3)))


def test_npz_boxes_of_every_shape(tmp_path: Path, positions: np.ndarray) -> None:
    edges = np.array([1.0, 2.0, 3.0])
    for box in (edges, np.diag(edges), np.tile(edges, (N_FRAMES, 1)), [np.diag(edges)] * N_FRAMES):
        np.savez(tmp_path / "x.npz", positions=positions, box=box)
        read = all_of(open_trajectory_file(tmp_path / "x.npz")).box
        assert read is not None
        np.testing.assert_array_equal(read, [np.diag(edges)] * N_FRAMES)


def test_npz_bias_becomes_weights(tmp_path: Path, positions: np.ndarray) -> None:
    bias = np.arange(N_FRAMES) / 2
    np.savez(tmp_path / "x.npz", positions=positions, bias=bias, temperature=300.0)
    weights = all_of(open_trajectory_file(tmp_path / "x.npz")).weights
    assert weights == pytest.approx(np.exp((bias - bias[-1]) / (8.31446261815324e-3 * 300)))


def test_npy_is_in_the_units_given(tmp_path: Path, forces: np.ndarray) -> None:
    np.save(tmp_path / "f.npy", forces / 10 / EV)
    recording = open_trajectory_file(tmp_path / "f.npy", units="A,eV")
    assert not recording.has_positions
    np.testing.assert_allclose(all_of(recording).forces, forces, rtol=3e-7)


def test_npy_units_that_its_json_contradicts_are_refused(
    tmp_path: Path, forces: np.ndarray
) -> None:
    np.save(tmp_path / "x.forces.npy", forces)
    note = tmp_path / "x.forces.json"
    note.write_text(json.dumps({"units": "kJ/mol/nm"}))
    assert open_trajectory_file(tmp_path / "x.forces.npy").n_frames == N_FRAMES
    with pytest.raises(InputError, match="no other units"):
        open_trajectory_file(tmp_path / "x.forces.npy", units="A,eV")
    note.write_text(json.dumps({"units": "eV/A"}))
    with pytest.raises(InputError, match="'eV/A'"):
        open_trajectory_file(tmp_path / "x.forces.npy")


def write_deepmd(folder: Path, positions: np.ndarray, forces: np.ndarray, types: str) -> None:
    (folder / "set.000").mkdir(parents=True)
    (folder / "type.raw").write_text(types)
    (folder / "type_map.raw").write_text("O\nH\nC\n")
    rows = len(positions)
    np.save(folder / "set.000" / "coord.npy", positions.reshape(rows, -1) * 10)
    np.save(folder / "set.000" / "force.npy", forces.reshape(rows, -1) / 10 / EV)
    np.save(folder / "set.000" / "box.npy", np.tile(CELL.ravel() * 10, (rows, 1)))


def test_deepmd_folder_of_systems(
    tmp_path: Path, positions: np.ndarray, forces: np.ndarray
) -> None:
    write_deepmd(tmp_path / "data_0", positions[:3], forces[:3], "0 1 1 0 2")
    write_deepmd(tmp_path / "data_1", positions[3:], forces[3:], "0\n1\n1\n0\n2\n")
    recording = open_trajectory_file(tmp_path)
    assert recording.numbers is not None
    assert recording.numbers.tolist() == NUMBERS.tolist()
    check(recording, positions, forces)
    assert open_trajectory_file(tmp_path / "data_1").n_frames == 4


def test_deepmd_systems_of_different_atoms_are_refused(
    tmp_path: Path, positions: np.ndarray, forces: np.ndarray
) -> None:
    write_deepmd(tmp_path / "a", positions, forces, "0 1 1 0 2")
    write_deepmd(tmp_path / "b", positions, forces, "1 0 1 0 2")
    with pytest.raises(InputError, match="do not have the same atoms"):
        open_trajectory_file(tmp_path)
    write_deepmd(tmp_path / "c", positions, forces, "0 1 1 0")
    with pytest.raises(InputError, match=r"has shape \(7, 15\), not \(7, 12\)"):
        open_trajectory_file(tmp_path / "c")


def ase_frames(positions: np.ndarray, forces: np.ndarray, cell: np.ndarray) -> list[Atoms]:
    frames = []
    for x, f in zip(positions * 10, forces / 10 / EV, strict=True):
        atoms = Atoms(NUMBERS, x, cell=cell * 10, pbc=True)
        atoms.calc = SinglePointCalculator(atoms, forces=f.astype(float))
        frames.append(atoms)
    return frames


def test_extended_xyz(tmp_path: Path, positions: np.ndarray, forces: np.ndarray) -> None:
    ase.io.write(tmp_path / "x.xyz", ase_frames(positions, forces, CELL), format="extxyz")
    recording = open_trajectory_file(tmp_path / "x.xyz")
    check(recording, positions, forces, rtol=1e-7)  # eight decimals
    assert recording.numbers is not None
    assert recording.numbers.tolist() == NUMBERS.tolist()
    box = all_of(recording).box
    assert box is not None
    np.testing.assert_allclose(box[0], CELL, atol=1e-8)


def test_a_cut_extended_xyz_names_the_last_good_frame(
    tmp_path: Path, positions: np.ndarray, forces: np.ndarray
) -> None:
    path = tmp_path / "x.xyz"
    ase.io.write(path, ase_frames(positions, forces, CELL), format="extxyz")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-2]))
    with pytest.raises(InputError, match="truncated within frame 6; the last good frame is 5"):
        open_trajectory_file(path)
    path.write_text("".join(lines[:-1]) + lines[-1][:30])
    with pytest.raises(InputError, match=r"frame 6 cannot be read, it may be cut .* is 5, from 0"):
        list(open_trajectory_file(path).blocks(2, 0, N_FRAMES))


def test_atoms_that_change_order_are_refused(
    tmp_path: Path, positions: np.ndarray, forces: np.ndarray
) -> None:
    frames = ase_frames(positions, forces, CELL)
    frames[4] = frames[4][[1, 0, 2, 3, 4]]
    ase.io.write(tmp_path / "x.extxyz", frames, format="extxyz")
    with pytest.raises(InputError, match="the atoms of frame 4"):
        all_of(open_trajectory_file(tmp_path / "x.extxyz"))


def write_dump(path: Path, positions: np.ndarray, forces: np.ndarray, ids: bool = True) -> None:
    """Write A and kcal/mol/A in a triclinic box, the atoms shuffled in every frame."""
    rng = np.random.default_rng(3)
    (lx, _, _), (xy, ly, _), (xz, yz, lz) = CELL * 10
    low, high = min(0, xy, xz, xy + xz), max(0, xy, xz, xy + xz)
    with path.open("w") as file:
        for step, (x, f) in enumerate(zip(positions * 10, forces / 10 / KCAL, strict=True)):
            file.write(f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{N_ATOMS}\n")
            file.write("ITEM: BOX BOUNDS xy xz yz pp pp pp\n")
            file.write(
                f"{low} {lx + high} {xy}\n{min(0, yz)} {ly + max(0, yz)} {xz}\n0 {lz} {yz}\n"
            )
            file.write(f"ITEM: ATOMS {'id ' if ids else ''}element x y z fx fy fz\n")
            for atom in rng.permutation(N_ATOMS):
                symbol = {8: "O", 1: "H", 6: "C"}[NUMBERS[atom]]
                row = " ".join(f"{v:.9g}" for v in [*x[atom], *f[atom]])
                file.write(f"{f'{atom + 1} ' if ids else ''}{symbol} {row}\n")


def test_lammps_dump(tmp_path: Path, positions: np.ndarray, forces: np.ndarray) -> None:
    path = tmp_path / "x.dump"
    write_dump(path, positions, forces)
    recording = open_trajectory_file(path, units="A,kcal/mol")
    check(recording, positions, forces)
    box = all_of(recording).box
    assert box is not None
    np.testing.assert_allclose(box[0], CELL, atol=1e-12)
    assert recording.numbers is not None
    assert recording.numbers.tolist() == NUMBERS.tolist()


def test_lammps_dump_needs_units_ids_and_its_last_line(
    tmp_path: Path, positions: np.ndarray, forces: np.ndarray
) -> None:
    path = tmp_path / "x.dump"
    write_dump(path, positions, forces)
    with pytest.raises(InputError, match="give --units"):
        open_trajectory_file(path)
    text = path.read_text()
    path.write_text(text[: text.rstrip().rfind(" ")])
    with pytest.raises(InputError, match=r"frame 6 is cut or damaged .* last good frame is 5"):
        open_trajectory_file(path, units="A,eV")
    write_dump(path, positions, forces, ids=False)
    with pytest.raises(InputError, match="no column 'id'"):
        open_trajectory_file(path, units="A,eV")


def write_trr(path: Path, positions: np.ndarray, forces: np.ndarray) -> None:
    """Write by MDTraj, whose public reader leaves forces out."""
    n = len(positions)
    boxes = np.tile(CELL.astype(np.float32), (n, 1, 1))
    with mdtraj.formats.TRRTrajectoryFile(str(path), "w") as file:
        time = np.arange(n, dtype=np.float32) / 2
        lambdas = np.zeros(n, np.float32)
        file._write(positions, time, np.arange(n, dtype=np.int32), boxes, lambdas, forces, forces)


def test_gromacs_trr(tmp_path: Path, positions: np.ndarray, forces: np.ndarray) -> None:
    path = tmp_path / "x.trr"
    write_trr(path, positions, forces)
    recording = open_trajectory_file(path)
    check(recording, positions, forces, rtol=0)
    assert recording.frame_time == 0.5
    box = all_of(recording).box
    assert box is not None
    np.testing.assert_array_equal(box[3], CELL.astype(np.float32))


def trr_frame(x: np.ndarray | None, f: np.ndarray | None) -> bytes:
    """One frame in double precision by the layout of the format, without box."""
    x_bytes, f_bytes = (b"" if a is None else a.astype(">f8").tobytes() for a in (x, f))
    sizes = [0, 0, 0, 0, 0, 0, 0, len(x_bytes), 0, len(f_bytes), N_ATOMS, 0, 0]
    head = struct.pack(">3i", 1993, 13, 12) + b"GMX_trn_file"
    return head + struct.pack(">13i2d", *sizes, 0.0, 0.0) + x_bytes + f_bytes


def test_trr_frames_without_forces_are_passed_over(
    tmp_path: Path, positions: np.ndarray, forces: np.ndarray
) -> None:
    path = tmp_path / "x.trr"
    pairs = zip(positions, forces, strict=True)
    path.write_bytes(b"".join(trr_frame(x, f) + trr_frame(x + 1, None) for x, f in pairs))
    recording = open_trajectory_file(path)
    check(recording, positions, forces, rtol=0)
    assert all_of(recording).box is None
    path.write_bytes(trr_frame(positions[0], None) + trr_frame(None, forces[0]))
    with pytest.raises(InputError, match="no frame has positions and forces together"):
        open_trajectory_file(path)


@pytest.mark.parametrize("cut", [1, 60, 160, 190])
def test_a_cut_trr_names_the_last_good_frame(
    cut: int, tmp_path: Path, positions: np.ndarray, forces: np.ndarray
) -> None:
    path = tmp_path / "x.trr"
    write_trr(path, positions, forces)
    data = path.read_bytes()
    size = len(data) // N_FRAMES
    path.write_bytes(data[: 6 * size + cut])
    with pytest.raises(InputError, match=f"last good frame is 5, .*truncate -s {6 * size} "):
        open_trajectory_file(path)
    whole = all_of(open_trr(path, unfinished=True))
    np.testing.assert_array_equal(whole.forces, forces[:6])


def test_an_unknown_ending_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "x.xtcc").touch()
    with pytest.raises(InputError, match=r"'\.xtcc' are not known; did you mean '\.xtc'"):
        open_trajectory_file(tmp_path / "x.xtcc")


@pytest.mark.parametrize("ending", ["npy", "npz", "trr", "xyz", "dump", "dcd"])
def test_a_file_of_something_else_gets_one_line(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{ending}"
    path.write_text("this is not the file you are looking for\n" * 5)
    with pytest.raises(InputError) as error:
        open_trajectory_file(path, units=None if ending in ("trr", "dcd") else "A,eV")
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}, {}], dtype=object))
    with pytest.raises(InputError, match=r"is no .npy file that can be read"):
        open_trajectory_file(tmp_path / "x.npy")


@pytest.mark.parametrize("columns", ["id x y z", "id x y z q p", "id xs ys zs c_1"])
def test_a_dump_without_types_needs_a_topology_alone(columns: str, tmp_path: Path) -> None:
    rest = len(columns.split()) - 4
    rows = "".join(f"{k} 0.{k} 0.25 0.5{' 7.0' * rest}\n" for k in (2, 1, 3))
    (tmp_path / "x.dump").write_text(
        "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n3\nITEM: BOX BOUNDS pp pp pp\n"
        f"0 10\n0 10\n0 10\nITEM: ATOMS {columns}\n{rows}"
    )
    recording = open_trajectory_file(tmp_path / "x.dump", units="A,kcal/mol")
    assert recording.numbers is None
    block = all_of(recording)
    assert block.positions is not None
    scale = 1.0 if "xs" in columns else 0.1
    expected = scale * np.array([[0.1, 0.25, 0.5], [0.2, 0.25, 0.5], [0.3, 0.25, 0.5]])
    np.testing.assert_allclose(block.positions[0], expected, rtol=1e-6)
