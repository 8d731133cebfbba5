"""The CG free energy U(R), and the forces that follow from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, TypeGuard

import torch
from torch import Tensor, nn

from deepcg.geometry.cell_list import collected
from deepcg.geometry.neighbor_list import Neighbors, PairList, environments, find_pairs
from deepcg.networks.fast_path import Evaluation, check_types, evaluation
from deepcg.potentials.priors import ForceField
from deepcg.runtime.errors import InputError


class Potential(Protocol):
    """A CG free energy: a module or any function with this signature."""

    def __call__(self, positions: Tensor, box: Tensor | None) -> Tensor:
        """Map (n_frames, n_beads, 3) and (n_frames, 3, 3), nm, onto (n_frames,), kJ/mol."""
        ...


class ShortRanged(Potential, Protocol):
    """A potential that needs to know pairs within a cutoff only."""

    cutoff: float

    @property
    def types(self) -> Tensor:
        """(n_beads,), integers from 0."""
        ...

    def of_beads(self, types: Tensor) -> ShortRanged:
        """Return the same potential of other beads, of ``types`` (n_beads,) that it knows."""
        ...

    def all_forces(
        self, positions: Tensor, pairs: PairList, *, create_graph: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return U (n_frames,), kJ/mol, and -dU/dR (n_frames, n_beads, 3), kJ/mol/nm."""
        ...


class NetworkPotential(nn.Module):
    """U = sum_i sum_terms u(environments of i), and the energy of molecules by a force field.

    The one place where networks meet a box. What is trained is the first part alone
    (``energy``, ``forces``); a force field has no weights, and what it explains of the forces is
    taken off them before the training (``deepcg.training.samples.prepare``).

    Parameters
    ----------
    terms
        Networks and priors: modules from (Neighbors, types) to bead energies.
    cutoff
        nm, the largest of the terms'.
    types
        (n_beads,), integers from 0.
    molecular
        The force field of the molecules, whose positions must be whole; ``None``: there is none.

    Raises
    ------
    InputError
        There are no beads, or a term does not know their types.
    """

    types: Tensor

    def __init__(
        self,
        terms: list[nn.Module],
        cutoff: float,
        types: Tensor,
        molecular: ForceField | None = None,
    ) -> None:
        super().__init__()
        for term in terms:
            if (n_types := getattr(term, "n_types", None)) is not None:
                check_types(types, n_types)
        if types.ndim != 1 or not len(types):
            raise InputError(f"types have shape {tuple(types.shape)}: give those of 1 bead or more")
        self.terms = nn.ModuleList(terms)
        self.molecular = molecular
        self.cutoff = cutoff
        self.register_buffer("types", types)
        self._ways: dict[tuple[torch.device, torch.dtype], list[Evaluation]] = {}

    def of_beads(self, types: Tensor) -> NetworkPotential:
        """Return U of other beads, as many as there are ``types`` (n_beads,); weights are shared.

        Raises
        ------
        InputError
            A type is unknown, or beads are held by a force field, which is of those of the fit.
        """
        if self.molecular is not None and not torch.equal(types.to(self.types), self.types):
            raise InputError(
                f"the potential has a force field of the {len(self.types)} beads that it was "
                f"fitted to, and holds for no others: {len(types)} are given"
            )
        terms = list(self.terms)
        return NetworkPotential(terms, self.cutoff, types.to(self.types.device), self.molecular)

    def __getstate__(self) -> dict[str, object]:
        """Return what a copy is made of: not the ways to evaluate the networks of this one."""
        return {**self.__dict__, "_ways": {}}

    def forward(self, positions: Tensor, box: Tensor | None) -> Tensor:
        """Return U (n_frames,), kJ/mol.

        Raises
        ------
        InputError
            Positions are not of the beads of the potential: see ``of_beads``.
        """
        check_beads(positions, self.types)
        near = self.environments(positions, find_pairs(positions, box, self.cutoff))
        energy = self.energy(near)
        return energy if self.molecular is None else energy + self.molecular(positions)

    def environments(self, positions: Tensor, pairs: PairList) -> Neighbors:
        """Return the environments that the terms see, from a list that may reach farther.

        Of positions (n_frames, n_beads, 3), nm.
        """
        return environments(positions, pairs, 2 * self.cutoff)

    def energy(self, neighbors: Neighbors) -> Tensor:
        """Return the sum of the terms (n_frames,), kJ/mol, of beads in given environments."""
        terms = self._evaluations(neighbors.displacement)
        return torch.stack([energies(neighbors, self.types) for energies, _ in terms]).sum((0, 2))

    def reference_energy(self, neighbors: Neighbors) -> Tensor:
        """Return U (n_frames,), kJ/mol, by the definitions of the terms: everywhere, slower."""
        return torch.stack([term(neighbors, self.types) for term in self.terms]).sum((0, 2))

    def forces(self, neighbors: Neighbors, *, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """Return the sum of the terms (n_frames,), kJ/mol, and its forces (n_frames, n_beads, 3).

        With ``create_graph`` both can be differentiated in the parameters.
        """
        if not create_graph:
            return self._detached_forces(neighbors)
        displacement = neighbors.displacement.detach().requires_grad_()
        with torch.enable_grad():
            energy = self.energy(replace(neighbors, displacement=displacement))
            (gradient,) = torch.autograd.grad(energy.sum(), displacement, create_graph=True)
        return energy, _gathered(gradient, neighbors)

    def _detached_forces(self, neighbors: Neighbors) -> tuple[Tensor, Tensor]:
        """Return what ``forces`` does, without autograd where a term can do without."""
        energy, gradient = self._pair_gradients(neighbors)
        return energy.sum(1), _gathered(gradient, neighbors)

    def _pair_gradients(self, neighbors: Neighbors) -> tuple[Tensor, Tensor]:
        """Return bead energies (n_frames, n_beads) and dU/d(r_j - r_i), detached."""
        (_, first), *others = self._evaluations(neighbors.displacement)
        energy, gradient = first(neighbors, self.types)
        for _, infer in others:
            more, another = infer(neighbors, self.types)
            energy, gradient = energy + more, gradient.add_(another)
        return energy, gradient

    def virial(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return -dU/d ln(lambda) (n_frames,), kJ/mol, for lengths and boxes scaled by lambda.

        From the gradients in the vectors between beads, sum_ij -dU/dr_ij . r_ij, which is the sum
        of r . F that a periodic box leaves undefined. The pressure is (N kT + virial / 3) / V.

        Parameters
        ----------
        positions
            (n_frames, n_beads, 3), nm; molecules whole where there is a molecular force field.
        box
            (n_frames, 3, 3), nm.
        """
        near = self.environments(positions.detach(), find_pairs(positions, box, self.cutoff))
        _, gradient = self._pair_gradients(near)
        each = (gradient * near.displacement).sum(-1)
        total = -each.masked_fill(~near.mask, 0.0).sum((1, 2))
        if self.molecular is None:
            return total
        _, forces = self.molecular.forces(positions)
        return total + (forces * positions).sum((1, 2))

    def _evaluations(self, like: Tensor) -> list[Evaluation]:
        """Return how each term is evaluated for displacements of this dtype and device."""
        kind = like.device, like.dtype
        if kind not in self._ways:
            self._ways[kind] = [evaluation(term, like) for term in self.terms]
        return self._ways[kind]

    def all_forces(
        self, positions: Tensor, pairs: PairList, *, create_graph: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return U (n_frames,), kJ/mol, and -dU/dR (n_frames, n_beads, 3), kJ/mol/nm.

        Raises
        ------
        InputError
            Positions are not of the beads of the potential, or of the list: see ``of_beads``.
        """
        check_beads(positions, self.types)
        near = self.environments(positions.detach(), pairs)
        energy, forces = self.forces(near, create_graph=create_graph)
        if self.molecular is None:
            return energy, forces
        more, others = self.molecular.forces(positions)
        return energy + more, forces + others


def energy_and_forces(
    potential: Potential,
    positions: Tensor,
    box: Tensor | None,
    types: Tensor | None = None,
    *,
    create_graph: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return U (n_frames,), kJ/mol, and -dU/dR (n_frames, n_beads, 3), kJ/mol/nm.

    Beads are of ``types`` (n_beads,); ``None``: they are those of the potential.

    Raises
    ------
    InputError
        There are more or fewer positions than types, or these are unknown.
    """
    potential = of_beads(potential, types)
    if is_short_ranged(potential):
        check_beads(positions, potential.types)
        pairs = find_pairs(positions, box, potential.cutoff)
        return potential.all_forces(positions, pairs, create_graph=create_graph)
    positions = positions.detach().requires_grad_()
    with torch.enable_grad():
        energy = potential(positions, box)
        (gradient,) = torch.autograd.grad(energy.sum(), positions, create_graph=create_graph)
    return (energy if create_graph else energy.detach()), -gradient


def is_short_ranged(potential: Potential) -> TypeGuard[ShortRanged]:
    """Return whether a potential takes pairs that were found before."""
    return hasattr(potential, "all_forces")


def of_beads(potential: Potential, types: Tensor | None) -> Potential:
    """Return a potential of beads of ``types`` (n_beads,), or with ``None`` as it is.

    Raises
    ------
    InputError
        It is of its own beads alone, or does not know a type.
    """
    if types is None:
        return potential
    if not is_short_ranged(potential):
        raise InputError(f"a {type(potential).__name__} knows no types: give none")
    return potential.of_beads(types)


def check_beads(positions: Tensor, types: Tensor) -> None:
    """Refuse positions (n_frames, n_beads, 3) of more or fewer beads than there are types.

    Raises
    ------
    InputError
        Names both numbers.
    """
    if positions.ndim != 3 or positions.shape[1:] != (len(types), 3):
        raise InputError(
            f"positions have shape {tuple(positions.shape)}, and the potential is of {len(types)} "
            f"beads: give (n_frames, {len(types)}, 3), or the types of others"
        )


def _gathered(gradient: Tensor, near: Neighbors) -> Tensor:
    """Turn dU/d(r_j - r_i) (f, n, width, 3) into -dU/dr: every pair acts on both its beads."""
    if gradient.device.type == "cpu" and not gradient.requires_grad:
        return collected(gradient, near.index, near.count)
    f, n, _ = near.index.shape
    flat = (near.index + n * torch.arange(f, device=gradient.device)[:, None, None]).flatten()
    forces = gradient.sum(2).flatten(0, 1).index_add(0, flat, -gradient.flatten(0, 2))
    return forces.view(f, n, 3)
