"""Files of many programs, as MDAnalysis ships them: read as MDAnalysis does, or refused rightly.

They come with the packages of the extra ``realfiles``; without these the file is skipped.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepcg.runtime.errors import InputError
from deepcg.trajectory.formats import TrajectoryFile
from deepcg.trajectory.formats.dcd import open_dcd
from deepcg.trajectory.reader import Trajectory, iter_frames, open_trajectory


@contextmanager
def quietly() -> Iterator[None]:
    """Silence MDAnalysis, which warns of every attribute that a file lacks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


with quietly():
    MDAnalysis = pytest.importorskip("MDAnalysis", reason="needs the extra realfiles")
    shipped = pytest.importorskip("MDAnalysisTests", reason="needs the extra realfiles")
    from MDAnalysis.guesser.default_guesser import DefaultGuesser

DATA = Path(shipped.__file__).parent / "data"
LEAST = 35


@dataclass(frozen=True)
class Read:
    """A file that both read.

    ``peer`` is the file that MDAnalysis reads in its place, and ``reader`` the format that it has
    to be told. ``guessed`` are elements, ours and those of MDAnalysis, that differ since the latter
    guesses: from names alone, and of no virtual site. ``untimed`` says why the file does not tell
    a time where MDAnalysis gives one, ``bonded`` why our molecules are not those of its bonds,
    ``fewer`` how many atoms are alternate locations, which MDAnalysis reads as atoms, ``uncelled``
    why MDAnalysis has no cell where we have one, ``moved`` why it has another origin.
    """

    file: str
    topology: str | None = None
    units: str | None = None
    peer: str | None = None
    reader: str | None = None
    guessed: tuple[tuple[str, str], ...] = ()
    untimed: str | None = None
    bonded: str | None = None
    fewer: int = 0
    uncelled: str | None = None
    moved: str | None = None


@dataclass(frozen=True)
class Refused:
    """A file that is refused, and a pattern of the one line that says why."""

    file: str
    message: str
    topology: str | None = None
    units: str | None = None


SITES = (("", "Dummy"),)  # MW of TIP4P
CONECT = "CONECT of a .pdb tells ligands and bridges alone, residues are bonded by their names"
MODELS = "models are no times"
DEFAULT = "no times in the file: 1 ps is a default"

READ = [
    # CHARMM, NAMD, VMD, MDAnalysis
    Read("adk_dims.dcd", "adk.psf"),
    Read("adk_dims2.dcd", "adk.psf", untimed="a step of 1 ps is in no known unit"),
    Read("tip125_tric_C36.dcd", "tip125_tric_C36.psf"),
    Read("adk_gbis_tmd-fast1_NAMD.dcd", "adk.psf"),
    Read("adk_gbis_tmd-fast1_NAMD.dcd", "adk_closed_NAMD.psf"),
    Read("watdyn.dcd", "watdyn.psf"),
    Read("namd_cgenff.pdb"),
    # GROMACS
    Read("adk_oplsaa.gro", guessed=SITES),
    Read("adk_oplsaa.xtc", "adk_oplsaa.gro", guessed=SITES),
    Read("adk_oplsaa.trr", "adk_oplsaa.gro", guessed=SITES),
    Read("adk_oplsaa.trr", "adk_oplsaa.pdb", guessed=SITES),
    Read("cobrotoxin.xtc", "cobrotoxin.pdb", guessed=SITES),
    Read("cobrotoxin.trr", "cobrotoxin.pdb", guessed=SITES),
    Read("xyz_random_walk.xtc", "RANDOM_WALK_TOPO.pdb"),
    Read("two_water_gro.gro"),
    Read("two_water_gro_widebox.gro"),
    Read("capping/aaqaa.gro"),
    # AMBER
    Read("Amber/ache.mdcrd", "Amber/ache.prmtop", untimed=DEFAULT),
    Read("windows/WIN_ache.mdcrd", "Amber/ache.prmtop", untimed=DEFAULT),
    Read("Amber/ace_tip3p.nc", "Amber/ace_tip3p.parm7"),
    Read("Amber/ace_mbondi3.nc", "Amber/ace_mbondi3.parm7"),
    Read("Amber/bala.ncdf", "Amber/bala.prmtop", untimed="all its times are 0"),
    Read("Amber/cpptraj_traj.nc", "Amber/cpptraj_traj.prmtop", untimed=DEFAULT),
    Read(
        "Amber/parmed_ala2_solv.rst7",
        "Amber/parmed_ala2_solv.parm7",
        reader="INPCRD",
        uncelled="its reader of restart files reads no box",
    ),
    # LAMMPS
    Read(
        "lammps/mass_q_elem.lammpstrj",
        units="A,kcal/mol",
        reader="LAMMPSDUMP",
        moved="it subtracts the lower corner of the box",
    ),
    # the Protein Data Bank
    Read("1grm_single.pdb"),
    Read("1hvr.pdb", bonded=CONECT),
    Read("1osm.pdb.gz"),
    Read("1a28.pdb.gz", bonded=CONECT),
    Read("19hc.pdb.gz", bonded=CONECT, fewer=77),
    Read("4E43.pdb", bonded=CONECT, fewer=34),
    Read("5a7u.pdb", bonded=CONECT),
    Read("mmcif/3KPR.pdb.gz", bonded=CONECT),
    Read("mmcif/3KPR.cif.gz", peer="mmcif/3KPR.pdb.gz", bonded=CONECT),
    Read("nmr_neopetrosiamide.pdb", untimed=MODELS, bonded=CONECT),
    # CHARMM-GUI, PyMOL, Maestro and others
    Read("adk_open.pdb"),
    Read("adk_closed.pdb"),
    Read("A6PA6_alpha.pdb"),
    Read("capping/maestro_aaqaa_capped.pdb"),
    Read("charges.pdb"),
    Read("fullerene.pdb.gz"),
    Read("gromos11/gromos11_traj_vac.pdb.gz", untimed=MODELS, bonded=CONECT),
    Read("gromos11/gromos11_traj_solv.pdb.gz", untimed=MODELS, bonded=CONECT),
]

NO_ELEMENTS = "does not say what its atoms are and there is no topology beside it"
NOT_KNOWN = r"files '{}' are not known.*choices: .*\.xtc"

REFUSED = [
    # formats that are not read
    Refused("cobrotoxin.h5md", NOT_KNOWN.format(r"\.h5md"), "cobrotoxin.pdb"),
    Refused("argon_npt_compressed.tng", NOT_KNOWN.format(r"\.tng")),
    Refused("trzfile.trz", NOT_KNOWN.format(r"\.trz")),
    Refused("adk_closed.dms", NOT_KNOWN.format(r"\.dms")),
    Refused("173D.mmtf", NOT_KNOWN.format(r"\.mmtf")),
    Refused("1A2C.pqr", NOT_KNOWN.format(r"\.pqr")),
    Refused("adk_open.coor", NOT_KNOWN.format(r"\.coor")),
    Refused("example.gsd", NO_ELEMENTS),
    Refused("adk_oplsaa.tpr", "no trajectory but run input of GROMACS"),
    Refused("tprs/2lyz_gmx_2026_0.tpr", "no trajectory but run input of GROMACS"),
    Refused("test.edr", "no trajectory but energies of GROMACS"),
    Refused("test.xvg", "no trajectory but graph of GROMACS"),
    Refused("lammps/mini.data", "no trajectory but data of LAMMPS"),
    Refused("adk_open.crd", "does not appear to be a valid mdcrd file"),  # cards of CHARMM
    # packed, or of another name
    Refused("Amber/tz2.truncoct.nc", "packed by bzip2: unpack it", "Amber/tz2.truncoct.parm7.bz2"),
    Refused("Amber/capped-ala.mdcrd.bz2", "packed by bzip2: unpack", "Amber/capped-ala.prmtop"),
    Refused("analysis/YiiP_lipids.xtc", "by gzip: unpack it", "analysis/YiiP_lipids.gro.gz"),
    Refused("argon_npt_compressed.gro.gz", "packed by gzip: unpack it first"),
    Refused("Amber/posfor.ncdf", r"topology of AMBER: .*\.prmtop", "Amber/posfor.top"),
    Refused("cryst_then_model.pdb.gz", "Not a gzipped file"),
    # elements that nothing tells
    Refused("lammps/albite_triclinic.dump", NO_ELEMENTS, units="A,kcal/mol"),
    Refused("lammps/chain_dump_1.lammpstrj", NO_ELEMENTS, units="A,kcal/mol"),
    Refused("lammps/image_vf.lammpstrj", NO_ELEMENTS, units="A,kcal/mol"),
    Refused("lammps/additional_columns.lammpstrj", NO_ELEMENTS, units="A,kcal/mol"),
    Refused("lammps/nomass_elemx.lammpstrj", NO_ELEMENTS, units="A,kcal/mol"),
    Refused("lammps/albite_triclinic.dump", "does not say its units: give --units"),
    Refused("mini.xyz", "'A' is the label of no element"),
    Refused("CONECT2TER.pdb", r"atom 0 \(CA of ABC\) may be Ca or C"),
    Refused("dppc_vesicle_hg.gro", r"atom 0 \(PO4 of DPPC\) has no element that a name tells"),
    Refused("martini_dppc_chol_bilayer.gro", r"\(GL1 of DPPC\) has no element that a name tells"),
    # damaged or made up
    Refused("SiN_tric_namd.dcd", "SIN198-SIE .* CLA57-CLA .* 0.287 nm apart", "SiN_tric_namd.psf"),
    Refused("empty.dcd", "is empty: it has 0 bytes", "adk.psf"),
    Refused("coordinates/test.dcd", "damaged or truncated", "coordinates/test_topology.pdb"),
    Refused("huge_box.gro", r"Unexpected line in \.gro file: 40000"),
    Refused("conect_parsing.pdb", "LYS39-CE to LYS39-CE is 0 nm long"),
    Refused("cryst_then_model.pdb", "1 of 3 hydrogens are bonded to nothing.*an atom missing"),
    Refused("dssp/wrong_hydrogens.pdb.gz", "the bond SER298-N to SER298-H is 0.462 nm long"),
    Refused("two_water_gro_multiframe.gro", "HOH1-O to HOH1-H1 is 1.77 nm long in frame 1"),
    Refused("mmcif/1BD2.cif.gz", "nothing of residues 133 to 136 between: put TER"),
    Refused("mmcif/multimodel_warning.cif.gz", "model 2 does not match the order of atoms"),
    Refused("xyz_random_walk.xtc", "has 100 atoms, its topology .* 47681", "adk_oplsaa.gro"),
]


def opened(case: Read | Refused) -> Trajectory:
    topology = None if case.topology is None else DATA / case.topology
    return open_trajectory(DATA / case.file, topology=topology, units=case.units)


def universe(case: Read) -> Any:
    """Return what MDAnalysis reads of a case."""
    files = [name for name in (case.topology, case.peer or case.file) if name is not None]
    with quietly():
        return MDAnalysis.Universe(
            *(str(DATA / name) for name in files),
            **({} if case.reader is None else {"format": case.reader}),
        )


def named(case: Read | Refused) -> str:
    return " ".join(name for name in (case.topology, case.file) if name)


@pytest.mark.parametrize("case", READ, ids=named)
def test_a_real_file_is_read_as_mdanalysis_reads_it(
    case: Read, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = opened(case), universe(case)
    assert ours.n_atoms == len(theirs.atoms) - case.fewer
    assert ours.n_frames == len(theirs.trajectory)
    assert sum(len(f.positions) for f in iter_frames(ours, chunk=20)) == ours.n_frames
    kept = np.arange(len(theirs.atoms))
    if case.fewer:
        assert f"{case.fewer} atoms have alternate locations" in caplog.text
        kept = first_locations(theirs)
    check_elements(case, ours, theirs, kept)
    for frame in {0, ours.n_frames - 1}:
        check_frame(case, ours.recording, theirs, frame, kept)
    check_times(case, ours, theirs)
    if hasattr(theirs, "bonds") and case.bonded is None:
        assert len(ours.graph.molecules) == len(theirs.atoms.fragments)


def first_locations(theirs: Any) -> np.ndarray:
    """Return the first of the atoms that have one name in one residue."""
    seen: dict[tuple[int, str], int] = {}
    for atom in theirs.atoms:
        seen.setdefault((atom.resindex, atom.name), atom.index)
    return np.array(list(seen.values()))


def check_elements(case: Read, ours: Trajectory, theirs: Any, kept: np.ndarray) -> None:
    """Elements by the masses of a topology of a force field, or by symbols, or by names."""
    elements = [atom.element for atom in ours.topology.atoms]
    if case.topology is not None and case.topology.endswith((".psf", ".prmtop", ".parm7")):
        masses = [element.mass for element in elements]
        np.testing.assert_allclose(masses, theirs.atoms.masses, atol=0.05)
        return
    symbols = ["" if e.symbol == "VS" else e.symbol for e in elements]
    if hasattr(theirs.atoms, "elements"):
        known = theirs.atoms.elements
    else:
        with quietly():
            known = DefaultGuesser(None).guess_types(theirs.atoms.names)
    told = [text.capitalize() for text in np.asarray(known)[kept]]
    differing = {(a, b) for a, b in zip(symbols, told, strict=True) if b and a != b}
    assert differing <= set(case.guessed)


def check_frame(
    case: Read, ours: TrajectoryFile, theirs: Any, frame: int, kept: np.ndarray
) -> None:
    block = next(ours.blocks(1, frame, frame + 1))
    assert block.positions is not None
    with quietly():
        step = theirs.trajectory[frame]
    here, there = 10 * block.positions[0].astype(np.float64), step.positions[kept].astype(float)
    largest = max(float(np.abs(here).max()), float(np.abs(there).max()))
    if case.moved is not None:
        here, there = here - here[0], there - there[0]
    # both hold float32, and one of them is a product with 10 or 0.1: three roundings of 6e-8
    np.testing.assert_allclose(here, there, rtol=0, atol=1.8e-7 * largest)
    box = None if block.box is None or is_no_cell(block.box[0]) else np.asarray(block.box[0], float)
    cell = step.dimensions
    if case.uncelled is not None:
        assert box is not None
        assert cell is None
    elif cell is None or not np.any(cell[:3]) or np.allclose(cell, [1, 1, 1, 90, 90, 90]):
        assert box is None
    else:
        assert box is not None
        check_cell(box, cell)
        np.testing.assert_allclose(1000 * abs(np.linalg.det(box)), step.volume, rtol=1e-5)


def is_no_cell(box: np.ndarray) -> bool:
    """Whether a box, nm, is none, or the cube of 1 A that stands for none."""
    return not np.any(box) or np.allclose(box, 0.1 * np.eye(3))


def check_cell(box: np.ndarray, cell: np.ndarray) -> None:
    """Compare vectors, nm, with lengths, A, and angles, degrees, in float32."""
    lengths = np.linalg.norm(box, axis=1)
    pairs = ((1, 2), (0, 2), (0, 1))
    cosines = [box[i] @ box[j] / lengths[i] / lengths[j] for i, j in pairs]
    np.testing.assert_allclose(10 * lengths, cell[:3], rtol=1e-6)
    # degrees round at 4e-6, and cosines of float32 vectors at 1e-7 / sin(angle)
    np.testing.assert_allclose(np.degrees(np.arccos(cosines)), cell[3:], atol=3e-5)


def check_times(case: Read, ours: Trajectory, theirs: Any) -> None:
    if ours.n_frames < 2:
        return
    if case.untimed is not None:
        assert ours.frame_time is None
        return
    assert ours.frame_time is not None
    with quietly():
        first, last = theirs.trajectory[0].time, theirs.trajectory[-1].time
    expected = (last - first) / (ours.n_frames - 1)
    # MDAnalysis has 0.0488888 ps for CHARMM's unit of 0.04888821
    assert ours.frame_time == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("case", REFUSED, ids=named)
def test_a_real_file_is_refused_in_one_true_line(case: Refused) -> None:
    with pytest.raises(InputError, match=case.message) as refused:
        for _ in iter_frames(opened(case), chunk=20):
            pass
    assert "\n" not in str(refused.value)


def test_a_triclinic_dcd_of_vmd_has_the_frames_of_mdanalysis() -> None:
    """Its topology is refused: 131 of its 5274 bonds are longer than 0.3 nm in any image."""
    case = Read("SiN_tric_namd.dcd", "SiN_tric_namd.psf")
    ours, theirs = open_dcd(DATA / case.file), universe(case)
    assert (ours.n_atoms, ours.n_frames) == (len(theirs.atoms), len(theirs.trajectory))
    check_frame(case, ours, theirs, 0, np.arange(ours.n_atoms))


def test_at_least_35_real_files_are_read_or_refused_rightly() -> None:
    """Of 84 cases 43 are read and 41 refused; the tests above say that they are so rightly."""
    assert (len(READ), len(REFUSED)) == (43, 41)
    assert len({named(case) for case in READ}) >= LEAST
    assert len({case.file for case in (*READ, *REFUSED)}) >= 2 * LEAST
    missing = [case.file for case in (*READ, *REFUSED) if not (DATA / case.file).exists()]
    assert not missing
