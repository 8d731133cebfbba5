"""Collective variables: coarse coordinates that are functions of a few atoms.

They are the second family of coarse coordinates beside the beads of a mapping. Periodicity and
unit are part of a coordinate. A dihedral has the sign of IUPAC: zero for cis, pi for trans,
positive where the far bond is turned clockwise as seen along the middle one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import mdtraj
import numpy as np
import torch
from torch import Tensor

from deepcg.geometry import internal_coordinates
from deepcg.geometry.box import lattice_shift
from deepcg.runtime.arrays import Integers
from deepcg.runtime.errors import InputError, nearest
from deepcg.trajectory.topology import MoleculeGraph


@dataclass(frozen=True, slots=True, eq=False)
class Variable:
    """One coordinate.

    Parameters
    ----------
    name
        What tables and axes call it.
    atoms
        Indices in the system of the atoms that it depends on.
    function
        From their positions (..., len(atoms), 3), nm, to values (...). Written in PyTorch,
        differentiable twice, and fit for ``torch.func``: no branches on values.
    period
        ``None`` where the coordinate is not periodic.
    unit
        Of the values, such as ``"rad"``.
    """

    name: str
    atoms: tuple[int, ...]
    function: Callable[[Tensor], Tensor]
    period: float | None
    unit: str

    def __post_init__(self) -> None:
        if not self.atoms or len(set(self.atoms)) < len(self.atoms) or min(self.atoms) < 0:
            raise InputError(
                f"the coordinate {self.name!r} is of the atoms {list(self.atoms)}: "
                "name atoms by their index from 0, each once"
            )
        if self.period is not None and not (math.isfinite(self.period) and self.period > 0):
            raise InputError(
                f"the coordinate {self.name!r} has the period {self.period}: "
                "give a positive one, or None"
            )


@dataclass(frozen=True, slots=True, eq=False)
class CollectiveVariables:
    """d coordinates of chosen atoms.

    Parameters
    ----------
    variables
        The coordinates; their names differ.
    n_atoms
        Number of atoms in a frame.
    molecules
        (n_atoms,), the number of the molecule of every atom, which is whole in `Frames`. In a
        periodic box an atom of another molecule than the one before it, in the order of
        ``Variable.atoms``, is taken at its image nearest to that one. That image is the same in
        all of a neighborhood, and values have no jumps, up to half of the smallest height of the
        box. ``None``: all are one molecule.
    """

    variables: tuple[Variable, ...]
    n_atoms: int
    molecules: Integers | None = None

    def __post_init__(self) -> None:
        if not self.variables:
            raise InputError("no collective variables: name one or more")
        if len(set(self.names)) < len(self.names):
            raise InputError(f"two of the coordinates {', '.join(self.names)} have one name")
        for variable in self.variables:
            if max(variable.atoms) >= self.n_atoms:
                raise InputError(
                    f"the coordinate {variable.name!r} is of atom {max(variable.atoms)}, but there "
                    f"are {self.n_atoms} atoms: count from 0 to {self.n_atoms - 1}"
                )

    def __call__(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the values (n, d) at positions (n, n_atoms, 3), nm, in boxes (n, 3, 3) or none.

        Differentiable in the positions. The box matters where a coordinate spans molecules.
        """
        points = self.points(positions, box)
        values = [v.function(x) for v, x in zip(self.variables, points, strict=True)]
        return torch.stack(values, dim=-1)

    def points(self, positions: Tensor, box: Tensor | None = None) -> list[Tensor]:
        """Return the positions (n, m, 3) of each coordinate's atoms, at the images it sees."""
        if positions.ndim != 3 or positions.shape[1] != self.n_atoms:
            raise ValueError(
                f"positions have shape {tuple(positions.shape)}, not (frames, {self.n_atoms}, 3)"
            )
        return [self.points_of(variable, positions, box) for variable in self.variables]

    def points_of(self, variable: Variable, positions: Tensor, box: Tensor | None) -> Tensor:
        """Return the positions (n, m, 3) of one coordinate's atoms, at the images it sees."""
        points = positions.index_select(1, torch.tensor(variable.atoms, device=positions.device))
        if box is None or self.molecules is None:
            return points
        owners = self.molecules[list(variable.atoms)]
        across = owners[1:] != owners[:-1]
        if not across.any():
            return points
        steps = points.detach().diff(dim=1)  # (n, m - 1, 3)
        shifts = lattice_shift(steps, box.to(steps)) * torch.from_numpy(across)[:, None].to(steps)
        return torch.cat([points[:, :1], points[:, 1:] + shifts.cumsum(1)], dim=1)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return tuple(v.name for v in self.variables)

    @property
    def periods(self) -> tuple[float | None, ...]:
        """Periods of the coordinates, ``None`` where there is none."""
        return tuple(v.period for v in self.variables)

    @property
    def units(self) -> tuple[str, ...]:
        """Units of the coordinates."""
        return tuple(v.unit for v in self.variables)

    @property
    def atoms(self) -> Integers:
        """(m,) indices in the system of the atoms that are touched, ascending."""
        return np.unique(np.concatenate([v.atoms for v in self.variables]))


def dihedral(points: Tensor) -> Tensor:
    """Return the dihedral angle (...) of (..., 4, 3), nm: rad, -pi to pi."""
    return internal_coordinates.dihedral(_by_component(points))


def angle(points: Tensor) -> Tensor:
    """Return the angle (...) at the second of (..., 3, 3), nm: rad, without a slope where straight.

    A coordinate that has no direction must be seen to have none, and not to have no force.
    """
    return internal_coordinates.angle(_by_component(points), least=0.0)


def distance(points: Tensor) -> Tensor:
    """Return the distance (...) between (..., 2, 3), nm."""
    # not by components, as in `internal_coordinates`: it rounds in another way
    length: Tensor = (points[..., 1, :] - points[..., 0, :]).norm(dim=-1)
    return length


@dataclass(frozen=True, slots=True)
class _Kind:
    function: Callable[[Tensor], Tensor]
    n_atoms: int
    period: float | None
    unit: str


KINDS: dict[str, _Kind] = {
    "angle": _Kind(angle, 3, None, "rad"),
    "dihedral": _Kind(dihedral, 4, 2 * math.pi, "rad"),
    "distance": _Kind(distance, 2, None, "nm"),
}
"""Coordinates that can be spelled as KIND:ATOM,ATOM,..."""


def is_collective(name: str) -> bool:
    """Return whether the name of coarse coordinates is of variables, not of a mapping to beads."""
    return any(word in (*KINDS, *BY_TOPOLOGY) for word, _ in _words(name))


def build_variables(
    name: str | CollectiveVariables | Iterable[Variable],
    topology: mdtraj.Topology,
    *,
    of_beads: bool = False,
    through_box: Integers | None = None,
) -> CollectiveVariables:
    """Return the collective variables called ``name``, or those that are given.

    Parameters
    ----------
    name
        ``dihedrals``, or coordinates such as ``dihedral:4,6,8,14;distance:3,7`` with sites
        counted from 0; or the `Variable` objects themselves. ``@3`` is atom 3 wherever beads are
        counted, and 3 of atoms is the same.
    of_beads
        Whether the sites are beads, so that there is no atom.
    through_box
        Atoms of molecules that are whole in no image: each is taken at its nearest one.

    Raises
    ------
    InputError
        Unknown names, wrong atoms, nothing found.
    """
    if isinstance(name, CollectiveVariables):
        if name.n_atoms != topology.n_atoms:
            raise InputError(
                f"the collective variables are of {name.n_atoms} atoms, "
                f"but the topology has {topology.n_atoms}"
            )
        return name
    if isinstance(name, str) and of_beads:
        recounted(name, _bead)
    variables = _spelled(name, topology) if isinstance(name, str) else name
    molecules = MoleculeGraph(topology).molecule_index
    if through_box is not None and len(through_box):
        molecules = molecules.copy()
        molecules[through_box] = topology.n_atoms + np.arange(len(through_box))
    return CollectiveVariables(tuple(variables), topology.n_atoms, molecules)


def recounted(name: str, meaning: Callable[[str], str]) -> str:
    """Return a name with every number of a site, such as ``3`` or ``@3``, as ``meaning`` has it.

    Raises
    ------
    InputError
        A coordinate does not name its sites by numbers.
    """
    parts = []
    for kind, sites in _words(name):
        words = _sites(kind, sites) if kind in KINDS else []
        parts.append(f"{kind}:{','.join(map(meaning, words))}" if words else f"{kind}:{sites}")
    return ";".join(part.removesuffix(":") for part in parts)


def counts_sites(name: str) -> bool:
    """Return whether a name counts sites, other than atoms that it names with an ``@``."""
    return any(
        not word.strip().startswith("@")
        for kind, sites in _words(name)
        if kind in KINDS
        for word in sites.split(",")
    )


def label_of(kind: str, words: Iterable[str]) -> str:
    """Return what tables call a coordinate of these sites."""
    return f"{kind} {'-'.join(words)}"


def labels_of(name: str) -> tuple[str, ...]:
    """Return what tables call the coordinates of a name that count sites, in their order."""
    return tuple(
        label_of(kind, _sites(kind, sites)) for kind, sites in _words(name) if kind in KINDS
    )


def dihedrals(topology: mdtraj.Topology) -> tuple[Variable, ...]:
    """Return phi (C-N-CA-C) and psi (N-CA-C-N) of every residue that has them.

    Raises
    ------
    InputError
        There are none.
    """
    found = tuple(_backbone(topology))
    if not found:
        raise InputError(
            "no residue has N, CA and C bonded to a neighbor's: there is neither phi nor psi; "
            "spell the coordinates, as in dihedral:4,6,8,14"
        )
    return found


BY_TOPOLOGY: dict[str, Callable[[mdtraj.Topology], tuple[Variable, ...]]] = {"dihedrals": dihedrals}
"""Sets of coordinates that are found in a topology, by name.

A function of your own added here makes any differentiable coordinates known to all commands, as
one added to ``deepcg.mapping.beads.MAPPINGS`` does for beads.
"""


def _by_component(points: Tensor) -> internal_coordinates.Points:
    """Return the points (3, ...) of (..., n, 3)."""
    return list(points.movedim(-1, 0).unbind(-1))


def _words(name: str) -> Iterator[tuple[str, str]]:
    """Yield the kind, and what follows its colon, of every coordinate in a name."""
    for part in name.split(";"):
        kind, _, atoms = part.partition(":")
        yield kind.strip(), atoms.strip()


def _spelled(name: str, topology: mdtraj.Topology) -> Iterator[Variable]:
    for kind, atoms in _words(name):
        if kind in BY_TOPOLOGY:
            if atoms:
                raise InputError(f"{kind}:{atoms}: {kind} finds its atoms by itself, name none")
            yield from BY_TOPOLOGY[kind](topology)
        elif kind in KINDS:
            yield _of_kind(kind, atoms)
        else:
            choices = [*BY_TOPOLOGY, *(f"{key}:ATOMS" for key in KINDS)]
            raise InputError(
                f"unknown collective variable {kind!r}{nearest(kind, [*BY_TOPOLOGY, *KINDS])} "
                f"(choices: {', '.join(choices)})"
            )


def _of_kind(name: str, text: str) -> Variable:
    kind = KINDS[name]
    atoms = tuple(int(word.removeprefix("@")) for word in _sites(name, text))
    label = label_of(name, map(str, atoms))
    return Variable(label, atoms, kind.function, kind.period, kind.unit)


def _sites(name: str, text: str) -> list[str]:
    """Return the numbers of the sites of a coordinate, with their ``@`` where they are atoms."""
    n = KINDS[name].n_atoms
    words = [word.strip() for word in text.split(",")]
    if len(words) != n or not all(word.removeprefix("@").isdecimal() for word in words):
        example = ",".join(str(i) for i in range(n))
        raise InputError(
            f"{name}:{text} does not name {n} atoms: "
            f"give their indices, counted from 0, as in {name}:{example}"
        )
    at = ("@" * word.startswith("@") for word in words)
    return [f"{a}{int(word.removeprefix('@'))}" for a, word in zip(at, words, strict=True)]


def _bead(word: str) -> str:
    if word.startswith("@"):
        raise InputError(f"{word} names an atom, and the sites are beads here: count beads, from 0")
    return word


def _backbone(topology: mdtraj.Topology) -> Iterator[Variable]:
    links: dict[tuple[int, str], int] = {}  # from an atom to those of other residues, by name
    graph = MoleculeGraph(topology)
    for i, j in graph.bonds.tolist():
        a, b = topology.atom(i), topology.atom(j)
        if a.residue != b.residue:
            links |= {(i, b.name): j, (j, a.name): i}
    places = _places(topology, graph)
    for residue in topology.residues:
        own = {atom.name: atom.index for atom in residue.atoms}
        if not {"N", "CA", "C"} <= own.keys():
            continue
        n, ca, c = own["N"], own["CA"], own["C"]
        place = places[residue.index]
        if (n, "C") in links:
            yield _torsion(f"phi {place}", (links[n, "C"], n, ca, c))
        if (c, "N") in links:
            yield _torsion(f"psi {place}", (n, ca, c, links[c, "N"]))


def _places(topology: mdtraj.Topology, graph: MoleculeGraph) -> list[str]:
    """Return what to call every residue, such that no two are called alike.

    By name and number; where these occur again, by chain too, and where chains do not tell them
    apart, by molecule. What is left is told by its index.
    """
    plain = [f"{residue.name} {residue.resSeq}" for residue in topology.residues]
    first = [next(residue.atoms, None) for residue in topology.residues]
    ways = [
        plain,
        [f"{p} of chain {r.chain.index}" for p, r in zip(plain, topology.residues, strict=True)],
        [
            p if atom is None else f"{p} of molecule {graph.molecule_index[atom.index]}"
            for p, atom in zip(plain, first, strict=True)
        ],
        [f"{p} (residue {k} from 0)" for k, p in enumerate(plain)],
    ]
    counts = [Counter(way) for way in ways]
    alike: dict[str, list[int]] = {}
    for index, name in enumerate(plain):
        alike.setdefault(name, []).append(index)
    places = list(plain)
    for members in alike.values():
        for way, count in zip(ways, counts, strict=True):
            if all(count[way[k]] == 1 for k in members):
                break
        for k in members:
            places[k] = way[k]
    return places


def _torsion(name: str, atoms: tuple[int, ...]) -> Variable:
    return Variable(name, atoms, dihedral, 2 * math.pi, "rad")
