"""Several fits of one free energy: their mean, and the model deviation of their forces.

The model deviation Sigma, the spread of the members' mean forces, tells where data determine U,
and where not (Zhang, Wang, E, J. Chem. Phys. 2018, 148, 124113; Zhang et al., J. Chem. Phys. 2018,
149, 034101).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path

import torch
from torch import Tensor, nn

from deepcg.geometry.neighbor_list import Neighbors, PairList, find_pairs
from deepcg.potentials.beads import NetworkPotential, check_beads
from deepcg.potentials.collective_variables import CVPotential
from deepcg.potentials.model_file import CVModel, Model, load_any
from deepcg.potentials.stacked import SurfaceStack
from deepcg.runtime.errors import InputError


class EnsemblePotential(nn.Module):
    """The mean of several potentials of the same beads: itself a `Potential`.

    Neighbors are found once, and the force field of the molecules, which all have, is evaluated
    once.

    Raises
    ------
    InputError
        There are no members, or they differ in their beads or cutoffs.
    """

    def __init__(self, members: Sequence[NetworkPotential]) -> None:
        super().__init__()
        _check_some(members)
        first = members[0]
        for other in members[1:]:
            if other.cutoff != first.cutoff or not torch.equal(other.types, first.types):
                raise InputError("the members of an ensemble differ in their beads or cutoffs")
        self.members = nn.ModuleList(members)
        self.cutoff = first.cutoff

    @property
    def types(self) -> Tensor:
        """(n_beads,), integers from 0."""
        return self._all[0].types

    def of_beads(self, types: Tensor) -> EnsemblePotential:
        """Return the mean of the members for other beads; as ``NetworkPotential.of_beads``."""
        return EnsemblePotential([member.of_beads(types) for member in self._all])

    @property
    def _all(self) -> list[NetworkPotential]:
        return list(self.members)  # type: ignore[arg-type]

    def forward(self, positions: Tensor, box: Tensor | None) -> Tensor:
        """Return the mean U (n_frames,), kJ/mol."""
        first = self._all[0]
        check_beads(positions, self.types)
        near = first.environments(positions, find_pairs(positions, box, self.cutoff))
        energy = torch.stack([member.energy(near) for member in self._all]).mean(0)
        return energy if first.molecular is None else energy + first.molecular(positions)

    def forces(self, neighbors: Neighbors, *, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """Return the mean U (n_frames,) and forces (n_frames, n_beads, 3) of the members' terms."""
        energies, forces = self._of_each(neighbors, create_graph)
        return energies.mean(0), forces.mean(0)

    def all_forces(
        self, positions: Tensor, pairs: PairList, *, create_graph: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return the mean U (n_frames,), kJ/mol, and its forces (n_frames, n_beads, 3)."""
        energies, forces = self.member_forces(positions, pairs, create_graph=create_graph)
        return energies.mean(0), forces.mean(0)

    def member_forces(
        self, positions: Tensor, pairs: PairList, *, create_graph: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return U (n_members, n_frames), kJ/mol, and forces (n_members, n_frames, n_beads, 3)."""
        first = self._all[0]
        check_beads(positions, self.types)
        near = first.environments(positions.detach(), pairs)
        energies, forces = self._of_each(near, create_graph)
        if first.molecular is None:
            return energies, forces
        more, others = first.molecular.forces(positions)
        return energies + more, forces + others

    def deviations(self, positions: Tensor, box: Tensor | None) -> Tensor:
        """Return the spread of the forces in frames, (n_frames, n_beads, 3); see `deviation`."""
        pairs = find_pairs(positions, box, self.cutoff).with_types(self.types)
        return deviation(self.member_forces(positions, pairs)[1])

    def _of_each(self, neighbors: Neighbors, create_graph: bool) -> tuple[Tensor, Tensor]:
        """Return what ``NetworkPotential.forces`` gives, with members along the first axis."""
        found = [member.forces(neighbors, create_graph=create_graph) for member in self._all]
        energies, forces = zip(*found, strict=True)
        return torch.stack(energies), torch.stack(forces)


class SurfaceEnsemble(nn.Module):
    """The mean of several free energies of the same collective variables."""

    def __init__(self, members: Sequence[CVPotential]) -> None:
        super().__init__()
        _check_some(members)
        self.stack = SurfaceStack(members)

    def forward(self, values: Tensor) -> Tensor:
        """Return the mean U (n,), kJ/mol, up to a constant, at values (n, d)."""
        energies: Tensor = self.stack(values)
        return energies.mean(0)

    def forces(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean U (n,), kJ/mol, and its forces (n, d), kJ/mol per unit."""
        energies, forces = self.stack.forces(values)
        return energies.mean(0), forces.mean(0)

    def deviations(self, values: Tensor) -> Tensor:
        """Return the spread of the forces (n, d), kJ/mol per unit; see `deviation`."""
        return deviation(self.stack.forces(values)[1])


def deviation(forces: Tensor) -> Tensor:
    """Return the standard deviation (...) of members' forces (n_members, ...), by component.

    It estimates that of infinitely many members, hence the division by n_members - 1. The root of
    its sum of squares over the components of a bead, or over coordinates, is Sigma.

    Raises
    ------
    InputError
        There are less than two members.
    """
    if len(forces) < 2:
        raise InputError("one fit has no spread: fit with --ensemble 4, or add to it by --resume")
    return forces.std(0)


def model_deviation(deviations: Tensor) -> Tensor:
    """Return Sigma (...) from deviations of components (..., d)."""
    return deviations.square().sum(-1).sqrt()


def member_folder(run: Path, member: int) -> Path:
    """Return where a member of a fit is: the first is the run itself."""
    return run if member == 0 else run / f"member-{member}"


def count_members(run: Path) -> int:
    """Return how many members a run has that are whole."""
    return next(k for k in count() if not (member_folder(run, k) / "model.pt").is_file())


def load_members(run: Path, device: torch.device | str = "cpu") -> list[Model | CVModel]:
    """Return the models of all members of a run; of a plain fit there is one.

    Raises
    ------
    InputError
        As ``deepcg.potentials.model_file.load_any``.
    """
    first = load_any(run, device)
    others = range(1, count_members(run)) if run.is_dir() else ()
    return [first, *(load_any(member_folder(run, k), device) for k in others)]


def load_surfaces(run: Path, device: torch.device | str = "cpu") -> list[CVModel]:
    """Return the members of a run on collective variables.

    Raises
    ------
    InputError
        As ``load_members``, or the run is of beads.
    """
    found = load_members(run, device)
    surfaces = [model for model in found if isinstance(model, CVModel)]
    if len(surfaces) < len(found):
        raise InputError(f"{run} is a model of beads, not of collective variables")
    return surfaces


def load_beads(run: Path, device: torch.device | str = "cpu") -> list[Model]:
    """Return the members of a run on beads.

    Raises
    ------
    InputError
        As ``load_members``, or the run is of collective variables.
    """
    found = load_members(run, device)
    beads = [model for model in found if isinstance(model, Model)]
    if len(beads) < len(found):
        raise InputError(f"{run} is a free energy of collective variables, not of beads")
    return beads


def _check_some(members: Sequence[nn.Module]) -> None:
    if not members:
        raise InputError("an ensemble needs members")
