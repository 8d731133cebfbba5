"""A fitted model as a function of arrays: its energy, its forces and the map it was fitted with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import mdtraj
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from deepcg.compute.device import device_of
from deepcg.geometry.box import reduced, volumes
from deepcg.mapping.beads import build_mapping, check_images
from deepcg.mapping.collective_variables import build_variables
from deepcg.potentials.beads import NetworkPotential, energy_and_forces
from deepcg.potentials.collective_variables import CVPotential
from deepcg.potentials.ensemble import EnsemblePotential, SurfaceEnsemble, load_members
from deepcg.potentials.model_file import CVModel, Model
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import read_arrays
from deepcg.trajectory.bonds import completed
from deepcg.trajectory.frames import CVFrames, Frames
from deepcg.trajectory.reader import check_sure, iter_frames, open_trajectory
from deepcg.trajectory.topology import MoleculeGraph, make_whole

Array = TypeVar("Array", NDArray[Any], Tensor)
"""NumPy in, NumPy out; tensors in, tensors out."""

AT_ONCE = 4_000
"""Beads, of as many frames, that are evaluated in one call: bounds memory."""

VALUES_AT_ONCE = 100_000
"""Points in collective variables that are evaluated in one call."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class BeadModel:
    """The free energy U(R) of beads, whose forces are the mean forces.

    Arrays are of one frame or of several: positions (n_beads, 3) or (n_frames, n_beads, 3), nm.
    What comes back is of the kind (NumPy or torch), of the precision and on the device of what
    was given; gradients do not flow through it. The model computes in its own precision.

    Parameters
    ----------
    potential
        U of tensors.
    bead_names
        (n_beads,), the names of their types, such as ``"O"``.
    masses
        (n_beads,), Da.
    temperature
        K; U holds there only.
    coordinates
        The name of the map from atoms to beads.
    periodic
        Whether the beads are in a box; ``None`` where the files do not say.
    """

    potential: NetworkPotential | EnsemblePotential
    bead_names: tuple[str, ...]
    masses: NDArray[np.float64]
    temperature: float
    coordinates: str
    periodic: bool | None

    def __repr__(self) -> str:
        """Return what it is in a line."""
        beads = f"{len(self.bead_names)} beads ({', '.join(dict.fromkeys(self.bead_names))})"
        return f"<BeadModel of {beads} by {self.coordinates!r} at {self.temperature:g} K>"

    def energy(
        self,
        positions: Array,
        box: ArrayLike | Tensor | None = None,
        types: Sequence[str] | None = None,
    ) -> Array:
        """Return U () or (n_frames,), kJ/mol; arguments and errors of ``energy_and_forces``."""
        return self.energy_and_forces(positions, box, types)[0]

    def forces(
        self,
        positions: Array,
        box: ArrayLike | Tensor | None = None,
        types: Sequence[str] | None = None,
    ) -> Array:
        """Return -dU/dR, kJ/mol/nm, shaped as positions; see ``energy_and_forces``."""
        return self.energy_and_forces(positions, box, types)[1]

    def energy_and_forces(
        self,
        positions: Array,
        box: ArrayLike | Tensor | None = None,
        types: Sequence[str] | None = None,
    ) -> tuple[Array, Array]:
        """Return U () or (n_frames,), kJ/mol, and -dU/dR, kJ/mol/nm, shaped as positions.

        Both are detached: for gradients in the positions take the forces.

        Parameters
        ----------
        positions
            (n_beads, 3) or (n_frames, n_beads, 3), nm; a molecule with a force field is whole.
        box
            nm, of all frames: lengths (3,) or vectors in rows (3, 3); or of each (n_frames, 3, 3).
            ``None``: open boundaries.
        types
            (n_beads,), names of the types of the beads, such as ``["O"] * 432``: U holds for any
            number of beads of the types that it was fitted to, at about that density. ``None``:
            the beads are those of the fit.

        Raises
        ------
        InputError
            Shapes do not fit, numbers are not finite, a periodic model gets no box, the box is
            too small for the cutoff, a type is unknown, or other beads are given to a model with a
            force field of its molecule.
        """
        if types is not None:
            return self.of_beads(types).energy_and_forces(positions, box)
        like = next(self.potential.parameters())
        what = "positions", "beads", ", or the types of others"
        frames = _batch(positions, (len(self.bead_names), 3), *what)
        boxes, rotation = self._boxes(box, len(frames))
        turned = frames if rotation is None else frames @ rotation
        step = max(1, AT_ONCE // len(self.bead_names))
        parts = [
            energy_and_forces(
                self.potential,
                turned[k : k + step].to(like),
                None if boxes is None else boxes[k : k + step].to(like),
            )
            for k in range(0, len(frames), step)
        ]
        energy, forces = (torch.cat(part) for part in zip(*parts, strict=True))
        if rotation is not None:
            forces = forces.to(rotation) @ rotation.transpose(1, 2)
        return _alike(energy, positions, frames), _alike(forces, positions, frames)

    def of_beads(self, types: Sequence[str]) -> BeadModel:
        """Return the model of other beads, of types that it knows by these names, one a bead.

        Raises
        ------
        InputError
            There are none, a name is unknown, or beads are held by a force field, which is of
            those of the fit alone.
        """
        given = [types] if isinstance(types, str) else list(types)
        known = dict(zip(self.bead_names, self.potential.types.tolist(), strict=True))
        if not given:
            raise InputError("no beads are given: name the type of each")
        for name in given:
            if name not in known:
                raise InputError(
                    f"the model knows no beads of type {name!r}: choose from {', '.join(known)}"
                )
        mass = dict(zip(self.bead_names, self.masses.tolist(), strict=True))
        return replace(
            self,
            potential=self.potential.of_beads(torch.tensor([known[name] for name in given])),
            bead_names=tuple(given),
            masses=np.array([mass[name] for name in given]),
        )

    def map(
        self,
        trajectory: str | Path | mdtraj.Trajectory,
        *,
        topology: str | Path | None = None,
        units: str | None = None,
        bonds: str = "auto",
    ) -> Frames:
        """Return the beads of an atomistic trajectory: positions (n_frames, n_beads, 3) and boxes.

        Parameters
        ----------
        trajectory
            A file, or one that MDTraj has loaded.
        topology
            Of a file; by default that beside it.
        units
            ``"LENGTH,ENERGY"`` of a file that does not fix its own.
        bonds
            Beside those of the topology: auto, guess or none, as of ``deepcg fit``.

        Raises
        ------
        InputError
            The file cannot be used, or its beads are not those of the model.
        """
        atoms, chunks = _atoms(trajectory, topology, units, bonds)
        mapping = build_mapping(self.coordinates, atoms.topology)
        check_images(mapping, atoms, self.coordinates)
        names = tuple(mapping.type_names[k] for k in mapping.types.tolist())
        if names != self.bead_names:
            raise InputError(
                f"{_what(trajectory)} has other beads than the model: {len(names)} by "
                f"{self.coordinates!r} ({', '.join(dict.fromkeys(names))}), not "
                f"{len(self.bead_names)} ({', '.join(dict.fromkeys(self.bead_names))})"
            )
        return Frames.join(
            Frames(
                mapping(part.positions),
                None if self.periodic is False else part.box,
                None,
                mapping.types,
                part.weights,
            )
            for part in chunks
        )

    def _boxes(
        self, box: ArrayLike | Tensor | None, n_frames: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return boxes (n_frames, 3, 3) in reduced form, and the rotations to it, if any."""
        if box is None:
            if self.periodic:
                raise InputError("the model is of beads in a periodic box: give the box, nm")
            return None, None
        given = _numbers(box, "box").cpu().numpy()
        vectors = np.diag(given) if given.shape == (3,) else given
        if vectors.shape not in ((3, 3), (1, 3, 3), (n_frames, 3, 3)):
            raise InputError(
                f"the box has shape {given.shape}: give (3,), (3, 3) or ({n_frames}, 3, 3), nm"
            )
        vectors = np.broadcast_to(vectors, (n_frames, 3, 3))
        if not (volumes(vectors) > 0).all():
            raise InputError("a box has no positive volume: give right-handed box vectors in rows")
        upright, rotation = reduced(vectors)
        return torch.from_numpy(upright), None if rotation is None else torch.from_numpy(rotation)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class CollectiveVariableModel:
    """The free energy U(xi) of d collective variables, whose forces are the mean forces.

    Arrays are of one point (d,) or of several (n, d), in the units of the coordinates. What comes
    back is of the kind, the precision and on the device of what was given, as of `BeadModel`.

    Parameters
    ----------
    potential
        U of tensors.
    names, units
        Of the coordinates.
    temperature
        K; U holds there only.
    coordinates
        What they are called together.
    """

    potential: CVPotential | SurfaceEnsemble
    names: tuple[str, ...]
    units: tuple[str, ...]
    temperature: float
    coordinates: str

    def __repr__(self) -> str:
        """Return what it is in a line."""
        pairs = zip(self.names, self.units, strict=True)
        names = ", ".join(f"{name} ({unit})" for name, unit in pairs)
        return f"<CollectiveVariableModel of {names} at {self.temperature:g} K>"

    def energy(self, values: Array) -> Array:
        """Return U () or (n,), kJ/mol, up to a constant; see ``energy_and_forces``."""
        return self.energy_and_forces(values)[0]

    def forces(self, values: Array) -> Array:
        """Return -dU/dxi, kJ/mol per unit, shaped as values; see ``energy_and_forces``."""
        return self.energy_and_forces(values)[1]

    def energy_and_forces(self, values: Array) -> tuple[Array, Array]:
        """Return U () or (n,), kJ/mol, and -dU/dxi, kJ/mol per unit, shaped as values.

        Parameters
        ----------
        values
            (d,) or (n, d), in the units of the coordinates.

        Raises
        ------
        InputError
            Shapes do not fit, or numbers are not finite.
        """
        points = _batch(values, (len(self.names),), "values", "coordinates")
        like = next(self.potential.parameters())
        parts = [self.potential.forces(part.to(like)) for part in points.split(VALUES_AT_ONCE)]
        energy, forces = (torch.cat(part).detach() for part in zip(*parts, strict=True))
        return _alike(energy, values, points), _alike(forces, values, points)

    def map(
        self,
        trajectory: str | Path | mdtraj.Trajectory,
        *,
        topology: str | Path | None = None,
        units: str | None = None,
        bonds: str = "auto",
    ) -> CVFrames:
        """Return the values (n_frames, d) of an atomistic trajectory; as ``BeadModel.map``."""
        atoms, chunks = _atoms(trajectory, topology, units, bonds)
        variables = build_variables(self.coordinates, atoms.topology, through_box=atoms.through_box)
        if variables.names != self.names:
            raise InputError(
                f"{_what(trajectory)} has other coordinates than the model: "
                f"{', '.join(variables.names)}, not {', '.join(self.names)}"
            )
        return CVFrames.join(
            CVFrames(variables(part.positions, part.box).double(), None, part.weights)
            for part in chunks
        )


def load(
    run: str | Path, member: int | Literal["mean"] = 0, *, device: str = "cpu"
) -> BeadModel | CollectiveVariableModel:
    """Return the model of a run folder, or of a model file, as a function of arrays.

    Parameters
    ----------
    run
        Folder that ``deepcg fit`` made.
    member
        Of an ensemble, its number from 0, or ``"mean"``: the mean of all members.
    device
        auto, cpu or cuda.

    Raises
    ------
    InputError
        There is no model, no such member, or no such device.
    """
    path = Path(run)
    members = load_members(path, device_of(device))
    if member != "mean" and not 0 <= member < len(members):
        raise InputError(f"{run} has the members 0 to {len(members) - 1}, not {member}")
    chosen = members if member == "mean" else [members[member]]
    surfaces = [model for model in chosen if isinstance(model, CVModel)]
    if surfaces:
        first = surfaces[0]
        return CollectiveVariableModel(
            _one_or_mean([model.potential for model in surfaces], SurfaceEnsemble),
            first.names,
            first.units,
            first.temperature,
            first.mapping,
        )
    beads = [model for model in chosen if isinstance(model, Model)]
    return BeadModel(
        _one_or_mean([model.potential for model in beads], EnsemblePotential),
        tuple(beads[0].type_names[k] for k in beads[0].potential.types.tolist()),
        beads[0].masses.double().cpu().numpy(),
        beads[0].temperature,
        beads[0].mapping,
        _is_periodic(path),
    )


One = TypeVar("One", bound=torch.nn.Module)
Several = TypeVar("Several", bound=torch.nn.Module)


def _one_or_mean(members: list[One], mean_of: Callable[[list[One]], Several]) -> One | Several:
    """Return the only member, or the mean of several; their weights are fixed."""
    fixed = [member.requires_grad_(False) for member in members]
    return fixed[0] if len(fixed) == 1 else mean_of(fixed)


def _is_periodic(run: Path) -> bool | None:
    path = run / "start.npz"
    return "box" in read_arrays(path) if path.is_file() else None


def _numbers(values: ArrayLike | Tensor, what: str) -> Tensor:
    """Return finite numbers as a tensor of floats that shares nothing with them."""
    try:
        table = values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} are not an array of numbers") from error
    table = table.detach().clone()
    if table.dtype not in (torch.float32, torch.float64):  # whole numbers, or too few digits
        table = table.double()
    if not table.isfinite().all():
        raise InputError(f"{what} are not finite")
    return table


def _batch(
    values: ArrayLike | Tensor, shape: tuple[int, ...], what: str, of: str, way_out: str = ""
) -> Tensor:
    """Return a batch (n, *shape) of one item or several."""
    table, n = _numbers(values, what), shape[0]
    if tuple(table.shape[-len(shape) :]) != shape or table.ndim - len(shape) not in (0, 1):
        tail = ", ".join(map(str, shape))
        one = f"({tail},)" if len(shape) == 1 else f"({tail})"
        raise InputError(
            f"{what} have shape {tuple(table.shape)}, but the model has {n} {of}: give {one} or "
            f"(n, {tail}){way_out}"
        )
    batch = table.reshape(-1, *shape)
    if not len(batch):
        raise InputError(f"{what} have no frames")
    return batch


def _alike(found: Tensor, given: Array, batch: Tensor) -> Array:
    """Return results as what was given is: NumPy or torch, precision, one or several."""
    found = found.to(batch)
    one = found if len(np.shape(given)) == batch.ndim else found[0]
    return one if isinstance(given, Tensor) else one.numpy()


def _atoms(
    trajectory: str | Path | mdtraj.Trajectory,
    topology: str | Path | None,
    units: str | None,
    bonds: str,
) -> tuple[MoleculeGraph, Iterable[Frames]]:
    """Return the atoms of a trajectory and its frames, molecules whole."""
    if isinstance(trajectory, mdtraj.Trajectory):
        return _loaded(trajectory, bonds)
    source = open_trajectory(trajectory, topology=topology, units=units, bonds=bonds)
    return source.graph, iter_frames(source, with_forces=False)


def _loaded(trajectory: mdtraj.Trajectory, bonds: str) -> tuple[MoleculeGraph, list[Frames]]:
    positions, vectors = trajectory.xyz, trajectory.unitcell_vectors
    box, rotation = (None, None) if vectors is None else reduced(vectors)
    turned = positions if rotation is None else positions @ rotation
    bare = MoleculeGraph(trajectory.topology)
    bonding = completed(bare, turned[0], None if box is None else box[0], bonds)
    check_sure(bonding, "the trajectory")
    graph = bonding.graph
    whole = make_whole(turned, box, graph.spanning_tree)
    boxes = None if box is None else torch.from_numpy(box).float()
    types = torch.zeros(trajectory.n_atoms, dtype=torch.long)
    return graph, [Frames(torch.from_numpy(np.array(whole, np.float32)), boxes, None, types)]


def _what(trajectory: str | Path | mdtraj.Trajectory) -> str:
    return "the trajectory" if isinstance(trajectory, mdtraj.Trajectory) else str(trajectory)
