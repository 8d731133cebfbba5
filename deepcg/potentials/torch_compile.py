"""Forces by PyTorch's compiler, for devices that none of our loops are for: a step is one graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from deepcg.compute.graph_capture import traced
from deepcg.compute.tensor_cache import TensorCache
from deepcg.geometry.neighbor_list import PairList
from deepcg.potentials.beads import NetworkPotential, ShortRanged, check_beads
from deepcg.potentials.ensemble import EnsemblePotential

MULTIPLE = 16
"""Lists are widened to a multiple of this: of all widths there would be too many to compile."""

TOLERANCE = 1e-3
"""By how much compiled forces may differ from the others, relative to the largest.

Far above rounding. Energies may by as much, relative to the largest and 1 kJ/mol.
"""


class CompiledPotential:
    """A potential whose energy and forces are compiled: itself a `ShortRanged`.

    They are one function, which ``torch.compile`` makes of the definitions of the terms:
    once for each number of frames and each width of the list, a multiple of ``MULTIPLE``. Its
    first results are held against those of the potential. On CUDA all of its kernels are one graph.
    When weights change, all is compiled anew.

    Inductor keeps what it compiled for later processes: in the folder that TORCHINDUCTOR_CACHE_DIR
    of the environment names, or in torchinductor_USER among temporary files.

    Parameters
    ----------
    potential
        A `NetworkPotential` or an `EnsemblePotential`.
    tell
        Called with a line for the user where nothing can be compiled: forces are those of the
        potential then.
    """

    def __init__(self, potential: ShortRanged, tell: Callable[[str], None]) -> None:
        self.potential, self.cutoff = potential, potential.cutoff
        self._tell, self._works = tell, True
        self._weights = _weights(potential)
        self._programs: TensorCache[dict[tuple[int, int], _Program]] = TensorCache()

    @property
    def types(self) -> Tensor:
        """(n_beads,), integers from 0."""
        return self.potential.types

    def of_beads(self, types: Tensor) -> CompiledPotential:
        """Return the same for other beads, compiled anew; as ``NetworkPotential.of_beads``."""
        return CompiledPotential(self.potential.of_beads(types), self._tell)

    def __call__(self, positions: Tensor, box: Tensor | None) -> Tensor:
        """Return U (n_frames,), kJ/mol, which is not compiled."""
        return self.potential(positions, box)

    def all_forces(
        self, positions: Tensor, pairs: PairList, *, create_graph: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return U (n_frames,), kJ/mol, and -dU/dR (n_frames, n_beads, 3), kJ/mol/nm.

        What can be differentiated, by ``create_graph``, is not compiled.
        """
        check_beads(positions, self.types)
        program = self._program(positions, pairs) if self._works and not create_graph else None
        if program is None:
            return self.potential.all_forces(positions, pairs, create_graph=create_graph)
        return program(positions, pairs)

    def _program(self, positions: Tensor, pairs: PairList) -> _Program | None:
        """Return what is compiled for such a list, ``None`` if that cannot be."""
        programs = self._programs.get(self._weights, 0, dict)
        width = -(-pairs.index.shape[2] // MULTIPLE) * MULTIPLE
        place = len(positions), width
        if place not in programs:
            try:
                programs[place] = _compiled(self.potential, positions, pairs, width)
            except Exception as error:  # whatever a compiler lacks or cannot do
                self._works = False
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
                self._tell(f"the forces cannot be compiled, and are slower: {reason}")
                return None
        return programs[place]


class _Program:
    """Compiled energies and forces of one number of frames, with lists of one width.

    Parameters
    ----------
    potential
        Of which energies and forces are.
    positions, pairs
        Those to begin with.
    width
        That of all lists, widened.
    """

    def __init__(
        self, potential: ShortRanged, positions: Tensor, pairs: PairList, width: int
    ) -> None:
        self.types, self.width, self.pairs = potential.types, width, pairs
        self.listed = self._listed(pairs)
        for part in self.listed:  # else a CUDA graph copies them in every step
            torch._dynamo.mark_static_address(part)
        # of other positions: numbers that only seem to be constant are then found out
        module = traced(_definition(potential), 1.1 * positions, *self.listed)
        mode = "reduce-overhead" if positions.is_cuda else "default"
        self.run = torch.compile(module, fullgraph=True, dynamic=False, mode=mode)

    @torch.no_grad()
    def __call__(self, positions: Tensor, pairs: PairList) -> tuple[Tensor, Tensor]:
        """Return energies and forces, which no later call writes to."""
        if pairs is not self.pairs:
            for part, new in zip(self.listed, self._listed(pairs), strict=True):
                part.copy_(new)
            self.pairs = pairs
        energy, forces = self.run(positions, *self.listed)
        return energy.clone(), forces.clone()  # a CUDA graph has the same tensors each time

    def _listed(self, pairs: PairList) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return copies of the parts of a list, widened."""
        wide = pairs.widened(self.width).with_types(self.types)
        assert wide.kinds is not None
        return wide.index, wide.shift, wide.count.clone(), wide.kinds


def _compiled(potential: ShortRanged, positions: Tensor, pairs: PairList, width: int) -> _Program:
    """Return a program that was run and checked.

    Raises
    ------
    ArithmeticError
        Its forces or energies are wrong.
    Exception
        Whatever the compiler raises.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parts of PyTorch about others
        program = _Program(potential, positions, pairs, width)
        energy, forces = program(positions, pairs)
    right_energy, right_forces = potential.all_forces(positions, pairs)
    _check("forces", forces, right_forces, float(right_forces.abs().max()))
    _check("energies", energy, right_energy, 1 + float(right_energy.abs().max()))
    return program


def _check(what: str, found: Tensor, right: Tensor, scale: float) -> None:
    error = float((found - right).abs().max())
    if not error <= TOLERANCE * scale:
        raise ArithmeticError(f"compiled {what} differ by {error:.3g} from the others")


def _definition(potential: ShortRanged) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return the function from positions and the parts of a list to energies and forces.

    Raises
    ------
    TypeError
        It is not known what the potential consists of.
    """
    members = [potential] if isinstance(potential, NetworkPotential) else _members(potential)
    first = members[0]

    def energy_and_forces(positions: Tensor, *listed: Tensor) -> tuple[Tensor, Tensor]:
        moved = positions.detach().requires_grad_()
        with torch.enable_grad():
            near = first.environments(moved, PairList(*listed))
            energy = torch.stack([one.reference_energy(near) for one in members]).mean(0)
            if first.molecular is not None:
                energy = energy + first.molecular(moved)
            (slope,) = torch.autograd.grad(energy.sum(), moved)
        return energy.detach(), -slope

    return energy_and_forces


def _members(potential: ShortRanged) -> list[NetworkPotential]:
    if not isinstance(potential, EnsemblePotential):
        raise TypeError(f"nothing is known of the parts of a {type(potential).__name__}")
    return [member for member in potential.members if isinstance(member, NetworkPotential)]


def _weights(potential: object) -> list[Tensor]:
    """Return all that energies are made of."""
    if not isinstance(potential, nn.Module):
        return []
    return [*potential.parameters(), *potential.buffers()]
