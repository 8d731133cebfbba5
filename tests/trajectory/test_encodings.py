"""Files whose numbers may mean several things: cells, times, periodicity, types per frame."""

from __future__ import annotations

import struct
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from mdtraj.formats import XTCTrajectoryFile
from mdtraj.utils.unitcell import box_vectors_to_lengths_and_angles
from scipy.spatial.transform import Rotation

from deepcg.forces.constraints import from_frames, maybe_held
from deepcg.runtime.errors import InputError
from deepcg.trajectory.formats import open_trajectory_file, time_note
from deepcg.trajectory.formats.dcd import open_dcd
from deepcg.trajectory.formats.dcd_cell import (
    LENGTHS_COSINES,
    LENGTHS_DEGREES,
    SHAPE_MATRIX,
    cell_reading,
)
from deepcg.trajectory.formats.deepmd import open_deepmd
from deepcg.trajectory.formats.recording import spacing
from deepcg.trajectory.formats.units import parse_units
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.precision import resolution, spread_of_distances
from deepcg.trajectory.reader import iter_frames, open_trajectory
from deepcg.trajectory.topology import MoleculeGraph

OPENMM, NAMD = ("Created by OpenMM", "Created Mon"), ("REMARKS FILENAME=o.dcd CREATED BY NAMD",)
VMD, LAMMPS = ("Created by DCD plugin", "REMARKS Created"), ("Written by LAMMPS", "REMARKS Created")
CHARMM, UNKNOWN = ("* WATER", "*  DATE:  1/ 1/20"), ("REMARK made for a test",)
TILTED = [18.6, 0.3, 18.6, -0.2, 0.25, 18.6]
WATER = np.array([[0.2, 0.3, 0.4], [0.2, 0.39, 0.42], [0.28, 0.27, 0.42]])


def write_dcd(
    path: Path,
    cells: list[list[float]],
    titles: tuple[str, ...] = UNKNOWN,
    version: int = 24,
    step: float = 0.02045482,
    every: int = 1000,
    xyz: np.ndarray = WATER,
) -> Path:
    (step_word,) = struct.unpack("<i", struct.pack("<f", step))
    control = [len(cells), every, every, 0, 0, 0, 0, 0, 0, step_word, 1, *[0] * 8, version]
    text = struct.pack("<i", len(titles)) + b"".join(t.encode().ljust(80, b"\0") for t in titles)
    records = [b"CORD" + struct.pack("<20i", *control), text, struct.pack("<i", len(xyz))]
    for k, cell in enumerate(cells):
        frame = (xyz + 0.001 * k) * 10
        records += [
            struct.pack("<6d", *cell),
            *(frame[:, i].astype("<f4").tobytes() for i in (0, 1, 2)),
        ]
    sizes = (struct.pack("<i", len(r)) for r in records)
    path.write_bytes(b"".join(s + r + s for s, r in zip(sizes, records, strict=True)))
    top = mdtraj.Topology()
    water = top.add_residue("HOH", top.add_chain())
    for _ in range(len(xyz) // 3):
        o, *hydrogens = (
            top.add_atom(name, mdtraj.element.Element.getBySymbol(name[0]), water)
            for name in ("O", "H1", "H2")
        )
        for h in hydrogens:
            top.add_bond(o, h)
    mdtraj.Trajectory(xyz.astype(np.float32), top).save_pdb(str(path.with_suffix(".pdb")))
    return path


def box_of(path: Path) -> np.ndarray:
    recording = open_dcd(path)
    box = next(recording.blocks(1, 0, 1)).box
    assert box is not None
    return box[0]


def angles_of(box: np.ndarray) -> np.ndarray:
    return np.array(box_vectors_to_lengths_and_angles(*box))[3:]


def degrees_and_cosines(angles: list[float]) -> tuple[list[float], list[float]]:
    """Return cells of 40 A with ``angles`` alpha, beta, gamma in both ways."""
    alpha, beta, gamma = angles
    a, b, g = np.cos(np.radians(angles)).tolist()
    return [40, gamma, 40, beta, alpha, 40], [40, g, 40, b, a, 40]


def shape_of(angles: list[float], length: float) -> list[float]:
    """Return CHARMM's symmetric matrix of a cell of equal lengths, A."""
    a, b, g = np.cos(np.radians(angles)).tolist()
    gram = length**2 * np.array([[1, g, b], [g, 1, a], [b, a, 1]])
    values, vectors = np.linalg.eigh(gram)
    h = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    return [h[0, 0], h[1, 0], h[1, 1], h[2, 0], h[2, 1], h[2, 2]]


@pytest.mark.parametrize(("titles", "version"), [(UNKNOWN, 36), (CHARMM, 24), (UNKNOWN, 22)])
def test_a_small_tilt_of_charmm_is_no_cosine(
    titles: tuple[str, ...], version: int, tmp_path: Path
) -> None:
    box = box_of(write_dcd(tmp_path / "t.dcd", [TILTED], titles, version))
    xx, xy, yy, xz, yz, zz = np.array(TILTED) / 10
    np.testing.assert_allclose(box, [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]], atol=1e-9)
    np.testing.assert_allclose(angles_of(box), [88.46, 91.21, 88.17], atol=0.02)


@pytest.mark.parametrize("titles", [OPENMM, NAMD, VMD, LAMMPS])
def test_the_same_numbers_are_cosines_by_other_programs(
    titles: tuple[str, ...], tmp_path: Path
) -> None:
    box = box_of(write_dcd(tmp_path / "t.dcd", [TILTED], titles))
    expected = np.degrees(np.arccos([0.25, -0.2, 0.3]))
    np.testing.assert_allclose(angles_of(box), expected, atol=1e-3)


@pytest.mark.parametrize(("titles", "version"), [(UNKNOWN, 24), (NAMD, 36)])
def test_two_readings_that_differ_are_both_named(
    titles: tuple[str, ...], version: int, tmp_path: Path
) -> None:
    path = write_dcd(tmp_path / "t.dcd", [TILTED], titles, version)
    with pytest.raises(InputError, match=r"cosines .*75\.52.* shape matrix .*88\.4"):
        box_of(path)


@pytest.mark.parametrize(
    "angles",
    [
        [109.4712, 109.4712, 109.4712],
        [60, 90, 60],
        [90, 90, 120],
        [70.53, 109.47, 70.53],
        [80, 85, 95],
    ],
)
@pytest.mark.parametrize("titles", [UNKNOWN, NAMD])
def test_cells_of_every_shape_are_read_in_degrees_and_cosines(
    angles: list[float], titles: tuple[str, ...]
) -> None:
    """40 A, 6 400 atoms: the density of water."""
    in_degrees, in_cosines = (np.array([c]) for c in degrees_and_cosines(angles))
    for cells, name in ((in_degrees, LENGTHS_DEGREES), (in_cosines, LENGTHS_COSINES)):
        reading = cell_reading(cells, 4000, 24, NAMD if name == LENGTHS_COSINES else titles)
        assert (reading.name, reading.doubt) == (name, None)
        np.testing.assert_allclose(angles_of(reading.vectors(cells)[0]), angles, atol=1e-4)


@pytest.mark.parametrize("length", [30.0, 60.0, 120.0])
@pytest.mark.parametrize(
    "angles", [[109.4712, 109.4712, 109.4712], [60, 90, 60], [60, 60, 60], [90, 90, 120]]
)
def test_a_shape_matrix_of_large_tilt_needs_no_title(angles: list[float], length: float) -> None:
    cell = np.array([shape_of(angles, length)])
    reading = cell_reading(cell, int(70 * (length / 10) ** 3), 24, UNKNOWN)
    assert (reading.name, reading.doubt) == (SHAPE_MATRIX, None)
    np.testing.assert_allclose(angles_of(reading.vectors(cell)[0]), angles, atol=1e-3)


@pytest.mark.parametrize("angles", [[91.3, 61.7, 44.4], [100, 45, 70], [30, 80, 75]])
@pytest.mark.parametrize(("titles", "version"), [(CHARMM, 36), (CHARMM, 24), (UNKNOWN, 36)])
def test_a_sharp_shape_matrix_is_one_where_charmm_wrote_it(
    angles: list[float], titles: tuple[str, ...], version: int
) -> None:
    cell = np.array([shape_of(angles, 30.0)])
    reading = cell_reading(cell, 375, version, titles)
    assert (reading.name, reading.doubt) == (SHAPE_MATRIX, None)
    np.testing.assert_allclose(angles_of(reading.vectors(cell)[0]), angles, atol=1e-3)


@pytest.mark.parametrize("length", [18.6, 95.0, 400.0])
@pytest.mark.parametrize("third", [0.0, 90.0, 1e-9])
@pytest.mark.parametrize("version", [24, 36])
def test_a_right_angled_cell_is_one_in_any_reading(
    length: float, third: float, version: int
) -> None:
    cell = np.array([[length, third, length, third, third, length]])
    reading = cell_reading(cell, 648, version, UNKNOWN)
    assert reading.doubt is None
    np.testing.assert_allclose(reading.vectors(cell)[0], np.eye(3) * length / 10, atol=1e-7)


def test_one_damaged_cell_does_not_change_the_reading() -> None:
    cells = np.array([TILTED] * 5 + [[18.6, 7e30, 18.6, 0, 0, 18.6]])
    assert cell_reading(cells, 648, 24, LAMMPS).name == LENGTHS_COSINES


@pytest.mark.parametrize(
    "cell", [[0.0] * 6, [1, 0, 1, 0, 0, 1], [1, 90, 1, 90, 90, 1], [0, 90, 0, 90, 90, 0]]
)
def test_a_placeholder_is_no_cell(cell: list[float], tmp_path: Path) -> None:
    source = open_trajectory(write_dcd(tmp_path / "t.dcd", [cell] * 3))
    assert source.describe()["box_nm"] is None
    assert next(iter_frames(source)).box is None


def test_a_box_that_comes_and_goes_is_refused(tmp_path: Path) -> None:
    cells = [[20.0, 0, 20, 0, 0, 20], [0.0] * 6, [0.0] * 6]
    source = open_trajectory(write_dcd(tmp_path / "t.dcd", cells))
    with pytest.raises(InputError, match="frame 0 has a box, frame 1 has none"):
        next(iter_frames(source))
    with pytest.raises(InputError, match="frame 1 has no box, unlike"):
        list(iter_frames(source, chunk=1))


@pytest.mark.filterwarnings("ignore:Warning. The .netCDF4")
@pytest.mark.parametrize("ending", ["xtc", "trr", "gro", "nc", "h5"])
@pytest.mark.parametrize("length", [0.0, 0.1])
def test_placeholders_of_other_formats_are_no_box(
    ending: str, length: float, tmp_path: Path
) -> None:
    if ending == "h5":
        pytest.importorskip("tables")
    topology = mdtraj.load(str(write_dcd(tmp_path / "w.dcd", [[0.0] * 6]).with_suffix(".pdb")))
    xyz = np.stack([WATER, WATER + 0.01]).astype(np.float32)
    frames = mdtraj.Trajectory(xyz, topology.topology, time=np.arange(2.0))
    frames.unitcell_lengths = np.full((2, 3), length)
    frames.unitcell_angles = np.full((2, 3), 90.0)
    path = tmp_path / f"t.{ending}"
    frames.save(str(path))
    source = open_trajectory(path, topology=tmp_path / "w.pdb")
    assert next(iter_frames(source)).box is None


@pytest.mark.parametrize(
    ("titles", "step", "every", "time"),
    [
        (LAMMPS, 1.0, 500, 0.5),
        (LAMMPS, 1.0, 1, 0.001),
        (LAMMPS, 0.25, 40, 0.01),
        (OPENMM, 2 / 48.88821, 500, 1.0),
        (NAMD, 40 / 48.88821, 25, 1.0),
        (UNKNOWN, 1 / 48.88821, 1000, 1.0),
        (CHARMM, 20 / 48.88821, 50, 1.0),
        (VMD, 1.0, 1, None),
        (LAMMPS, 0.001, 100, None),
        (UNKNOWN, 1.0, 500, None),
        (UNKNOWN, 2.0, 500, None),
    ],
)
def test_the_unit_of_a_dcds_time(
    titles: tuple[str, ...], step: float, every: int, time: float | None, tmp_path: Path
) -> None:
    path = write_dcd(tmp_path / "t.dcd", [TILTED], titles, step=step, every=every)
    found = open_dcd(path)
    assert found.frame_time == (None if time is None else pytest.approx(time, rel=1e-5))
    assert (found.time_note is None) == (time is not None or titles is VMD)


def test_times_are_even_within_the_rounding_of_float32() -> None:
    assert spacing(np.arange(1000, dtype=np.float32) * 0.1 + 1e5).step == pytest.approx(0.1, 1e-3)
    assert spacing(np.float32(1e6) + np.arange(50, dtype=np.float32) * 2).step == pytest.approx(2)
    assert spacing(np.zeros(5)).note is None
    assert spacing(np.zeros(1)).step is None


@pytest.mark.parametrize(
    ("times", "says"),
    [
        ([0, 100, 101, 102, 103, 104], "not evenly spaced.*100 ps in frame 1"),
        ([0, 1, 2, 0, 1, 2], "does not go on: 2 ps in frame 2, 0 ps in frame 3"),
        ([0, 1, 2, 2, 3, 4], "does not go on: 2 ps in frame 2, 2 ps in frame 3"),
        ([0, 1, 2, 3, 5, 6], "not evenly spaced.*3 ps in frame 3, 5 ps in frame 4"),
    ],
)
def test_every_interval_is_looked_at(times: list[float], says: str, tmp_path: Path) -> None:
    path = tmp_path / "t.xtc"
    with XTCTrajectoryFile(str(path), "w") as file:
        xyz = np.random.default_rng(1).uniform(0, 1, (len(times), 12, 3)).astype(np.float32)
        file.write(xyz, time=np.array(times, np.float32))
    recording = open_trajectory_file(path)
    assert recording.frame_time is None
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(time_note(recording))


def deepmd(folder: Path, types: list[list[int]], **arrays: np.ndarray) -> Path:
    inside = folder / "set.000000"
    inside.mkdir(parents=True)
    (folder / "type.raw").write_text("0\n0\n0\n")
    (folder / "type_map.raw").write_text("O\nH\n")
    np.save(inside / "coord.npy", np.tile(WATER.ravel() * 10, (2, 1)))
    if types:
        np.save(inside / "real_atom_types.npy", np.array(types))
    for name, array in arrays.items():
        np.save(inside / f"{name}.npy", array)
    return folder


def test_deepmd_mixed_has_types_in_its_frames(tmp_path: Path) -> None:
    folder = deepmd(tmp_path / "m", [[0, 1, 1], [0, 1, 1]])
    numbers = open_deepmd(folder, parse_units("A,eV")).numbers
    assert numbers is not None
    assert numbers.tolist() == [8, 1, 1]


@pytest.mark.parametrize(
    ("types", "says"),
    [
        ([[0, 1, 1], [1, 0, 1]], "atom 0 is of type 1 in frame 1 but 0 in the first"),
        ([[0, 1, -1], [0, 1, -1]], "virtual atoms"),
        ([[0, 1], [0, 1]], r"shape \(2, 2\)"),
        ([[0, 1, 2], [0, 1, 2]], "types beyond"),
    ],
)
def test_deepmd_mixed_of_other_compositions_is_refused(
    types: list[list[int]], says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        open_deepmd(deepmd(tmp_path / "m", types), parse_units("A,eV"))


@pytest.mark.parametrize("box", [np.zeros((2, 9)), np.tile(100 * np.eye(3).ravel(), (2, 1)), None])
def test_nopbc_is_no_box_whatever_box_there_is(box: np.ndarray | None, tmp_path: Path) -> None:
    folder = deepmd(tmp_path / "m", [[0, 1, 1]] * 2, **({} if box is None else {"box": box}))
    (folder / "nopbc").touch()
    assert next(open_deepmd(folder, parse_units("A,eV")).blocks(2, 0, 2)).box is None


def test_nopbc_of_one_system_among_others_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        deepmd(tmp_path / name, [[0, 1, 1]] * 2, box=np.tile(20 * np.eye(3).ravel(), (2, 1)))
    (tmp_path / "b" / "nopbc").touch()
    with pytest.raises(InputError, match="nopbc"):
        open_deepmd(tmp_path, parse_units("A,eV"))


def liquid(tmp_path: Path, cell: list[float], spacing_nm: float = 0.31) -> Path:
    """125 waters on a lattice, at 1 g/cm^3 for 0.31 nm; CRYST1 as given by ``cell``, nm."""
    places = spacing_nm * np.array(
        [[i, j, k] for i in range(5) for j in range(5) for k in range(5)]
    )
    xyz = (places[:, None] + WATER).reshape(-1, 3)
    path = write_dcd(tmp_path / "t.dcd", [[0.0] * 6], xyz=xyz)
    frame = mdtraj.load(str(path.with_suffix(".pdb")))
    top = mdtraj.Topology()
    chain = top.add_chain()
    for _ in range(125):
        water = top.add_residue("HOH", chain)
        o, *hs = (
            top.add_atom(n, mdtraj.element.Element.getBySymbol(n[0]), water)
            for n in ("O", "H1", "H2")
        )
        for h in hs:
            top.add_bond(o, h)
    lengths = [cell] if cell else None
    angles = [[90.0] * 3] if cell else None
    mdtraj.Trajectory(frame.xyz, top, None, lengths, angles).save_pdb(str(path.with_suffix(".pdb")))
    return path


@pytest.mark.parametrize("cell", [[], [1.55, 1.56, 1.57]])
def test_a_liquid_without_a_box_is_told_and_offered_that_of_the_topology(
    cell: list[float], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = liquid(tmp_path, cell)
    assert open_trajectory(path).describe()["box_nm"] is None
    (line,) = (record.getMessage() for record in caplog.records)
    assert "no box" in line
    assert ("--box topology" in line) == bool(cell)
    assert ("1.5500 1.5600 1.5700" in line) == bool(cell)


def test_a_gas_or_a_few_molecules_need_no_box(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_trajectory(liquid(tmp_path, [], spacing_nm=0.6))
    open_trajectory(write_dcd(tmp_path / "w.dcd", [[0.0] * 6]))
    assert not caplog.records


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("topology", np.diag([1.55, 1.56, 1.57])),
        ("1.6,1.7,1.8", np.diag([1.6, 1.7, 1.8])),
        ("2 2 2 90 90 60", [[2, 0, 0], [1, 1.7320508, 0], [0, 0, 2]]),
        ("2,0,0,.1,2,0,.2,.3,2", [[2, 0, 0], [0.1, 2, 0], [0.2, 0.3, 2]]),
    ],
)
def test_a_box_that_is_given_is_that_of_all_frames(
    text: str, expected: list[list[float]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = open_trajectory(liquid(tmp_path, [1.55, 1.56, 1.57]), box=text)
    box = next(iter_frames(source)).box
    assert box is not None
    lattice = np.linalg.solve(np.array(expected, float).T, box[0].double().numpy().T)
    np.testing.assert_allclose(lattice, np.rint(lattice), atol=2e-4)
    np.testing.assert_allclose(np.linalg.det(box[0].numpy()), np.linalg.det(expected), rtol=1e-4)
    assert not caplog.records


def test_a_box_that_is_given_settles_a_doubtful_cell_and_replaces_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    doubtful = write_dcd(tmp_path / "a.dcd", [TILTED])
    assert open_trajectory(doubtful, box="2,2,2").describe()["box_nm"] is not None
    assert not caplog.records
    other = write_dcd(tmp_path / "b.dcd", [[20.0, 0, 20, 0, 0, 20]])
    open_trajectory(other, box="3,3,3")
    assert "takes the place of its own box, 2.0000 2.0000 2.0000 nm" in caplog.text


@pytest.mark.parametrize("text", ["1,2", "1,1,0", "a,b,c", "1,1,1,10,30,120", "nan,1,1"])
def test_what_is_no_box_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--box"):
        open_trajectory(write_dcd(tmp_path / "a.dcd", [TILTED]), box=text)


def test_a_topology_without_a_cell_gives_no_box(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="says no box"):
        open_trajectory(liquid(tmp_path, []), box="topology")


@pytest.mark.parametrize("step", [0.01, 0.02, 0.004, 0.001, 0.0001])
def test_the_step_of_rounded_positions_is_found(step: float) -> None:
    exact = np.random.default_rng(3).uniform(-3, 3, (50, 3))
    rounded = (step * np.rint(exact / step)).astype(np.float32)
    assert resolution(rounded) == step
    assert resolution(exact.astype(np.float32)) == 0
    assert resolution(rounded[:2]) == 0
    spread = spread_of_distances(step)
    pairs = np.linalg.norm(rounded[1:] - rounded[0], axis=-1)
    off = (pairs - np.linalg.norm(exact[1:] - exact[0], axis=-1)).std()
    assert off < 3 * spread


def rigid_water(n_frames: int, step: float, softness: float) -> tuple[MoleculeGraph, Frames]:
    """Return 8 waters that turn, bonds that swing by ``softness``, nm, rounded to ``step``."""
    random = np.random.default_rng(5)
    turns = Rotation.random(n_frames * 8, random).as_matrix().reshape(n_frames, 8, 3, 3)
    xyz = np.einsum("fwij,aj->fwai", turns, WATER - WATER[0])
    xyz = xyz * (1 + random.normal(0, softness / 0.1, (n_frames, 8, 3, 1)))
    xyz = (xyz + random.uniform(0, 2, (1, 8, 1, 3))).reshape(n_frames, 24, 3)
    xyz = step * np.rint(xyz / step)
    numbers = np.array([8, 1, 1] * 8)
    pairs = np.array([[3 * k, 3 * k + h] for k in range(8) for h in (1, 2)])
    top = mdtraj.Topology()
    chain = top.add_chain()
    for _ in range(8):
        water = top.add_residue("HOH", chain)
        for name in ("O", "H1", "H2"):
            top.add_atom(name, mdtraj.element.Element.getBySymbol(name[0]), water)
    for a, b in pairs.tolist():
        top.add_bond(top.atom(a), top.atom(b))
    types = torch.from_numpy(numbers)
    return MoleculeGraph(top), Frames(
        torch.from_numpy(xyz.astype(np.float32)), None, None, types, None
    )


@pytest.mark.parametrize("step", [0.01, 0.005, 0.02])
@pytest.mark.parametrize("n_frames", [6, 100])
def test_coarse_positions_leave_bonds_in_doubt(step: float, n_frames: int) -> None:
    """A bond passes for free where its spread is 2 standard errors too high: 2 % of 16."""
    graph, sample = rigid_water(n_frames, step, 0)
    assert not from_frames(graph, sample)
    assert len(maybe_held(graph, sample, step)) >= 7


def test_fine_positions_leave_none() -> None:
    graph, sample = rigid_water(100, 0.001, 0)
    assert len(maybe_held(graph, sample, 0.001)) == 8
    graph, sample = rigid_water(100, 0.001, 0.0023)
    assert not maybe_held(graph, sample, 0.001)
    graph, sample = rigid_water(100, 0.01, 0.02)
    assert not maybe_held(graph, sample, 0.01)
