"""Files of the Protein Data Bank: alternate locations, gaps in chains, packed mmCIF."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from deepcg.runtime.errors import InputError
from deepcg.trajectory.reader import iter_frames, open_trajectory

BACKBONE = [("N", 0.0, 0.0), ("CA", 1.458, 0.0), ("C", 2.0, 1.42), ("O", 1.3, 2.42)]
STEP = 3.33  # A, from C to the next N as long as a peptide bond


def atom(serial: int, name: str, alternate: str, number: int, place: tuple[float, ...]) -> str:
    x, y, z = place
    occupancy = 1.0 if alternate == " " else 0.5
    return (
        f"ATOM  {serial:5d}  {name:<3}{alternate}ALA A{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}"
        f"{occupancy:6.2f}  0.00           {name[0]}\n"
    )


def chain(numbers: list[int], doubled: set[int], ter: set[int] = frozenset()) -> str:
    """Return residues with these numbers, each at its place; ``doubled`` have C-alpha twice."""
    text, serial = "", 0
    for number in numbers:
        for name, x, y in BACKBONE:
            for alternate in "AB" if number in doubled and name == "CA" else " ":
                serial += 1
                shift = 0.2 if alternate == "B" else 0.0
                text += atom(serial, name, alternate, number, (x + STEP * number, y, shift))
        text += "TER\n" if number in ter else ""
    return text + "END\n"


@pytest.mark.parametrize("doubled", [{1}, {1, 3}])
def test_alternate_locations_are_left_out_with_a_word(
    doubled: set[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.pdb"
    path.write_text(chain([1, 2, 3], doubled))
    source = open_trajectory(path)
    assert source.n_atoms == 12
    said = f"{len(doubled)} atoms have alternate locations, as CA of ALA: the first of each is kept"
    assert said in caplog.text
    (frame,) = iter_frames(source)
    assert frame.positions[0, 1].tolist() == pytest.approx([0.4788, 0, 0], abs=1e-6)


def test_nothing_is_said_of_one_location_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.pdb"
    path.write_text(chain([1, 2, 3], set()))
    assert open_trajectory(path).n_atoms == 12
    assert "alternate" not in caplog.text


@pytest.mark.parametrize(
    ("numbers", "missing"), [([1, 2, 6, 7], "residues 3 to 5"), ([1, 2, 5], "residues 3 to 4")]
)
def test_a_gap_in_a_chain_is_called_one(numbers: list[int], missing: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pdb"
    path.write_text(chain(numbers, set()))
    with pytest.raises(InputError, match=f"ALA2-C to .*-N is .* nothing of {missing} between"):
        list(iter_frames(open_trajectory(path)))
    path.write_text(chain(numbers, set(), ter={2}))
    assert len(open_trajectory(path).graph.molecules) == 2


@pytest.mark.parametrize("ending", [".cif.gz", ".mmcif.gz", ".cif"])
def test_mmcif_is_its_own_topology_packed_or_not(ending: str, tmp_path: Path) -> None:
    columns = "group_PDB id type_symbol label_atom_id label_comp_id label_asym_id label_seq_id"
    columns += " Cartn_x Cartn_y Cartn_z auth_seq_id auth_comp_id auth_asym_id auth_atom_id"
    columns += " pdbx_PDB_model_num"
    text = "data_x\nloop_\n" + "".join(f"_atom_site.{name}\n" for name in columns.split())
    for k, (name, x, y) in enumerate(BACKBONE, 1):
        text += f"ATOM {k} {name[0]} {name} ALA A 1 {x} {y} 0.0 1 ALA A {name} 1\n"
    path = tmp_path / f"x{ending}"
    packed = gzip.compress(text.encode()) if ending.endswith(".gz") else text.encode()
    path.write_bytes(packed)
    source = open_trajectory(path)
    assert source.graph.numbers.tolist() == [7, 6, 6, 8]
    assert source.describe()["molecules"] == {"C2NO": 1}
