"""Fast evaluation of U along a trajectory: a Verlet list of pairs with a skin, and force fields.

Pairs are those of the minimum-image convention within the cutoff and a skin around it.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from deepcg.geometry.box import box_heights
from deepcg.geometry.neighbor_list import PairList, find_pairs
from deepcg.potentials.beads import (
    Potential,
    ShortRanged,
    check_beads,
    energy_and_forces,
    is_short_ranged,
    of_beads,
)


class VerletForces:
    """Energy and forces in one box, with a list of pairs that outlives many steps.

    The list reaches a skin beyond the cutoff and is renewed once a bead has moved half of
    it. Positions must be continuous in time: never wrapped.

    Parameters
    ----------
    potential
        U.
    box
        (3, 3), nm, the same for all replicas; ``None`` for open boundaries.
    skin
        nm.
    """

    def __init__(self, potential: ShortRanged, box: Tensor | None, *, skin: float) -> None:
        if box is not None:  # a small box may leave no room for the whole skin
            room = float(box_heights(box[None]).min()) / 2 - potential.cutoff
            skin = max(0.0, min(skin, 0.999 * room))
        self.potential, self.box, self.skin = potential, box, skin
        self.at: Tensor | None = None
        self.pairs: PairList | None = None

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Map (n_replicas, n_beads, 3), nm, onto energy, kJ/mol, and forces, kJ/mol/nm.

        Raises
        ------
        InputError
            Positions are not of the beads of the potential.
        """
        check_beads(positions, self.potential.types)
        if self.pairs is None or self._moved(positions):
            box = None if self.box is None else self.box.expand(len(positions), 3, 3)
            pairs = find_pairs(positions, box, self.potential.cutoff + self.skin)
            self.pairs = pairs.with_types(self.potential.types)
            self.at = positions.clone()
        return self.potential.all_forces(positions, self.pairs)

    def renew(self) -> None:
        """Forget the list: what follows depends on the positions alone, as after a restart."""
        self.pairs = None

    def _moved(self, positions: Tensor) -> bool:
        if self.at is None or self.at.shape != positions.shape:
            return True
        farthest = (positions - self.at).square().sum(-1).max()
        # a blown-up replica must not hide behind NaN < limit
        return not bool(farthest < (self.skin / 2) ** 2)


def force_field(
    potential: Potential,
    box: Tensor | None,
    types: Tensor | None = None,
    *,
    skin: float = 0.05,
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Fix the box (3, 3), nm, and beads: what is left is all that a sampler needs to know.

    The skin of the Verlet list, nm, is cut down where half the box leaves no room for it. Beads are
    of ``types`` (n_beads,); ``None``: they are those of the potential.

    Raises
    ------
    InputError
        The potential does not know a type.
    """
    potential = of_beads(potential, types)
    if is_short_ranged(potential):
        return VerletForces(potential, box, skin=skin)

    def forces(positions: Tensor) -> tuple[Tensor, Tensor]:
        boxes = None if box is None else box.expand(len(positions), 3, 3)
        return energy_and_forces(potential, positions, boxes)

    return forces
