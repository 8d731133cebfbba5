"""The energy of molecules by a force field: tables of terms, each kind evaluated at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepcg.compute.threads import use_torch_threads
from deepcg.geometry.internal_coordinates import (
    Points,
    angle,
    dihedral,
    length,
    points_of,
    signed_volume,
)
from deepcg.potentials.priors.force_field_loops import energies_and_forces
from deepcg.potentials.priors.obc2 import born_energies
from deepcg.runtime.errors import InputError
from deepcg.units import COULOMB


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Terms of one kind.

    ``atoms`` (n_terms, m) are beads; ``parameters`` (n_terms, p) as `KINDS` says.
    """

    atoms: Tensor
    parameters: Tensor


class ForceField(nn.Module):
    """U(R) = sum over tables, in open boundaries, of whole molecules.

    Signed volumes and torsions tell left from right; the rest is a function of distances.

    Parameters
    ----------
    tables
        By kind, a key of `KINDS`.
    """

    def __init__(self, tables: Mapping[str, Table]) -> None:
        super().__init__()
        self.kinds = tuple(kind for kind in KINDS if kind in tables)
        for kind in self.kinds:
            self.register_buffer(f"{kind}_atoms", tables[kind].atoms)
            self.register_buffer(f"{kind}_parameters", tables[kind].parameters)

    @property
    def tables(self) -> dict[str, Table]:
        """The terms by kind."""
        return {
            kind: Table(self.get_buffer(f"{kind}_atoms"), self.get_buffer(f"{kind}_parameters"))
            for kind in self.kinds
        }

    @property
    def excluded(self) -> Tensor:
        """(n_pairs, 2), beads that a bond or an angle joins."""
        tables = self.tables
        ends = [tables[kind].atoms[:, [0, -1]] for kind in ("bonds", "angles") if kind in tables]
        return torch.cat(ends) if ends else torch.empty((0, 2), dtype=torch.long)

    def forward(self, positions: Tensor) -> Tensor:
        """Return U (n_frames,), kJ/mol, at positions (n_frames, n_beads, 3), nm."""
        energy = positions.new_zeros(len(positions))
        for kind, table in self.tables.items():
            points = points_of(positions, table.atoms)
            energy = energy + KINDS[kind](points, *table.parameters.T[:, :, None]).sum(0)
        return energy

    def forces(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return U (n_frames,), kJ/mol, and -dU/dR (n_frames, n_beads, 3), kJ/mol/nm.

        Raises
        ------
        InputError
            There are fewer beads than the terms are of.
        """
        self._check_beads(positions)
        if positions.device.type == "cpu":
            return self._compiled_forces(positions)
        with torch.enable_grad():
            moved = positions.detach().requires_grad_()
            energy = self(moved)
            (gradient,) = torch.autograd.grad(energy.sum(), moved)
        return energy.detach(), -gradient

    def _check_beads(self, positions: Tensor) -> None:
        needed = max(
            (int(t.atoms.max()) + 1 for t in self.tables.values() if len(t.atoms)), default=0
        )
        if positions.ndim != 3 or positions.shape[2] != 3 or positions.shape[1] < needed:
            raise InputError(
                f"positions have shape {tuple(positions.shape)}, and the force field is of "
                f"{needed} beads: give (frames, {needed}, 3)"
            )

    def _compiled_forces(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `forces` does, by compiled loops instead of derivatives of ``forward``."""
        use_torch_threads()
        tables, none = self.tables, torch.empty((0, 0))
        arrays = {}
        for kind in KINDS:
            table = tables.get(kind, Table(none, none))
            arrays[kind] = table.atoms.long().numpy(), table.parameters.double().numpy()
        energy, forces = energies_and_forces(positions.detach().double().numpy(), **arrays)
        return torch.from_numpy(energy).to(positions), torch.from_numpy(forces).to(positions)


def _harmonic(measure: Callable[[Points], Tensor]) -> Callable[..., Tensor]:
    def energy(points: Points, center: Tensor, k: Tensor) -> Tensor:
        return k / 2 * (measure(points) - center) ** 2

    return energy


def _cosine(points: Points, period: Tensor, phase: Tensor, k: Tensor) -> Tensor:
    return k * (1 + torch.cos(period * dihedral(points) - phase))


def _pairs(points: Points, charges: Tensor, sigma: Tensor, epsilon: Tensor) -> Tensor:
    inverse = 1 / length(points)
    six = (sigma * inverse) ** 6
    return COULOMB * charges * inverse + 4 * epsilon * six * (six - 1)


KINDS: dict[str, Callable[..., Tensor]] = {
    "bonds": _harmonic(length),
    "angles": _harmonic(angle),
    "torsions": _cosine,
    "volumes": _harmonic(signed_volume),
    "pairs": _pairs,
    "born": born_energies,
}
"""Energies (n_terms, n_frames), kJ/mol, of `Points` and of columns of parameters.

``bonds``, ``angles`` and ``volumes``: k/2 (q - q_0)^2, with q_0, k. ``torsions``: k (1 + cos(n phi
- phase)), with n, phase, k. ``pairs``: q q' / (4 pi epsilon_0 r) + 4 epsilon ((sigma/r)^12 -
(sigma/r)^6), with q q' in e^2, sigma, epsilon. ``born``: `born_energies`, with charge, radius,
scale. Units are nm, rad, kJ/mol.
"""
