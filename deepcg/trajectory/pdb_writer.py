"""PDB files that keep all bonds: MDTraj leaves those between atoms of standard residues out."""

from __future__ import annotations

from pathlib import Path

import mdtraj

_MOST = 99_999  # atoms: serial numbers have five columns


def save_pdb(path: Path, frame: mdtraj.Trajectory) -> None:
    """Write frames with CONECT records of the bonds that nobody could know when reading them.

    A chain of C-alpha, say, is one of standard residues, and none of its bonds is a standard one.
    """
    frame.save_pdb(str(path))
    if frame.n_atoms > _MOST:
        return
    read = {frozenset((a.index, b.index)) for a, b in mdtraj.load_pdb(str(path)).topology.bonds}
    own = {frozenset((a.index, b.index)) for a, b in frame.topology.bonds}
    missing = sorted(sorted(pair) for pair in own - read)
    if not missing:
        return
    lines = path.read_text().splitlines()
    first = lines[: next((k for k, line in enumerate(lines) if line[:6] == "ENDMDL"), len(lines))]
    serials = [int(line[6:11]) for line in first if line[:6] in ("ATOM  ", "HETATM")]
    records = [f"CONECT{serials[i]:5d}{serials[j]:5d}" for i, j in missing]
    end = max(k for k, line in enumerate(lines) if line.strip() == "END")
    path.write_text("\n".join([*lines[:end], *records, *lines[end:], ""]))
