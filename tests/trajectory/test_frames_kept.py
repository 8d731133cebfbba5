"""No frame, section or column of a text file is lost, whatever its writer puts between them."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from deepcg.runtime.errors import InputError
from deepcg.trajectory.formats import contents_of, open_forces, open_trajectory_file
from deepcg.units import KCAL

RNG = np.random.default_rng(7)
N_FRAMES = 4
SYMBOLS = ["O", "H", "H", "O", "H", "H"]
WATER = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
X = np.concatenate([WATER, WATER + np.array([0, 0, 3.0])]) + RNG.normal(
    0, 0.02, (N_FRAMES, 6, 3)
)  # A
F = RNG.normal(0, 1, (N_FRAMES, 6, 3))  # eV/A, or kcal/mol/A in dumps
LATTICE = 'Lattice="8 0 0 0 8 0 0 0 8"'
EV, ROUNDED = 96.48533212331 * 10, 1e-6  # kJ/mol/nm; the texts have six decimals


def rows(frame: int, *more: np.ndarray) -> str:
    table = np.concatenate([X[frame], *(m[frame] for m in more)], axis=1)
    lines = (
        f"{s} " + " ".join(f"{v:.6f}" for v in row) for s, row in zip(SYMBOLS, table, strict=True)
    )
    return "\n".join(lines) + "\n"


def xyz_frame(frame: int, comment: str, *more: np.ndarray) -> str:
    return f"6\n{comment}\n{rows(frame, *more)}"


def named(*names: str) -> str:
    columns = "".join(f":{name}:R:3" for name in names)
    return f"{LATTICE} Properties=species:S:1:pos:R:3{columns}"


def extxyz(between: str = "", after: str = "") -> str:
    return between.join(xyz_frame(k, named("forces"), F) for k in range(N_FRAMES)) + after


def check_frames(path: Path, units: str | None = None, force: float = EV) -> None:
    recording = open_trajectory_file(path, units=units)
    assert recording.n_frames == N_FRAMES
    block = next(recording.blocks(10, 0, N_FRAMES))
    assert block.positions is not None
    assert block.forces is not None
    assert block.box is not None
    np.testing.assert_allclose(block.positions, X / 10, atol=ROUNDED)
    np.testing.assert_allclose(block.forces, F * force, atol=force * ROUNDED)
    np.testing.assert_allclose(block.box, np.tile(0.8 * np.eye(3), (N_FRAMES, 1, 1)), atol=ROUNDED)


@pytest.mark.parametrize(
    ("between", "after"), [("\n", "\n"), ("\n\n \t\n", ""), ("", "\n\n\n"), ("", "")]
)
def test_blank_lines_between_frames_of_xyz_are_no_end(
    tmp_path: Path, between: str, after: str
) -> None:
    path = tmp_path / "x.extxyz"
    path.write_text(extxyz(between, after))
    check_frames(path)


def test_line_ends_marks_and_packing_of_xyz_change_nothing(tmp_path: Path) -> None:
    windows = ("\ufeff" + extxyz("\n")).replace("\n", "\r\n").encode()
    (tmp_path / "windows.xyz").write_bytes(windows)
    check_frames(tmp_path / "windows.xyz")
    for name in ("x.xyz.gz", "x.extxyz.gz"):
        with gzip.open(tmp_path / name, "wb") as file:
            file.write(windows)
        check_frames(tmp_path / name)
    (tmp_path / "lower.xyz").write_text(
        extxyz().replace("Lattice", "lattice").replace("Properties", "properties")
    )
    check_frames(tmp_path / "lower.xyz")


def test_a_damaged_pack_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.xyz.gz"
    packed = gzip.compress(extxyz().encode())
    path.write_bytes(packed[: len(packed) - 40])
    with pytest.raises(InputError, match="is damaged"):
        open_trajectory_file(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (extxyz(after="the end\n"), r"frame 4 does not begin .* 'the end' \(line 33\); .* is 3"),
        (extxyz(after="\0\0\0"), r"frame 4 does not begin with a number of atoms"),
        (extxyz(after="0\n\n"), r"frame 4 does not begin with a number of atoms but '0'"),
        (
            extxyz(after="3\nfewer\n" + "\n".join(rows(0).splitlines()[:3])),
            r"the atoms of frame 4 \(3\) are not those of frame 0 \(6\)",
        ),
        (
            extxyz().replace("\nO", "\n\nO", 1),
            r"line 3 is blank, after 0 of the 6 atoms of frame 0",
        ),
        ("\n\n", "has no frames"),
    ],
)
def test_what_is_left_over_in_xyz_is_told(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "x.xyz"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        open_trajectory_file(path)


@pytest.mark.parametrize("name", ["x.xyz", "x.npz", "x.npy", "x.dump"])
def test_an_empty_file_is_called_empty(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(InputError, match="is empty"):
        open_trajectory_file(tmp_path / name)


def test_a_remark_with_quotes_is_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "x.xyz"
    path.write_text("".join(xyz_frame(k, "water's box \"8") for k in range(N_FRAMES)))
    recording = open_trajectory_file(path)
    block = next(recording.blocks(10, 0, N_FRAMES))
    assert (recording.n_frames, block.box, recording.has_forces) == (N_FRAMES, None, False)
    path.write_text("".join(xyz_frame(k, "", F) for k in range(N_FRAMES)))
    assert contents_of(open_trajectory_file(path)) == "element, x, y, z, 3 columns without names"


@pytest.mark.parametrize("name", ["REF_forces", "force", "dft_forces", "MACE_forces", "forces_dft"])
def test_the_only_forces_are_read_by_whatever_name(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.extxyz"
    text = [xyz_frame(k, named("forces_std", name), np.abs(F), F) for k in range(N_FRAMES)]
    path.write_text("".join(text))
    with caplog.at_level(logging.WARNING):
        check_frames(path)
    assert (f"read from its columns {name}" in caplog.text) == (name != "force")


def test_forces_of_two_names_are_ambiguous_until_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.extxyz"
    text = [xyz_frame(k, named("forces", "REF_forces"), 2 * F, F) for k in range(N_FRAMES)]
    path.write_text("".join(text))
    with pytest.raises(InputError, match=r"forces and REF_forces: say which by --forces .*:forces"):
        open_trajectory_file(path)
    for name, factor in (("forces", 2), ("REF_forces", 1)):
        recording = open_trajectory_file(path, force_name=name)
        read = next(recording.blocks(9, 0, N_FRAMES)).forces
        assert read is not None
        np.testing.assert_allclose(read, factor * F * EV, atol=EV * ROUNDED)
    with pytest.raises(InputError, match=r"no forces 'pos_forces' .* it has species, pos, forces"):
        open_trajectory_file(path, force_name="pos_forces")


def test_names_that_are_no_forces_are_told_as_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "x.extxyz"
    names = named("gradient", "forces_std")
    path.write_text("".join(xyz_frame(k, names, F, F) for k in range(N_FRAMES)))
    recording = open_trajectory_file(path)
    assert not recording.has_forces
    assert contents_of(recording) == "species, pos, gradient, forces_std"


def dump(
    *,
    begin: str = "",
    time: float | None = None,
    order: str = "step time atoms box",
    sides: str = "pp pp pp",
    columns: str = "id type element x y z fx fy fz",
    more: str = "",
) -> str:
    """Return the text of a dump in kcal/mol/A, its atoms in another order in each frame."""
    text = begin
    for k in range(N_FRAMES):
        parts = {
            "step": f"ITEM: TIMESTEP\n{100 * k}\n",
            "time": "" if time is None else f"ITEM: TIME\n{time * k}\n",
            "atoms": "ITEM: NUMBER OF ATOMS\n6\n",
            "box": f"ITEM: BOX BOUNDS {sides}\n0 8\n0 8\n0 8\n",
        }
        text += "".join(parts[name] for name in order.split()) + more
        text += f"ITEM: ATOMS {columns}\n"
        for a in np.random.default_rng(k).permutation(6):
            values = [*(f"{v:.6f}" for v in X[k, a]), *(f"{v:.6f}" for v in F[k, a])]
            kind = {"O": 1, "H": 2}[SYMBOLS[a]]
            table = dict(zip(["x", "y", "z", "fx", "fy", "fz"], values, strict=True))
            table |= {"id": str(a + 1), "type": str(kind), "element": SYMBOLS[a]}
            table |= {"typelabel": f"{SYMBOLS[a]}W", "c_pe": "-0.5"}
            text += " ".join(table[name] for name in columns.split()) + "\n"
    return text


KCAL_A = KCAL * 10


@pytest.mark.parametrize(
    ("text", "units", "step"),
    [
        (dump(begin="ITEM: UNITS\nreal\n", time=50.0), None, 0.05),
        (dump(begin="ITEM: UNITS\nreal\n", time=50.0), "A,kcal/mol", 0.05),
        (dump(time=50.0), "A,kcal/mol", 0.05),
        (dump(), "A,kcal/mol", None),
        (dump(time=50.0, order="time step box atoms"), "A,kcal/mol", 0.05),
        (dump(more="ITEM: LABELS\nO H\nsomething else\n", time=50.0), "A,kcal/mol", 0.05),
        (dump(columns="c_pe typelabel fz fy fx id z y x element type"), "A,kcal/mol", None),
        (dump().replace("ITEM: TIMESTEP", "\n\nITEM: TIMESTEP") + "\n \n", "A,kcal/mol", None),
        (dump().replace("\n", "\r\n"), "A,kcal/mol", None),
    ],
)
def test_sections_and_columns_of_dumps_go_by_name(
    tmp_path: Path, text: str, units: str | None, step: float | None
) -> None:
    (tmp_path / "x.dump").write_bytes(text.encode())
    check_frames(tmp_path / "x.dump", units, KCAL_A)
    assert open_trajectory_file(tmp_path / "x.dump", units=units).frame_time == (
        None if step is None else pytest.approx(step)
    )
    with gzip.open(tmp_path / "x.lammpstrj.gz", "wt") as file:
        file.write(text)
    check_frames(tmp_path / "x.lammpstrj.gz", units, KCAL_A)


def test_dumps_joined_from_runs_may_say_their_units_again(tmp_path: Path) -> None:
    path = tmp_path / "x.dump"
    half = dump(begin="ITEM: UNITS\nmetal\n", time=1.0)
    path.write_text(half + half)
    assert open_trajectory_file(path).n_frames == 2 * N_FRAMES
    assert open_trajectory_file(path).frame_time is None
    path.write_text(half + dump(begin="ITEM: UNITS\nreal\n"))
    with pytest.raises(InputError, match="frame 4 is in units real, frame 0 metal"):
        open_trajectory_file(path)


@pytest.mark.parametrize("sides", ["ff ff ff", "ss ss ss", "fs mm ss"])
def test_sides_that_are_not_periodic_are_no_box(tmp_path: Path, sides: str) -> None:
    path = tmp_path / "x.dump"
    path.write_text(dump(sides=sides))
    block = next(open_trajectory_file(path, units="A,kcal/mol").blocks(9, 0, N_FRAMES))
    assert block.box is None


@pytest.mark.parametrize(
    ("text", "units", "says"),
    [
        (dump(begin="ITEM: UNITS\nreal\n"), "A,eV", r"LAMMPS units real .* --units are A,eV"),
        (dump(begin="ITEM: UNITS\nmetal\n"), "A,kcal/mol", r"LAMMPS units metal \(A,eV\)"),
        (dump(begin="ITEM: UNITS\nlj\n"), "A,eV", r"LAMMPS units 'lj', which are not read"),
        (dump(), None, "give --units"),
        (dump(sides=""), "A,eV", "does not say which sides are periodic"),
        (dump(sides="pp pp ff"), "A,eV", "periodic in some directions only"),
        (dump() + "O 1 2 3\n", "A,eV", r"after the atoms of frame 3 there is 'O 1 2 3'"),
        (dump() + "ITEM: TIMESTEP\n400\n", "A,eV", "frame 4 is cut or damaged .* TIMESTEP"),
        (dump(columns="id type element fx fy fz"), "A,eV", r"no positions .* it has id type"),
        ("ITEM: TIMESTEP\n0\nITEM: NUMBER OF ENTRIES\n2\n", "A,eV", "NUMBER OF ENTRIES"),
        (dump(time=1.0).replace("\n3.0\n", "\nnow\n"), "A,eV", "'ITEM: TIME' is 'now'"),
    ],
)
def test_dumps_that_contradict_or_leave_something_over(
    tmp_path: Path, text: str, units: str | None, says: str
) -> None:
    path = tmp_path / "x.dump"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        list(open_trajectory_file(path, units=units).blocks(9, 0, N_FRAMES))


def test_missing_forces_of_a_dump_name_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "x.dump"
    path.write_text(dump(columns="id element x y z c_pe"))
    recording = open_trajectory_file(path, units="A,eV")
    assert not recording.has_forces
    assert contents_of(recording) == "id, element, x, y, z, c_pe"


def test_a_text_of_ase_and_of_hand_are_read_alike(tmp_path: Path) -> None:
    frames = []
    for x, f in zip(X, F, strict=True):
        atoms = Atoms(SYMBOLS, x, cell=[8, 8, 8], pbc=True)
        atoms.calc = SinglePointCalculator(atoms, forces=f)
        frames.append(atoms)
    ase.io.write(tmp_path / "x.extxyz", frames)
    check_frames(tmp_path / "x.extxyz")
    recording = open_forces(tmp_path / "x.extxyz")
    assert recording.has_forces
