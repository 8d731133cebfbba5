"""Files of other programs are called by their names, and what to give instead is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from paths import SHARED

from deepcg.runtime.errors import InputError
from deepcg.trajectory.formats import open_trajectory_file, other_kind
from deepcg.trajectory.topology_file import load_topology
from deepcg.workflow.info import describe

GRID = "# 2\n# -180 10 36 1\n# 0 0.5 4 0\n\n -175 0.25 1.5\n"
KINDS = [
    ("COLVAR", "#! FIELDS time phi opes.bias\n 0.0 1.0 2.0\n", "COLVAR of PLUMED", "--bias"),
    ("colvar.0.dat", "#! FIELDS time phi\n 0.0 1.0\n", "COLVAR of PLUMED", "has no bias"),
    ("HILLS", "#! FIELDS time s sigma_s height biasf\n 1 0 1 1 8\n", "HILLS of PLUMED", "rbias"),
    ("fes.dat", "#! FIELDS s file.free\n#! SET nbins_s 9\n 0 1\n", "grid of PLUMED", "fes"),
    ("out.pmf", GRID, "free energies of Colvars", "fes.npz"),
    ("x.czar.pmf", GRID, "free energies of Colvars", "fes.npz"),
    ("x.grad", GRID, "mean gradients of Colvars", "fes.npz"),
    ("x.count", GRID, "histogram of Colvars", "fes.npz"),
    ("x.colvars.traj", "# step         phi\n 0  1.0\n", "trajectory of Colvars", "bias"),
    ("x.colvars.state", "configuration {\n  step 5\n}\n", "state of Colvars", "trajectory"),
    ("energy.xvg", '# gmx\n@    title "E"\n@TYPE xy\n 0 1\n', "graph of GROMACS", ".trr"),
    ("md.mdp", "; run\nintegrator = md\nnsteps = 5\n", "parameters of GROMACS", ".trr"),
    ("md.log", "   :-) GROMACS - gmx mdrun\n", "log of GROMACS", ".trr"),
    ("topol.top", "[ defaults ]\n1 2\n", "topology of GROMACS", "--topology"),
    ("log.lammps", "LAMMPS (2 Aug 2023)\n", "log of LAMMPS", "dump"),
    ("in.water", "units real\natom_style full\n", "input of LAMMPS", "dump"),
    ("water.data", "LAMMPS data\n\n6 atoms\n2 atom types\n", "data of LAMMPS", "dump"),
    ("md.in", "run\n &cntrl\n  ntx=1\n /\n", "input or output of AMBER", "ntwf"),
    ("water.inp", "&GLOBAL\n PROJECT w\n&END\n", "input of CP2K", "-frc-1.xyz"),
    ("cp2k.out", " DBCSR| CPU Multiplication driver\n", "output of CP2K", "--forces"),
    ("w-1.ener", "# Step Nr.   Time[fs]  Kin.[a.u.]\n", "energies of CP2K", "-pos-1.xyz"),
    ("x.dat", '#"Step","Potential Energy (kJ/mole)"\n1,2\n', "log of OpenMM", ".dcd"),
]
BYTES = [
    ("a.cpt", (171817).to_bytes(4, "big") + b"\0" * 9, "checkpoint of GROMACS"),
    ("renamed", (171817).to_bytes(4, "big") + b"\0" * 9, "checkpoint of GROMACS"),
    ("ener.edr", (-55555).to_bytes(4, "big", signed=True) + b"\0" * 9, "energies of GROMACS"),
    ("topol.tpr", b"\0\0\0\x0d\0\0\0\x0cVERSION 2023\0\0\0", "run input of GROMACS"),
    ("x.tpr", b"\0\1\2\3", r"run input of GROMACS (by its name)"),
    ("x.chk", b"\0\1\2\3", r"checkpoint of a simulation (by its name)"),
    ("x.top7", b"%VERSION  VERSION_STAMP = V0001.000\n%FLAG TITLE\n", "topology of AMBER"),
]


@pytest.mark.parametrize(("name", "text", "kind", "use"), KINDS)
def test_texts_are_known_by_what_is_in_them(
    tmp_path: Path, name: str, text: str, kind: str, use: str
) -> None:
    for content in (text, text.replace("\n", "\r\n")):
        (tmp_path / name).write_bytes(content.encode())
        other = other_kind(tmp_path / name)
        assert other is not None
        assert other.kind.startswith(kind)
        assert use in other.use
        assert describe(tmp_path / name)["kind"] == other.kind
        with pytest.raises(InputError, match=f"is no trajectory but {kind}"):
            open_trajectory_file(tmp_path / name)


@pytest.mark.parametrize(("name", "begin", "kind"), BYTES)
def test_others_are_known_by_their_first_bytes_or_name(
    tmp_path: Path, name: str, begin: bytes, kind: str
) -> None:
    (tmp_path / name).write_bytes(begin)
    assert describe(tmp_path / name)["kind"] == kind


def test_tables_and_grids_tell_what_they_hold(tmp_path: Path) -> None:
    (tmp_path / "x.pmf").write_text(GRID)
    facts = describe(tmp_path / "x.pmf")
    assert (facts["bins"], facts["periodic"]) == ([36, 4], [True, False])
    (tmp_path / "COLVAR").write_text("#! FIELDS time a.bias\n 0.0 1.0\n 0.5 2.0\n")
    facts = describe(tmp_path / "COLVAR")
    assert (facts["rows"], facts["time_ps"]) == (2, [0.0, 0.5])
    assert facts["columns"] == ["time", "a.bias"]
    assert "(it has a.bias)" in facts["use"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("notes", "bread and butter\n"), ("x.abc", "1 2 3\n"), ("y.abc", b"\0\1\2"), ("z.abc", "")],
)
def test_the_rest_is_not_recognised(tmp_path: Path, name: str, content: str | bytes) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(data)
    assert other_kind(tmp_path / name) is None
    with pytest.raises(InputError, match="are not known"):
        describe(tmp_path / name)


REPORTED = SHARED / "reported"


@pytest.mark.skipif(not REPORTED.exists(), reason="needs ../shared/data/reported")
def test_reported_files_are_recognised() -> None:
    kinds = {name: describe(REPORTED / name)["kind"] for name in ("COLVAR", "HILLS", "out.pmf")}
    assert kinds == {
        "COLVAR": "COLVAR of PLUMED",
        "HILLS": "HILLS of PLUMED",
        "out.pmf": "free energies of Colvars",
    }


@pytest.mark.parametrize(
    ("name", "magic", "says"),
    [
        ("x.mdcrd.bz2", b"BZh91AY&SY", "bzip2: unpack it first, 'bunzip2 -k"),
        ("x.gro.gz", b"\x1f\x8b\x08\0\0\0\0", "gzip: unpack it first, 'gunzip -k"),
        ("x.dcd.xz", b"\xfd7zXZ\0\0", "xz: unpack it first, 'unxz -k"),
    ],
)
def test_packed_files_are_to_be_unpacked(
    name: str, magic: bytes, says: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(magic + b"\0" * 90)
    with pytest.raises(InputError, match=f"is no trajectory but a file packed by {says}"):
        open_trajectory_file(path)
    with pytest.raises(InputError, match=f"is no topology that can be read but a .* by {says}"):
        load_topology(path)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.top", "%VERSION  VERSION_STAMP = V0001.000\n%FLAG TITLE\n", "AMBER: .*ending .prmtop"),
        ("y.top", "[ moleculetype ]\n", "but topology of GROMACS: give the .gro"),
        ("x.data", " 3 atom types\n", "but data of LAMMPS"),
        ("x.foo", "nothing\n", r"files '\.foo' are not known \(choices: .*\.prmtop"),
    ],
)
def test_what_is_no_topology_is_called_by_its_name(
    name: str, text: str, says: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        load_topology(path)
