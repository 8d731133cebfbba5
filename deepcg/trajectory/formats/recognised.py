"""Files of other programs that are no trajectories: what they are, and what to give instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from deepcg.runtime.errors import InputError
from deepcg.trajectory.formats.plumed import FIELDS, PlumedTable, read_plumed
from deepcg.trajectory.formats.text_lines import lines_of

FRAMES = "give the trajectory itself"
BIAS = "give it as --bias {path} to 'deepcg fes' or 'deepcg fit', for the weights of frames"
OURS = "it is no input here: 'deepcg fes' makes surfaces of frames, and reads its own fes.npz"


@dataclass(frozen=True, slots=True)
class OtherFile:
    """What a file is, what to do, and what it holds, as plain values."""

    kind: str
    use: str
    facts: dict[str, object] = field(default_factory=dict)


def other_kind(path: Path) -> OtherFile | None:
    """Return what a file of another program is, by its content or else its name.

    ``None`` where it is not recognised.
    """
    if not path.is_file() or path.stat().st_size == 0:
        return None
    with path.open("rb") as file:
        begin = file.read(4096)
    by_text = None if b"\0" in begin else _by_text(path)
    return _by_bytes(begin) or by_text or _by_name(path) or _packed(path, begin)


def _by_bytes(begin: bytes) -> OtherFile | None:
    if begin[:4] == (171817).to_bytes(4, "big"):
        return OtherFile("checkpoint of GROMACS", FRAMES + ", .trr with forces or .xtc")
    if begin[:4] == (-55555).to_bytes(4, "big", signed=True):
        return OtherFile("energies of GROMACS", FRAMES + ", .trr with forces or .xtc")
    if b"VERSION " in begin[:24]:
        if begin.lstrip().startswith(b"%VERSION"):
            return OtherFile("topology of AMBER", "give it as --topology, beside a trajectory")
        return OtherFile("run input of GROMACS", "give the .gro or .pdb as --topology with a .trr")
    return None


def _packed(path: Path, begin: bytes) -> OtherFile | None:
    for magic, (name, unpack) in _PACKED.items():
        if begin.startswith(magic):
            return OtherFile(f"a file packed by {name}", f"unpack it first, '{unpack} -k {path}'")
    return None


def _by_text(path: Path) -> OtherFile | None:
    try:
        lines = list(islice(lines_of(path), 60))
    except InputError:
        return None
    first, text = lines[0] if lines else "", "".join(lines)
    if first.startswith(FIELDS):
        return _plumed(path)
    grid = _colvars_grid(path, lines)
    if grid is not None:
        return grid
    return next((kind for matches, kind in _TEXTS if matches(first, text)), None)


def _plumed(path: Path) -> OtherFile:
    table = read_plumed(path)
    facts: dict[str, object] = {"columns": list(table.fields), "rows": len(table.rows)}
    if "time" in table.fields:
        at = table.column("time")
        facts["time_ps"] = [float(at[0]), float(at[-1])]
    return OtherFile(f"{table.what} of PLUMED", _use_of(table).format(path=path), facts)


def _use_of(table: PlumedTable) -> str:
    if table.what == "HILLS":
        return (
            "hills alone do not say the bias at the frames: print metad.rbias into a COLVAR (or "
            "have 'plumed driver' do so for the trajectory) and give that as --bias"
        )
    if table.what == "grid":
        return OURS
    biases = [name for name in table.fields if name.endswith((".bias", ".rbias"))]
    if biases:
        return f"{BIAS} (it has {', '.join(biases)})"
    return "it has no bias that would be of use as --bias; print metad.rbias for that"


def _colvars_grid(path: Path, lines: list[str]) -> OtherFile | None:
    """Return what a grid of Colvars is: ``# d``, then d lines of lower end, width, bins, period."""
    head = lines[0].split() if lines else []
    if len(head) != 2 or head[0] != "#" or not head[1].isdigit() or not 0 < int(head[1]) < 7:
        return None
    d = int(head[1])
    axes = [line.split() for line in lines[1 : 1 + d]]
    if len(axes) < d or any(len(a) != 5 or a[0] != "#" or not a[3].isdigit() for a in axes):
        return None
    try:
        lowest, widths = ([float(axis[k]) for axis in axes] for k in (1, 2))
    except ValueError:
        return None
    name = path.name.lower()
    what = next((text for end, text in _GRIDS.items() if name.endswith(end)), "grid")
    facts: dict[str, object] = {
        "coordinates": d,
        "bins": [int(axis[3]) for axis in axes],
        "lowest": lowest,
        "widths": widths,
        "periodic": [axis[4] != "0" for axis in axes],
    }
    return OtherFile(f"{what} of Colvars", OURS, facts)


_PACKED = {
    b"BZh": ("bzip2", "bunzip2"),
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}

_GRIDS = {
    ".pmf": "free energies",
    ".grad": "mean gradients",
    ".count": "histogram",
    ".hist.dat": "histogram",
}


def _has(pattern: str) -> Callable[[str, str], bool]:
    found = re.compile(pattern, re.M)
    return lambda first, text: found.search(text) is not None


_TEXTS: list[tuple[Callable[[str, str], bool], OtherFile]] = [
    (
        lambda first, text: re.match(r"#\s*step\s", first) is not None,
        OtherFile(
            "trajectory of Colvars (values, no frames)",
            FRAMES + "; its bias can be used as 'bias' in a .npz, kJ/mol",
        ),
    ),
    (
        _has(r"^configuration \{"),
        OtherFile("state of Colvars", FRAMES),
    ),
    (
        _has(r"^@\s*(title|TYPE|s0 legend|\s*xaxis)"),
        OtherFile("graph of GROMACS", FRAMES + ", .trr with forces or .xtc"),
    ),
    (
        _has(r"^\s*(integrator|nsteps)\s*="),
        OtherFile("parameters of GROMACS", FRAMES + ", .trr with forces or .xtc"),
    ),
    (
        _has(r":-\) GROMACS|^Log file opened|^GROMACS:"),
        OtherFile("log of GROMACS", FRAMES + ", .trr with forces or .xtc"),
    ),
    (
        _has(r"^\[ *(moleculetype|atomtypes|defaults|molecules) *\]"),
        OtherFile("topology of GROMACS", "give the .gro or .pdb as --topology with a .trr"),
    ),
    (
        _has(r"^LAMMPS \("),
        OtherFile("log of LAMMPS", FRAMES + ", a dump of id element x y z fx fy fz"),
    ),
    (
        _has(r"^\s*(pair_style|read_data|atom_style|units)\s+\w"),
        OtherFile("input of LAMMPS", FRAMES + ", a dump of id element x y z fx fy fz"),
    ),
    (
        _has(r"^\s*\d+\s+atom types\s*$"),
        OtherFile("data of LAMMPS", FRAMES + ", a dump of id element x y z fx fy fz"),
    ),
    (
        _has(r"^\s*&cntrl"),
        OtherFile("input or output of AMBER", FRAMES + ", .nc, with forces by ntwf"),
    ),
    (
        _has(r"Amber \d+ (SANDER|PMEMD)"),
        OtherFile("output of AMBER", FRAMES + ", .nc, with forces by ntwf"),
    ),
    (
        _has(r"^\s*&(GLOBAL|FORCE_EVAL)\b"),
        OtherFile("input of CP2K", FRAMES + ", PROJECT-pos-1.xyz, and its -frc-1.xyz as --forces"),
    ),
    (
        _has(r"^ (DBCSR|CP2K)\|"),
        OtherFile("output of CP2K", "give it as --forces if it lists them, with a trajectory"),
    ),
    (
        _has(r"^#\s*Step Nr\.\s+Time\[fs\]"),
        OtherFile("energies of CP2K", FRAMES + ", PROJECT-pos-1.xyz"),
    ),
    (
        _has(r"^#\"?(Progress|Step)\b.*Energy"),
        OtherFile("log of OpenMM", FRAMES + ", .dcd"),
    ),
]

_NAMES = {
    ".tpr": OtherFile("run input of GROMACS", "give the .gro or .pdb as --topology with a .trr"),
    ".cpt": OtherFile("checkpoint of GROMACS", FRAMES + ", .trr with forces or .xtc"),
    ".edr": OtherFile("energies of GROMACS", FRAMES + ", .trr with forces or .xtc"),
    ".xvg": OtherFile("graph of GROMACS", FRAMES + ", .trr with forces or .xtc"),
    ".mdp": OtherFile("parameters of GROMACS", FRAMES + ", .trr with forces or .xtc"),
    ".ndx": OtherFile("groups of GROMACS", FRAMES + ", .trr with forces or .xtc"),
    ".chk": OtherFile("checkpoint of a simulation", FRAMES),
    ".pmf": OtherFile("free energies", OURS),
    ".mdin": OtherFile("input of AMBER", FRAMES + ", .nc, with forces by ntwf"),
    ".prmtop": OtherFile("topology of AMBER", "give it as --topology, beside a trajectory"),
    ".parm7": OtherFile("topology of AMBER", "give it as --topology, beside a trajectory"),
    ".psf": OtherFile("topology of CHARMM", "give it as --topology, beside a trajectory"),
    ".mol2": OtherFile("topology", "give it as --topology, beside a trajectory"),
}


def _by_name(path: Path) -> OtherFile | None:
    found = _NAMES.get(path.suffix.lower())
    return None if found is None else OtherFile(f"{found.kind} (by its name)", found.use)
