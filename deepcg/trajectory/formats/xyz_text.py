"""The text of XYZ files: where frames begin, and what the columns of their atoms are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from deepcg.runtime.errors import InputError
from deepcg.trajectory.formats.text_lines import TextFrame, check_same_count, lines_of

NUMBER = r"[-+]?\d*\.?\d+(?:[eEdD][-+]?\d+)?"

CP2K_COMMENT = re.compile(
    rf"^\s*i\s*=\s*\d+\s*,\s*time\s*=\s*({NUMBER})\s*(?:fs)?\s*,.*\bE\s*=\s*{NUMBER}", re.I
)
"""What CP2K writes above the atoms of a step of dynamics; the time is in fs."""

FEMTOSECOND = 1e-3  # ps

_PROPERTIES = re.compile(r"(?:^|\s)Properties=(?:\"([^\"]*)\"|(\S+))", re.I)

_NO_FORCES = re.compile(
    r"std|err|var|weight|mask|unc|diff|delta|norm|spread|magn|constant|field", re.I
)
"""What makes a column with the word force another thing than forces."""


def split_xyz(path: Path) -> Iterator[TextFrame]:
    """Yield each frame, as long as its first line says; blank lines between frames are no end.

    Raises
    ------
    InputError
        A frame is cut, has other atoms than the first in number, or something is left between
        frames or after the last one.
    """
    lines = enumerate(lines_of(path), 1)
    index, of_first = 0, 0
    for number, head in lines:
        if not head.strip():
            continue
        n_atoms = _n_atoms(path, index, number, head)
        of_first = of_first if index else n_atoms
        check_same_count(path, index, n_atoms, of_first)
        body = [line for _, line in islice(lines, n_atoms + 1)]
        _check_whole(path, index, number, n_atoms, body)
        yield TextFrame(head + "".join(body), n_atoms, _time_of(body[0]))
        index += 1


def columns_of(comment: str) -> dict[str, tuple[str, int]]:
    """Return the columns of atoms by name: their type (S, R, I, L) and how many there are.

    Empty where the comment does not name them: the file is a plain XYZ.

    Raises
    ------
    ValueError
        The names are not in threes.
    """
    found = _PROPERTIES.search(comment)
    if found is None:
        return {}
    parts = (found[1] or found[2]).split(":")
    if len(parts) % 3:
        raise ValueError(f"Properties={found[1] or found[2]} is not NAME:TYPE:COLUMNS:...")
    return {
        name: (kind, int(count))
        for name, kind, count in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }


def usual_comment(comment: str) -> str:
    """Return a comment with its keys spelled as readers know them; empty if it has none of them.

    What is written for people alone may have quotes, which a reader of keys stumbles over.
    """
    keys = ("Properties", "Lattice", "pbc")
    if not any(f"{key.lower()}=" in comment.lower() for key in keys):
        return ""
    for key in keys:
        comment = re.sub(rf"(^|\s){key}=", rf"\g<1>{key}=", comment, flags=re.I)
    return comment


def called_forces(name: str) -> bool:
    """Whether a name of columns or of an array says that it holds forces."""
    plain = name.lower()
    return ("force" in plain or plain in ("frc", "f", "fs")) and not _NO_FORCES.search(plain)


def only_forces(
    path: Path, candidates: Sequence[str], wanted: str | None, all_names: Sequence[str]
) -> str | None:
    """Return the name of the forces among ``candidates``, ``None`` where there are none.

    Raises
    ------
    InputError
        There are several and none is ``wanted``, or the wanted one is not there.
    """
    if wanted is not None:
        if wanted not in candidates:
            raise InputError(
                f"{path} has no forces {wanted!r} of three numbers on each atom: it has "
                f"{', '.join(all_names)}"
            )
        return wanted
    if len(candidates) > 1:
        raise InputError(
            f"{path} has forces of several names, {' and '.join(candidates)}: say which by "
            f"--forces {path}:{candidates[0]}"
        )
    return candidates[0] if candidates else None


def _n_atoms(path: Path, index: int, number: int, head: str) -> int:
    text = head.strip()
    if text.isdecimal() and len(text) <= 12 and int(text):
        return int(text)
    last = "" if index == 0 else f"; the last good frame is {index - 1}, from 0"
    raise InputError(
        f"{path}: frame {index} does not begin with a number of atoms but {text[:40]!r} "
        f"(line {number}){last}"
    )


def _check_whole(path: Path, index: int, number: int, n_atoms: int, body: list[str]) -> None:
    if len(body) < n_atoms + 1:
        raise InputError(
            f"{path} is truncated within frame {index}; the last good frame is {index - 1}, from 0"
        )
    blank = next((k for k, line in enumerate(body[1:], 1) if not line.strip()), None)
    if blank is not None:
        raise InputError(
            f"{path}: line {number + 1 + blank} is blank, after {blank - 1} of the {n_atoms} atoms "
            f"of frame {index}: the frame is truncated, or the line has to go; the last good frame "
            f"is {index - 1}, from 0"
        )


def _time_of(comment: str) -> float | None:
    found = CP2K_COMMENT.match(comment)
    return float(found[1].lower().replace("d", "e")) * FEMTOSECOND if found else None
