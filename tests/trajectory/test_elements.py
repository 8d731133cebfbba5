from __future__ import annotations

import warnings
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest

from deepcg.cli.main import main
from deepcg.runtime.errors import InputError
from deepcg.runtime.warnings_of_libraries import quiet
from deepcg.trajectory.element_masses import STANDARD, fits, from_masses
from deepcg.trajectory.element_names import SITE, named, numbers_of, of_label
from deepcg.trajectory.reader import Trajectory, open_trajectory
from deepcg.trajectory.topology_file import load_topology

WATER = np.array([[0, 0, 0], [0.0957, 0, 0], [-0.024, 0.0927, 0]])
METHANOL = np.array(  # C, O, three hydrogens of the methyl group, that of the hydroxyl group
    [
        [0, 0, 0],
        [0.1425, 0, 0],
        [-0.036, 0.103, 0],
        [-0.036, -0.051, 0.089],
        [-0.036, -0.051, -0.089],
        [0.174, 0.091, 0],
    ]
)
AMINO = ("N", "CA", "C", "O")


def symbols_of(topology: mdtraj.Topology) -> list[str]:
    return [atom.element.symbol for atom in topology.atoms]


def save_npz(path: Path, positions: np.ndarray) -> Path:
    """Two frames that differ, so that none repeats the other."""
    frames = np.stack([positions, positions + 0.01]).astype(np.float32)
    np.savez(path, positions=frames, forces=100 * np.ones_like(frames))
    return path


def psf(atoms: list[tuple[str, int, str, str, float]], bonds: list[tuple[int, int]]) -> str:
    """The text of a PSF: segment, number, residue, name, mass; bonds from 0."""
    rows = [
        f"{k + 1:10d} {seg:8s} {number:<8d} {residue:8s} {name:8s} {name[:4]:6s} 0.0 {mass} 0\n"
        for k, (seg, number, residue, name, mass) in enumerate(atoms)
    ]
    ends = " ".join(f"{i + 1} {j + 1}" for i, j in bonds)
    return (
        f"PSF EXT\n\n1 !NTITLE\n* a test\n\n{len(atoms):10d} !NATOM\n{''.join(rows)}\n"
        f"{len(bonds):10d} !NBOND: bonds\n{ends}\n\n         0 !NTHETA: angles\n\n"
    )


def gro(atoms: list[tuple[int, str, str]], positions: np.ndarray) -> str:
    rows = [
        f"{number:5d}{residue:<5s}{name:>5s}{k + 1:5d}{x:8.3f}{y:8.3f}{z:8.3f}\n"
        for k, ((number, residue, name), (x, y, z)) in enumerate(zip(atoms, positions, strict=True))
    ]
    return f"a test\n{len(atoms)}\n{''.join(rows)}   3.0 3.0 3.0\n"


def pdb(atoms: list[tuple[str, str, int, str]], positions: np.ndarray) -> str:
    """The text of a PDB: name in four columns, residue, its number, element."""
    rows = [
        f"ATOM  {k + 1:5d} {name:4s} {residue:4s}A{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}"
        f"  1.00  0.00          {element:>2s}\n"
        for k, ((name, residue, number, element), (x, y, z)) in enumerate(
            zip(atoms, 10 * positions, strict=True)
        )
    ]
    return "".join(rows) + "END\n"


def dump(columns: str, rows: list[str]) -> str:
    return (
        f"ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n{len(rows)}\nITEM: BOX BOUNDS pp pp pp\n"
        + "0 30\n" * 3
        + f"ITEM: ATOMS {columns}\n"
        + "\n".join(rows)
        + "\n"
    )


def dump_of_masses(path: Path, masses: list[float], positions: np.ndarray) -> Path:
    """Two frames, in A, without names or elements."""
    both = [
        dump(
            "id type mass x y z",
            [
                f"{k + 1} 1 {m} {x} {y} {z}"
                for k, (m, (x, y, z)) in enumerate(
                    zip(masses, 10 * (positions + shift), strict=True)
                )
            ],
        )
        for shift in (0.5, 0.51)
    ]
    path.write_text("".join(both))
    return path


def opened_dump(path: Path) -> Trajectory:
    return open_trajectory(path, units="A,kcal/mol")


@pytest.mark.parametrize(
    ("name", "residue", "others", "symbol"),
    [
        ("CA", "ALA", AMINO, "C"),
        ("CA", "CA", (), "Ca"),
        ("CAL", "CAL", (), "Ca"),
        ("CA", "ALA", (), "C"),  # a chain of C-alpha
        ("CA", "ION", (), "Ca"),
        ("CLA", "CLA", (), "Cl"),
        ("MG", "CLA", ("CHA", "NA", "NB"), "Mg"),  # chlorophyll
        ("NA", "CLA", ("CHA", "MG", "NB"), "N"),
        ("NA", "HEM", ("FE", "NB"), "N"),
        ("FE", "HEM", ("NA", "NB"), "Fe"),
        ("SOD", "SOD", (), "Na"),
        ("NA+", "NA+", (), "Na"),
        ("Na+", "Na+", (), "Na"),
        ("NA", "NA+", (), "Na"),
        ("Cl-", "Cl-", (), "Cl"),
        ("CL", "CL-", (), "Cl"),
        ("MG", "MG2", (), "Mg"),
        ("ZN", "ZN2", (), "Zn"),
        ("CAD", "CD2", (), "Cd"),
        ("CES", "CES", (), "Cs"),
        ("RUB", "RUB", (), "Rb"),
        ("BAR", "BAR", (), "Ba"),
        ("K", "K", (), "K"),
        ("I", "I", (), "I"),
        ("CD", "LYS", AMINO, "C"),
        ("HG", "SER", AMINO, "H"),
        ("1HB", "ALA", AMINO, "H"),
        ("SE", "MSE", AMINO, "Se"),
        ("SD", "MET", AMINO, "S"),
        ("CL1", "LIG", ("C1", "C2"), "Cl"),
        ("Br", "LIG", ("C1", "C2"), "Br"),
        ("CD1", "LIG", ("C1", "C2"), "C"),
        ("HO2", "LIG", ("C1", "C2"), "H"),
        ("MW", "SOL", ("OW", "HW1", "HW2"), SITE),
        ("EPW", "WAT", ("O", "H1", "H2"), SITE),
        ("OM", "SWM4", ("OH2", "H1", "H2"), SITE),
        ("DOH2", "SWM4", ("OH2", "H1", "H2"), SITE),
        ("LP1", "LIG", ("CL1", "C1"), SITE),
        ("D1", "DOD", ("O", "D2"), "D"),
        ("OW", "SOL", (), "O"),
        ("AR", "AR", (), "Ar"),
        ("CH4", "CH4", (), "C"),
        ("C5'", "DA", ("P", "O5'"), "C"),
    ],
)
def test_names_say_elements_in_their_residue(
    name: str, residue: str, others: tuple[str, ...], symbol: str
) -> None:
    assert named(name, residue, others).symbols[:1] == (symbol,)


@pytest.mark.parametrize(
    ("name", "residue", "others"),
    [("BB", "ALA", ("SC1",)), ("W", "W", ()), ("PO4", "DPPC", ()), ("A", "SOL", ("B",))],
)
def test_beads_of_other_models_are_no_atoms(
    name: str, residue: str, others: tuple[str, ...]
) -> None:
    assert named(name, residue, others).symbols == ()


@pytest.mark.parametrize(("name", "residue"), [("DH", "TYR"), ("DHA", "LIG"), ("DH11", "ARG")])
def test_a_deuterium_is_no_drude_particle_of_a_hydrogen(name: str, residue: str) -> None:
    """Of a heavy atom it is one: ``DOH`` beside ``OH``."""
    others = ("OH", "CZ", "H", name[1:])
    assert SITE not in named(name, residue, others).symbols
    assert named("DOH", residue, (*others, name)).symbols == (SITE,)


def test_labels_are_elements_with_charges_and_numbers() -> None:
    labels = {"D": "D", "Na+": "Na", "O1": "O", "CL": "Cl", "Mg2+": "Mg", "Qq": None, "Co": "Co"}
    assert {label: of_label(label) for label in labels} == labels
    assert numbers_of(["D", "H", SITE, "Cl"]).tolist() == [1, 1, 0, 17]


def heavy(symbols: list[str], partners: list[int], hydrogen: float) -> list[float]:
    """Masses with hydrogens of a mass that the atoms they are on have lost."""
    masses = [STANDARD[symbol] for symbol in symbols]
    for atom, partner in enumerate(partners):
        if symbols[atom] == "H":
            masses[partner] -= hydrogen - masses[atom]
            masses[atom] = hydrogen
    return masses


METHANOL_SYMBOLS = ["C", "O", "H", "H", "H", "H"]
METHANOL_PARTNERS = [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("hydrogen", [1.008, 1.5, 2.0, 3.0, 3.024, 4.0])
def test_masses_moved_to_hydrogens_tell_the_elements(hydrogen: float) -> None:
    masses = heavy(METHANOL_SYMBOLS, METHANOL_PARTNERS, hydrogen)
    near = np.array([2, 0, 0, 0, 0, 1])
    assert from_masses(np.array(masses), near) == (METHANOL_SYMBOLS, None)


@pytest.mark.parametrize("hydrogen", [2.0, 3.0, 3.024, 4.0])
def test_hydrogens_as_heavy_as_a_model_has_them_make_no_helium(
    hydrogen: float, tmp_path: Path
) -> None:
    """With 3 Da the oxygen of water is as heavy as carbon, and with 4 Da hydrogen as helium."""
    masses = heavy(["O", "H", "H"] * 2, [0, 0, 0, 3, 3, 3], hydrogen)
    path = dump_of_masses(tmp_path / "w.lammpstrj", masses, np.concatenate([WATER, WATER + 0.5]))
    assert opened_dump(path).describe()["molecules"] == {"H2O": 2}


def test_repartitioned_and_plain_molecules_and_a_noble_gas_are_told_apart(tmp_path: Path) -> None:
    masses = [
        *heavy(METHANOL_SYMBOLS, METHANOL_PARTNERS, 3.024),
        *(15.9994, 1.00794, 1.00794),
        39.948,
        4.0026,
    ]
    places = [METHANOL, WATER + 0.6, np.array([[1.2, 1.2, 1.2], [1.7, 1.7, 1.7]])]
    path = dump_of_masses(tmp_path / "m.lammpstrj", masses, np.concatenate(places))
    found = opened_dump(path).describe()["molecules"]
    assert found == {"CH4O": 1, "H2O": 1, "Ar": 1, "He": 1}


def test_deuterium_is_what_leaves_its_partner_as_heavy_as_it_is(tmp_path: Path) -> None:
    masses = [15.999, 2.014, 2.014] * 2
    places = np.concatenate([WATER, WATER + 0.6])
    path = dump_of_masses(tmp_path / "d.lammpstrj", masses, places)
    source = opened_dump(path)
    assert source.describe()["molecules"] == {"D2O": 2}
    assert source.graph.numbers.tolist() == [8, 1, 1] * 2
    assert len(source.graph.waters) == 2
    assert source.graph.masses[1] == pytest.approx(2.014, abs=1e-3)


def test_masses_of_no_element_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = dump_of_masses(tmp_path / "x.lammpstrj", [72.0, 72.0], np.eye(3)[:2])
    with pytest.raises(InputError, match="does not say what its atoms are"):
        opened_dump(path)
    assert "masses do not tell the elements: atom 0 (from 0) has 72 Da" in caplog.text


def test_an_element_and_a_mass_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    rows = ["1 C 15.999 1 1 1", "2 H 1.008 1.96 1 1", "3 H 1.008 0.76 1.927 1"]
    path = tmp_path / "x.lammpstrj"
    path.write_text(dump("id element mass x y z", rows))
    with pytest.raises(InputError, match=r"atom 0 .*is C in the column 'element'.*15.999 Da"):
        opened_dump(path)


def test_labels_of_a_dump_may_be_deuterium(tmp_path: Path) -> None:
    rows = ["2 D 1.96 1 1", "1 O 1 1 1", "3 D 0.76 1.927 1"]
    path = tmp_path / "x.lammpstrj"
    path.write_text(dump("id element x y z", rows))
    assert opened_dump(path).describe()["molecules"] == {"D2O": 1}


def extxyz(symbols: list[str], positions: np.ndarray) -> str:
    rows = [
        f"{s} {x} {y} {z} 0.1 0 0\n" for s, (x, y, z) in zip(symbols, 10 * positions, strict=True)
    ]
    comment = 'Lattice="30 0 0 0 30 0 0 0 30" Properties=species:S:1:pos:R:3:forces:R:3'
    return f"{len(symbols)}\n{comment}\n{''.join(rows)}"


@pytest.mark.parametrize(
    ("symbols", "positions", "formula"),
    [
        (["O", "D", "D"], WATER, "D2O"),
        (["C", "O", "D", "D", "D", "D"], METHANOL, "CD4O"),
        (["C", "O", "D", "D", "D", "H"], METHANOL, "CD3HO"),
        (["Na+"], np.zeros((1, 3)), "Na"),
    ],
)
def test_isotopes_and_charges_of_an_xyz_are_read(
    symbols: list[str], positions: np.ndarray, formula: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.extxyz"
    path.write_text(extxyz(symbols, positions + 1) + extxyz(symbols, positions + 1.1))
    source = open_trajectory(path)
    assert source.describe()["molecules"] == {formula: 1}
    names = [atom.name for atom in source.topology.atoms]
    assert sum(name.startswith("D") for name in names) == symbols.count("D")


def test_a_label_of_no_element_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.extxyz"
    path.write_text(extxyz(["Qq", "H"], WATER[:2]))
    with pytest.raises(InputError, match="frame 0: 'Qq' is the label of no element: write sym"):
        open_trajectory(path)


def methanol_psf(hydrogen: float) -> tuple[str, np.ndarray]:
    names = ["C", "OG", "H1", "H2", "H3", "HG1"]
    masses = heavy(METHANOL_SYMBOLS, METHANOL_PARTNERS, hydrogen)
    atoms = [("M", 1, "MEOH", n, m) for n, m in zip(names, masses, strict=True)]
    atoms.append(("A", 2, "AR", "AR", 39.948))
    places = np.concatenate([METHANOL, [[1.5, 1.5, 1.5]]])
    return psf(atoms, [(0, 1), (0, 2), (0, 3), (0, 4), (1, 5)]), places


@pytest.mark.parametrize("hydrogen", [1.008, 3.024, 4.0])
def test_a_psf_with_heavy_hydrogens_beside_argon(hydrogen: float, tmp_path: Path) -> None:
    text, places = methanol_psf(hydrogen)
    (tmp_path / "x.psf").write_text(text)
    source = open_trajectory(save_npz(tmp_path / "x.npz", places))
    assert symbols_of(source.topology) == [*METHANOL_SYMBOLS, "Ar"]
    assert source.describe()["molecules"] == {"CH4O": 1, "Ar": 1}


def test_a_psf_of_deuterated_methanol(tmp_path: Path) -> None:
    names = ["C", "OG", "H1", "H2", "H3", "HG1"]
    masses = [12.011, 15.9994, 2.014, 2.014, 2.014, 1.008]
    atoms = [("M", 1, "MEOH", n, m) for n, m in zip(names, masses, strict=True)]
    (tmp_path / "x.psf").write_text(psf(atoms, [(0, 1), (0, 2), (0, 3), (0, 4), (1, 5)]))
    source = open_trajectory(save_npz(tmp_path / "x.npz", METHANOL))
    assert source.describe()["molecules"] == {"CD3HO": 1}


def test_a_psf_whose_name_and_mass_contradict_each_other_is_refused(tmp_path: Path) -> None:
    atoms = [
        ("A", 1, "ALA", n, m) for n, m in zip(AMINO, (14.007, 15.999, 12.011, 16.0), strict=True)
    ]
    (tmp_path / "x.psf").write_text(psf(atoms, [(0, 1), (1, 2), (2, 3)]))
    with pytest.raises(InputError, match=r"atom 1 \(CA of ALA\) is C .* 15.999 Da, that of O"):
        load_topology(tmp_path / "x.psf")


def test_drude_particles_and_lone_pairs_belong_to_their_water(tmp_path: Path) -> None:
    names = ["OH2", "DOH2", "OM", "H1", "H2"]
    masses = [15.5994, 0.4, 0.0, 1.008, 1.008]
    atoms = [("W", 1, "SWM4", n, m) for n, m in zip(names, masses, strict=True)]
    (tmp_path / "x.psf").write_text(psf(atoms, [(0, 1), (0, 2), (0, 3), (0, 4)]))
    places = np.array([WATER[0], WATER[0] + 1e-3, WATER[0] + 0.015, WATER[1], WATER[2]])
    source = open_trajectory(save_npz(tmp_path / "x.npz", places))
    assert source.graph.numbers.tolist() == [8, 0, 0, 1, 1]
    assert source.describe()["molecules"] == {"H2O": 1}


def test_a_gro_of_four_site_water_with_ions_of_charmm(tmp_path: Path) -> None:
    atoms = [(1, "SOL", name) for name in ("OW", "HW1", "HW2", "MW")]
    atoms += [(2, "SOD", "SOD"), (3, "CLA", "CLA"), (4, "CA", "CA")]
    places = np.concatenate([WATER, [[0.01, 0.01, 0]], [[1, 0, 0], [0, 1, 0], [0, 0, 1.0]]])
    (tmp_path / "x.gro").write_text(gro(atoms, places))
    source = open_trajectory(save_npz(tmp_path / "x.npz", places))
    assert symbols_of(source.topology) == ["O", "H", "H", "VS", "Na", "Cl", "Ca"]
    assert source.describe()["molecules"] == {"H2O": 1, "Na": 1, "Cl": 1, "Ca": 1}


def test_a_pdb_without_elements(tmp_path: Path) -> None:
    atoms = [(" N  ", "MSE", 1, ""), (" CA ", "MSE", 1, ""), (" CB ", "MSE", 1, "")]
    atoms += [("1HB ", "MSE", 1, ""), ("SE  ", "MSE", 1, ""), ("ZN  ", "ZN2", 2, "")]
    atoms += [("CA  ", "XYZ", 3, ""), (" CA ", "XYZ", 4, ""), ("LIT ", "LIT", 5, "")]
    places = np.arange(27.0).reshape(9, 3) / 10
    (tmp_path / "x.pdb").write_text(pdb(atoms, places))
    found = symbols_of(load_topology(tmp_path / "x.pdb"))
    assert found == ["N", "C", "C", "H", "Se", "Zn", "Ca", "C", "Li"]


def test_places_of_names_count_where_a_file_keeps_to_them(tmp_path: Path) -> None:
    atoms = [("CA  ", "ALA", 1, ""), ("CA  ", "XYZ", 2, "")]
    (tmp_path / "x.pdb").write_text(pdb(atoms, WATER[:2]))
    with pytest.raises(InputError, match=r"atom 1 \(CA of XYZ\) may be Ca or C"):
        load_topology(tmp_path / "x.pdb")


def test_masses_of_another_unit_are_refused_and_scaled_ones_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As of kg/mol: all atoms would be Drude particles."""
    path = tmp_path / "x.psf"
    bonds = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 5)]
    for factor in (1e-3, 10.0):
        atoms = [
            ("M", 1, "MEOH", f"{symbol}{k}", factor * STANDARD[symbol])
            for k, symbol in enumerate(METHANOL_SYMBOLS)
        ]
        path.write_text(psf(atoms, bonds))
        with pytest.raises(InputError, match=r"atom 2 \(H2 of MEOH\) is H .* its mass is"):
            load_topology(path)
    atoms = [("M", 1, "POL", name, 500.0) for name in ("C1", "O1")]
    path.write_text(psf(atoms, [(0, 1)]))
    assert symbols_of(load_topology(path)) == ["C", "O"]
    assert len(caplog.records) == 1
    assert "its mass of 500 Da is that of no element (2 kinds of atoms are so)" in caplog.text


def test_an_element_that_a_name_contradicts_is_refused(tmp_path: Path) -> None:
    atoms = [(" OW ", "SOL", 1, "C"), (" HW1", "SOL", 1, "H"), (" HW2", "SOL", 1, "H")]
    (tmp_path / "x.pdb").write_text(pdb(atoms, WATER))
    with pytest.raises(InputError, match=r"atom 0 \(OW of SOL\) is C by the element .* O by its"):
        load_topology(tmp_path / "x.pdb")


PRMTOP = """%VERSION  VERSION_STAMP = V0001.000
%FLAG TITLE
%FORMAT(20a4)
a test
%FLAG POINTERS
%FORMAT(10I8)
       3       0       0       2       0       0       0       0       0       0
       0       1       0       0       0       0       0       0       0       0
       0       0       0       0       0       0       0       0       0       0
       0
%FLAG ATOM_NAME
%FORMAT(20a4)
O   C1  CL1 
%FLAG ATOMIC_NUMBER
%FORMAT(10I8)
       8       6      17
%FLAG MASS
%FORMAT(5E16.8)
  1.60000000E+01  MASSHERE  3.54500000E+01
%FLAG RESIDUE_LABEL
%FORMAT(20a4)
LIG 
%FLAG RESIDUE_POINTER
%FORMAT(10I8)
       1
%FLAG BONDS_INC_HYDROGEN
%FORMAT(10I8)

%FLAG BONDS_WITHOUT_HYDROGEN
%FORMAT(10I8)
       0       3       1       3       6       1
"""


def test_the_atomic_number_and_the_mass_of_a_prmtop_must_agree(tmp_path: Path) -> None:
    path = tmp_path / "x.prmtop"
    path.write_text(PRMTOP.replace("MASSHERE", "1.20110000E+01"))
    assert symbols_of(load_topology(path)) == ["O", "C", "Cl"]
    path.write_text(PRMTOP.replace("MASSHERE", "1.60000000E+01"))
    with pytest.raises(InputError, match=r"atom 1 \(C1 of LIG\) is C .* 16 Da, that of O"):
        load_topology(path)


def test_beads_are_refused_and_not_taken_for_boron(tmp_path: Path) -> None:
    (tmp_path / "x.gro").write_text(gro([(1, "ALA", "BB"), (1, "ALA", "SC1")], WATER[:2]))
    with pytest.raises(InputError, match=r"atom 0 \(BB of ALA\) has no element that a name tells"):
        load_topology(tmp_path / "x.gro")


def test_a_name_that_leaves_it_open_is_warned_of_or_decided_by_the_system(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.gro"
    path.write_text(gro([(1, "LIG", "CO1"), (1, "LIG", "N1")], WATER[:2]))
    assert symbols_of(load_topology(path)) == ["C", "N"]
    assert "CO1 of LIG (1 atoms) is read as C by its name, it could be Co" in caplog.text
    assert symbols_of(load_topology(path, np.array([58.933, 14.007]))) == ["Co", "N"]
    path.write_text(gro([(1, "XYZ", "CA")], WATER[:1]))
    with pytest.raises(InputError, match=r"\(CA of XYZ\) may be Ca or C"):
        load_topology(path)
    assert symbols_of(load_topology(path, np.array([40.08]))) == ["Ca"]
    assert symbols_of(load_topology(path, np.array([12.011]))) == ["C"]


def write_system(path: Path, masses: list[float]) -> None:
    system = openmm.System()
    for mass in masses:
        system.addParticle(mass)
    path.write_text(openmm.XmlSerializer.serialize(system))


def methanol(folder: Path, masses: list[float]) -> Path:
    """Return a trajectory of methanol with plain masses and a System with these."""
    (folder / "x.psf").write_text(methanol_psf(1.008)[0])
    write_system(folder / "x.system.xml", masses)
    return save_npz(folder / "x.npz", methanol_psf(1.008)[1])


@pytest.mark.parametrize("hydrogen", [1.008, 2.0, 3.024, 4.0])
def test_masses_of_a_system_may_be_repartitioned(hydrogen: float, tmp_path: Path) -> None:
    masses = [*heavy(METHANOL_SYMBOLS, METHANOL_PARTNERS, hydrogen), 39.95]
    open_trajectory(methanol(tmp_path, masses))


def test_a_system_with_heavy_atoms_in_another_order_is_refused(tmp_path: Path) -> None:
    masses = [15.999, 12.011, *([1.008] * 4), 39.95]
    with pytest.raises(InputError, match=r"atom 0 is MEOH1-C .* that of O: .*another order"):
        open_trajectory(methanol(tmp_path, masses))


def test_a_system_with_scaled_masses_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    masses = [100.0, 100.0, *([1.008] * 4), 39.95]
    open_trajectory(methanol(tmp_path, masses))
    assert "the mass of MEOH1-C, 100 Da, is that of no element (so are 2 of 7" in caplog.text


def test_a_virtual_site_may_have_no_mass_in_a_system(tmp_path: Path) -> None:
    atoms = [(1, "SOL", name) for name in ("OW", "HW1", "HW2", "MW")]
    places = np.concatenate([WATER, [[0.01, 0.01, 0]]])
    (tmp_path / "x.gro").write_text(gro(atoms, places))
    trajectory = save_npz(tmp_path / "x.npz", places)
    write_system(tmp_path / "x.system.xml", [15.999, 1.008, 1.008, 0])
    open_trajectory(trajectory)
    write_system(tmp_path / "x.system.xml", [15.999, 1.008, 1.008, 22.99])
    with pytest.raises(InputError, match=r"atom 3 .* has mass 22.99 Da .* that of Na"):
        open_trajectory(trajectory)


@pytest.mark.parametrize(
    ("symbol", "mass", "excess", "does"),
    [
        ("C", 12.0, 0.0, True),
        ("C", 5.963, 6.048, True),
        ("C", 14.027, 0.0, True),  # with two hydrogens, in a united atom
        ("N", 16.0, 0.0, False),
        ("H", 4.032, 0.0, True),
        ("O", 15.5994, 0.4, True),  # beside its Drude particle
        (SITE, 0.0, 0.0, True),
        (SITE, 22.99, 0.0, False),
    ],
)
def test_masses_fit_elements_up_to_rounding(
    symbol: str, mass: float, excess: float, does: bool
) -> None:
    assert fits(symbol, mass, excess) is does


def test_warnings_of_libraries_stay_where_they_are() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with quiet():
            warnings.warn("top= kwargs ignored", stacklevel=1)
        warnings.warn("ours", stacklevel=1)
    assert [str(w.message) for w in seen] == ["ours"]


def test_a_command_prints_no_warning_of_mdtraj(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MDTraj warns of two residues of one number, side by side."""
    atoms = [(1, "SOL", n) for n in ("OW", "HW1", "HW2")] + [(1, "NA", "NA")]
    places = np.concatenate([WATER, [[1, 1, 1]]])
    (tmp_path / "x.gro").write_text(gro(atoms, places))
    for path in (tmp_path / "x.gro", save_npz(tmp_path / "x.npz", places)):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            with pytest.raises(SystemExit) as ended:
                main(["info", str(path)])
        assert ended.value.code in (0, None)
        assert seen == []
        assert capsys.readouterr().err == ""
