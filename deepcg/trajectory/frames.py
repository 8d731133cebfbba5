"""Frames: what a trajectory is, at either resolution."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Frames:
    """A batch of configurations of the same sites (atoms or CG beads).

    Parameters
    ----------
    positions
        (n_frames, n_sites, 3), nm, molecules whole.
    box
        (n_frames, 3, 3), nm; the rows are the box vectors, in the reduced form of
        OpenMM (lower triangular). ``None`` for open boundaries.
    forces
        (n_frames, n_sites, 3), kJ/mol/nm. ``None`` where they are not known.
    types
        (n_sites,), integers. Of atoms, as a trajectory is read: atomic numbers, 0 for virtual
        sites. Of beads, once they are mapped: bead types from 0, indices into the mapping's
        ``type_names``.
    weights
        (n_frames,), statistical weights of frames from biased sampling. ``None`` where
        all frames count the same.
    """

    positions: Tensor
    box: Tensor | None
    forces: Tensor | None
    types: Tensor
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        if self.positions.ndim != 3:
            raise ValueError(
                f"Frames.positions has shape {tuple(self.positions.shape)}, not (frames, sites, 3)"
            )
        n_frames, n_sites = self.positions.shape[:2]
        expected = {
            "positions": (n_frames, n_sites, 3),
            "box": (n_frames, 3, 3),
            "forces": (n_frames, n_sites, 3),
            "types": (n_sites,),
            "weights": (n_frames,),
        }
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(f"Frames.{name} has shape {tuple(value.shape)}, not {shape}")

    def __repr__(self) -> str:
        box = "open" if self.box is None else "periodic"
        forces = "no forces" if self.forces is None else "forces"
        return f"<Frames: {len(self)} of {self.positions.shape[1]} sites, {box}, {forces}>"

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, frames: slice | Tensor) -> Frames:
        """Return some of the frames."""

        def some(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[frames]

        return replace(
            self,
            positions=self.positions[frames],
            box=some(self.box),
            forces=some(self.forces),
            weights=some(self.weights),
        )

    @property
    def n_sites(self) -> int:
        """Number of sites in a frame."""
        return self.positions.shape[1]

    @classmethod
    def join(cls, parts: Iterable[Frames]) -> Frames:
        """Concatenate frames of the same sites."""
        parts = list(parts)
        if not parts:
            raise ValueError("no frames to join")

        def cat(name: str) -> Tensor | None:
            values = [getattr(p, name) for p in parts]
            return None if values[0] is None else torch.cat(values)

        positions = torch.cat([p.positions for p in parts])
        return cls(positions, cat("box"), cat("forces"), parts[0].types, cat("weights"))

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Frames:
        """Return the same frames on ``device``, the floats as ``dtype``."""

        def move(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(device, dtype)

        return Frames(
            self.positions.to(device, dtype),
            move(self.box),
            move(self.forces),
            self.types.to(device),
            move(self.weights),
        )


@dataclass(frozen=True, slots=True, eq=False)
class CVFrames:
    """Frames in the coordinates of d collective variables.

    Parameters
    ----------
    values
        (n, d), in the units of the coordinates.
    forces
        (n, d), kJ/mol per unit of the coordinate: instantaneous forces, whose mean at given
        values is the mean force. ``None`` where they are not known.
    weights
        (n,), statistical weights of frames from biased sampling, for densities; a mean force
        needs none where the bias acts on the coordinates alone. ``None``: all count the same.
    errors
        (n, d), standard errors of forces that are mean forces already. ``None``: they are not.
    """

    values: Tensor
    forces: Tensor | None
    weights: Tensor | None = None
    errors: Tensor | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.values.shape)
        if len(shape) != 2:
            raise ValueError(f"CVFrames.values has shape {shape}, not (frames, coordinates)")
        for name, expected in {"forces": shape, "weights": shape[:1], "errors": shape}.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != expected:
                raise ValueError(f"CVFrames.{name} has shape {tuple(value.shape)}, not {expected}")

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, frames: slice | Tensor) -> CVFrames:
        """Return some of the frames."""
        return CVFrames(
            self.values[frames],
            None if self.forces is None else self.forces[frames],
            None if self.weights is None else self.weights[frames],
            None if self.errors is None else self.errors[frames],
        )

    @classmethod
    def join(cls, parts: Iterable[CVFrames]) -> CVFrames:
        """Concatenate frames of the same coordinates."""
        parts = list(parts)
        if not parts:
            raise ValueError("no frames to join")

        def cat(values: list[Tensor | None]) -> Tensor | None:
            known = [value for value in values if value is not None]
            return torch.cat(known) if len(known) == len(values) else None

        return cls(
            torch.cat([p.values for p in parts]),
            cat([p.forces for p in parts]),
            cat([p.weights for p in parts]),
            cat([p.errors for p in parts]),
        )

    def to(self, device: torch.device | str, dtype: torch.dtype) -> CVFrames:
        """Return the same frames on ``device``, as ``dtype``."""
        return CVFrames(
            self.values.to(device, dtype),
            None if self.forces is None else self.forces.to(device, dtype),
            None if self.weights is None else self.weights.to(device, dtype),
            None if self.errors is None else self.errors.to(device, dtype),
        )
