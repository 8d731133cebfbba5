"""Forces under the names and in the files of many programs, and messages where there are none."""

from __future__ import annotations

import logging
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from paths import SHARED
from scipy.io import netcdf_file

from deepcg.runtime.errors import InputError
from deepcg.trajectory.formats import open_forces, open_trajectory_file, parse_units
from deepcg.trajectory.reader import check_forces_available, iter_frames, open_trajectory
from deepcg.units import KCAL

RNG = np.random.default_rng(3)
N_FRAMES = 3
SYMBOLS, NUMBERS = ["O", "H", "H"], np.array([8, 1, 1])
X = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]) + RNG.normal(0, 0.02, (N_FRAMES, 3, 3))
F = RNG.normal(0, 0.02, (N_FRAMES, 3, 3)).round(8)  # hartree/bohr where it is CP2K's
F -= F.mean(1, keepdims=True).round(8)
HARTREE_BOHR = 2625.4996394799 / 0.0529177210903


def xyz(values: np.ndarray, cp2k: bool = True) -> str:
    text = ""
    for k, frame in enumerate(values):
        comment = f" i = {k:8d}, time = {0.5 * k:12.3f}, E = {-17.2:20.10f}" if cp2k else "forces"
        rows = (
            f"{s} " + " ".join(f"{v:.10f}" for v in row)
            for s, row in zip(SYMBOLS, frame, strict=True)
        )
        text += f"3\n{comment}\n" + "\n".join(rows) + "\n"
    return text


def listing(unit: str = "a.u.", new: bool = False) -> str:
    """Return what CP2K prints between other lines of its output, in the old and the new form."""
    text = " CP2K| version string: CP2K version 2023.1\n"
    for frame in F:
        text += "\n ENERGY| Total FORCE_EVAL ( QS ) energy [a.u.]:   -17.2\n\n"
        title = "FORCES| Atomic forces" if new else "ATOMIC FORCES in"
        text += f" {title} [{unit}]\n\n"
        text += " FORCES| Atom x y z |f|\n" if new else " # Atom   Kind   Element   X   Y   Z\n"
        for a, (symbol, row) in enumerate(zip(SYMBOLS, frame, strict=True), 1):
            values = " ".join(f"{v:15.8E}" if new else f"{v:13.8f}" for v in row)
            head = f" FORCES| {a:6d} " if new else f" {a:6d} {NUMBERS[a - 1]:6d}  {symbol} "
            text += f"{head}{values}{' 1.0E-2' if new else ''}\n"
        total = " ".join(f"{v:.8f}" for v in frame.sum(0))
        text += f" {'FORCES| Sum' if new else 'SUM OF ATOMIC FORCES'} {total} 0.0\n"
    return text


def forces_of(path: Path, units: str | None = None) -> np.ndarray:
    recording = open_forces(path, units=units)
    assert (recording.n_frames, recording.has_positions) == (N_FRAMES, False)
    read = next(recording.blocks(9, 0, N_FRAMES)).forces
    assert read is not None
    return read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with positions and a topology as a run of CP2K leaves them."""
    (tmp_path / "water-pos-1.xyz").write_text(xyz(X))
    topology = mdtraj.Topology()
    residue = topology.add_residue("HOH", topology.add_chain())
    elements = [mdtraj.element.get_by_symbol(s) for s in SYMBOLS]
    atoms = [topology.add_atom(f"{e.symbol}{k}", e, residue) for k, e in enumerate(elements)]
    topology.add_bond(atoms[0], atoms[1])
    topology.add_bond(atoms[0], atoms[2])
    mdtraj.Trajectory(X[:1] / 10, topology).save_pdb(str(tmp_path / "water.pdb"))
    return tmp_path


def test_a_unit_of_forces_may_name_another_length() -> None:
    assert parse_units("A,hartree/bohr").force == pytest.approx(HARTREE_BOHR)
    assert parse_units("A,hartree/bohr").length == pytest.approx(0.1)
    assert parse_units("A,kcal/mol/A") == parse_units("A,kcal/mol")
    with pytest.raises(InputError, match="unknown energy unit 'hartree/foot'"):
        parse_units("A,hartree/foot")


@pytest.mark.parametrize("name", ["water-frc-1.xyz", "copy.xyz"])
@pytest.mark.parametrize("units", [None, "A,hartree", "A,hartree/bohr"])
def test_forces_of_cp2k_are_in_hartree_per_bohr(
    folder: Path, name: str, units: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / name).write_text(xyz(F))
    np.testing.assert_allclose(forces_of(folder / name, units), F * HARTREE_BOHR, atol=1e-4)
    assert "forces in hartree/bohr, the unit that CP2K writes by default" in caplog.text


def test_other_units_of_xyz_forces_have_to_be_said(folder: Path) -> None:
    path = folder / "x.xyz"
    path.write_text(xyz(F))
    np.testing.assert_allclose(forces_of(path, "A,eV"), F * 964.8533, rtol=1e-5, atol=1e-4)
    path.write_text(xyz(F, cp2k=False))
    np.testing.assert_allclose(forces_of(path, "A,kcal/mol"), F * KCAL * 10, rtol=1e-5, atol=1e-4)
    with pytest.raises(InputError, match="does not say what its three columns are: give --units"):
        open_forces(path)


@pytest.mark.parametrize("what", ["pos", "vel"])
def test_other_files_of_cp2k_are_no_forces(folder: Path, what: str) -> None:
    (folder / f"other-{what}-1.xyz").write_text(xyz(F))
    with pytest.raises(InputError, match=r"by its name, no forces: give PROJECT-frc-1\.xyz"):
        open_forces(folder / f"other-{what}-1.xyz", units="A,hartree")


def test_forces_of_cp2k_are_no_trajectory(folder: Path) -> None:
    (folder / "water-frc-1.xyz").write_text(xyz(F))
    with pytest.raises(InputError, match=r"as --forces, beside water-pos-1\.xyz"):
        open_trajectory(folder / "water-frc-1.xyz")


@pytest.mark.parametrize("name", ["frc.out", "forces-1_0.xyz", "cp2k.log", "x.frc"])
@pytest.mark.parametrize(("unit", "new"), [("a.u.", False), ("hartree/bohr", True)])
def test_the_listing_of_cp2k(folder: Path, name: str, unit: str, new: bool) -> None:
    (folder / name).write_text(listing(unit, new))
    np.testing.assert_allclose(forces_of(folder / name), F * HARTREE_BOHR, rtol=1e-6, atol=1e-3)
    numbers = open_forces(folder / name, units="A,hartree").numbers
    assert (numbers is None) == new
    with pytest.raises(InputError, match=r"in hartree/bohr, but --units are A,eV"):
        open_forces(folder / name, units="A,eV")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (listing().replace("     2      1  H", " lost", 1), "truncated within listing 0"),
        (
            listing()[: listing().rfind(" SUM")],
            "truncated within listing 2 of forces, after 3 atoms",
        ),
        (listing("eV/angstrom"), r"listed in \[eV/angstrom\], which is not read"),
        (listing().replace("SUM OF ATOMIC FORCES ", "SUM OF ATOMIC FORCES 7.0 ", 1), "add up to"),
    ],
)
def test_a_damaged_listing_is_refused(folder: Path, text: str, says: str) -> None:
    (folder / "x.out").write_text(text)
    with pytest.raises(InputError, match=says):
        open_forces(folder / "x.out")


def test_positions_and_forces_of_cp2k_go_together(folder: Path) -> None:
    (folder / "forces.xyz").write_text(xyz(F))
    source = open_trajectory(
        folder / "water-pos-1.xyz", forces=folder / "forces.xyz", units="A,hartree"
    )
    frames = next(iter_frames(source))
    assert frames.forces is not None
    np.testing.assert_allclose(frames.forces, F * HARTREE_BOHR, rtol=1e-6, atol=1e-3)
    assert source.frame_time == pytest.approx(5e-4)
    (folder / "forces.xyz").write_text(xyz(F).replace("H ", "O "))
    with pytest.raises(InputError, match="atom 1 is element 8"):
        open_trajectory(folder / "water-pos-1.xyz", forces=folder / "forces.xyz")


def test_positions_given_as_forces_are_found_out(folder: Path) -> None:
    (folder / "forces.xyz").write_text(xyz(X))
    with pytest.raises(InputError, match=r"forces.xyz has the positions of .*, no forces"):
        open_trajectory(folder / "water-pos-1.xyz", forces=folder / "forces.xyz", units="A,hartree")
    np.save(folder / "x.npy", X)
    with pytest.raises(InputError, match=r"x.npy has the positions of .*, no forces"):
        open_trajectory(folder / "water-pos-1.xyz", forces=folder / "x.npy", units="A,eV")


def test_hartree_without_a_length_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.savez(tmp_path / "x.npz", R=X, F=F, z=NUMBERS)
    with caplog.at_level(logging.WARNING):
        open_trajectory_file(tmp_path / "x.npz", units="A,hartree")
    assert "forces are read as hartree/A; if they are in hartree/bohr give" in caplog.text
    caplog.clear()
    open_trajectory_file(tmp_path / "x.npz", units="A,hartree/bohr")
    open_trajectory_file(tmp_path / "x.npz", units="bohr,hartree")
    assert not caplog.text


@pytest.mark.parametrize(
    "names",
    [
        ("coords", "forces", "nuclear_charges"),
        ("R", "F", "z"),
        ("R", "F", "Z"),
        ("coordinates", "wb97x_dz.forces", "atomic_numbers"),
        ("xyz", "dft_forces", "Z"),
    ],
)
def test_arrays_of_many_makers(tmp_path: Path, names: tuple[str, str, str]) -> None:
    path = tmp_path / "x.npz"
    numbers = np.tile(NUMBERS, (N_FRAMES, 1)) if names[2] == "Z" else NUMBERS
    arrays = {names[0]: X, names[1]: F, names[2]: numbers, "energies": np.zeros(N_FRAMES)}
    np.savez(path, **arrays)
    recording = open_trajectory_file(path, units="A,kcal/mol")
    block = next(recording.blocks(9, 0, N_FRAMES))
    assert recording.numbers is not None
    assert recording.numbers.tolist() == NUMBERS.tolist()
    np.testing.assert_allclose(block.positions, X / 10, rtol=1e-6)
    np.testing.assert_allclose(block.forces, F * KCAL * 10, rtol=1e-6)


def test_arrays_of_several_names_are_ambiguous(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, R=X, F=F, old_forces=2 * F, z=NUMBERS)
    with pytest.raises(InputError, match=r"F and old_forces: say which by --forces .*npz:F"):
        open_trajectory_file(path, units="A,kcal/mol")
    source = open_trajectory(path, units="A,kcal/mol", forces=f"{path}:old_forces")
    frames = next(iter_frames(source))
    assert frames.forces is not None
    np.testing.assert_allclose(frames.forces, 2 * F * KCAL * 10, rtol=1e-6)
    np.savez(path, R=X, coords=X + 1, F=F)
    with pytest.raises(InputError, match="positions of several names, coords and R"):
        open_trajectory_file(path, units="A,kcal/mol")
    np.savez(path, R=X, coords=np.zeros(3), F=F, forces_std=F)  # no second one of either
    assert open_trajectory_file(path, units="A,kcal/mol").has_forces


def test_units_that_an_archive_says_are_used_and_not_contradicted(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, R=X, F=F, z=NUMBERS, r_unit="Ang", e_unit="kcal/mol", name="water")
    for units in (None, "A,kcal/mol"):
        block = next(open_trajectory_file(path, units=units).blocks(9, 0, N_FRAMES))
        np.testing.assert_allclose(block.forces, F * KCAL * 10, rtol=1e-6)
    with pytest.raises(InputError, match=r"units are A,kcal/mol .* --units are A,eV"):
        open_trajectory_file(path, units="A,eV")
    np.savez(path, R=X, F=F, z=NUMBERS, r_unit="furlong", e_unit="eV")
    with pytest.raises(InputError, match="says that its units are furlong and eV"):
        open_trajectory_file(path)


def test_npy_positions_with_forces_beside_them(folder: Path) -> None:
    np.save(folder / "x.npy", X)
    np.save(folder / "f.npy", F * 50)
    top = folder / "water.pdb"
    source = open_trajectory(
        folder / "x.npy", forces=folder / "f.npy", units="A,kcal/mol", topology=top
    )
    frames = next(iter_frames(source))
    assert frames.forces is not None
    np.testing.assert_allclose(frames.positions, X / 10, rtol=1e-6)
    np.testing.assert_allclose(frames.forces, F * 50 * KCAL * 10, rtol=1e-5)
    with pytest.raises(InputError, match="give --topology"):
        open_trajectory(folder / "x.npy", forces=folder / "f.npy", units="A,kcal/mol")
    with pytest.raises(InputError, match="has no forces"):
        check_forces_available(open_trajectory(folder / "x.npy", units="A,kcal/mol", topology=top))
    np.save(folder / "x.npy", X[:, 0])
    with pytest.raises(InputError, match=r"positions have shape \(3, 3\), not \(frames, atoms"):
        open_trajectory(folder / "x.npy", units="A,kcal/mol", topology=top)


def test_a_message_about_missing_forces_lists_what_there_is(folder: Path) -> None:
    np.savez(folder / "x.npz", R=X, z=NUMBERS, gradients=F)
    source = open_trajectory(folder / "x.npz", units="A,kcal/mol")
    with pytest.raises(InputError, match=r"no forces \(it has R \(3, 3, 3\), z .*gradients"):
        check_forces_available(source)
    with pytest.raises(InputError, match=r"x.npz has no forces: it has R"):
        open_trajectory(folder / "water-pos-1.xyz", forces=folder / "x.npz", units="A,kcal/mol")
    np.savez(folder / "f.npz", F=F)
    with pytest.raises(InputError, match=r"no positions \(it has F \(3, 3, 3\)\): give it as"):
        open_trajectory(folder / "f.npz", units="A,kcal/mol")


def write_amber(
    path: Path, *, positions: bool, unit: str | None = "kilocalorie/mole/angstrom"
) -> None:
    with netcdf_file(str(path), "w", version=2) as file:
        file.Conventions, file.ConventionVersion = "AMBER", "1.0"
        file.createDimension("frame", None)
        for name, size in (("spatial", 3), ("atom", 3), ("cell_spatial", 3), ("cell_angular", 3)):
            file.createDimension(name, size)
        time = file.createVariable("time", "f", ("frame",))
        forces = file.createVariable("forces", "f", ("frame", "atom", "spatial"))
        if unit is not None:
            forces.units = unit
        if positions:
            place = file.createVariable("coordinates", "f", ("frame", "atom", "spatial"))
            lengths = file.createVariable("cell_lengths", "d", ("frame", "cell_spatial"))
            angles = file.createVariable("cell_angles", "d", ("frame", "cell_angular"))
        for k in range(N_FRAMES):
            time[k], forces[k] = 0.2 * k, F[k]
            if positions:
                place[k], lengths[k], angles[k] = X[k], [20, 21, 22], [90, 90, 60]


@pytest.mark.filterwarnings("ignore:Warning. The 'netCDF4'")
@pytest.mark.parametrize("positions", [True, False])
def test_netcdf_of_amber_with_forces(folder: Path, positions: bool) -> None:
    path = folder / "md.nc"
    write_amber(path, positions=positions)
    recording = open_trajectory_file(path)
    block = next(recording.blocks(9, 0, N_FRAMES))
    np.testing.assert_allclose(block.forces, F * KCAL * 10, rtol=1e-6, atol=1e-6)
    assert (recording.n_frames, recording.has_positions) == (N_FRAMES, positions)
    assert recording.frame_time == pytest.approx(0.2)
    if not positions:
        assert forces_of(path) == pytest.approx(F * KCAL * 10, rel=1e-6, abs=1e-6)
        return
    by_mdtraj = mdtraj.load(str(path), top=str(folder / "water.pdb"))
    np.testing.assert_allclose(block.positions, by_mdtraj.xyz, atol=1e-7)
    np.testing.assert_allclose(block.box, by_mdtraj.unitcell_vectors, atol=1e-6)
    source = open_trajectory(path, topology=folder / "water.pdb")
    assert source.forces == path


def test_a_netcdf_cell_that_is_none_is_refused(folder: Path) -> None:
    write_amber(folder / "md.nc", positions=True)
    with netcdf_file(str(folder / "md.nc"), "a", mmap=False) as file:
        file.variables["cell_angles"][1] = [60, 60, 170]
    with pytest.raises(InputError, match=r"angles \[60.0, 60.0, 170.0\] of frame 1 are no cell"):
        list(open_trajectory_file(folder / "md.nc").blocks(2, 0, N_FRAMES))


@pytest.mark.parametrize("unit", [None, "newton"])
def test_netcdf_forces_of_an_unknown_unit_are_refused(folder: Path, unit: str | None) -> None:
    write_amber(folder / "md.nc", positions=True, unit=unit)
    with pytest.raises(InputError, match=r"forces are in '(newton)?', which is not known"):
        open_trajectory_file(folder / "md.nc")
    path = folder / "md.nc"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="is no NetCDF file that can be read"):
        open_trajectory_file(path)


REPORTED = SHARED / "reported"


@pytest.mark.skipif(not REPORTED.exists(), reason="needs ../shared/data/reported")
def test_the_same_water_in_four_formats_has_the_same_forces() -> None:
    """Their rms is 587.27 kJ/mol/nm in all; a wrong unit would differ by 1.9 times at least."""
    files = [
        ("X1_REF_forces.extxyz", None),
        ("N1_rmd17_names.npz", "A,kcal/mol"),
        ("L1_units_time.lammpstrj", None),
        ("X3_cp2k-frc-1.xyz", "A,hartree"),
    ]
    for name, units in files:
        recording = open_forces(REPORTED / name, units=units)
        forces = next(recording.blocks(9, 0, 3)).forces
        assert forces is not None
        assert np.sqrt(np.square(forces).mean()) == pytest.approx(587.268, abs=0.001), name
    assert open_trajectory_file(REPORTED / "X2_blank_line_between.extxyz").n_frames == 4
