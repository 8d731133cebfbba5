"""Free torsions of mapped molecules: periodic terms that the forces in the data ask for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepcg.priors.force_field import Table
from deepcg.priors.geometry import dihedral, points_of
from deepcg.priors.terms import neighbors_of, torsions_of

PERIODS = (1, 2, 3, 4, 5, 6)
"""Of the cosines about a bond."""

CHUNK = 500
"""Frames that are worked on at once."""


def free_torsions(
    positions: Tensor,
    forces: Tensor,
    bonds: NDArray[np.int64],
    held: Sequence[Sequence[int]] = (),
) -> Table | None:
    """Return cosines of one torsion about each bond that nothing else holds, by least squares.

    A network sees torsions only through distances that they share with all else, and their
    mean forces are small beside those of stiff motions and the noise: what is linear in a few
    coefficients is better found so. The sum of squares of what they leave of the forces is the
    loss of the training.

    Parameters
    ----------
    positions, forces
        (n_frames, n_beads, 3), nm, molecules whole, and kJ/mol/nm, without those of other terms.
    bonds
        (n_bonds, 2), beads.
    held
        Torsions (n, 4) that are stiff: bonds in their middle are left out.
    """
    stiff = {frozenset(term[1:3]) for term in held}
    chains = torsions_of(bonds, neighbors_of(bonds, positions.shape[1]))
    about: dict[frozenset[int], list[int]] = {}
    for chain in chains:
        if frozenset(chain[1:3]) not in stiff:
            about.setdefault(frozenset(chain[1:3]), chain)
    if not about:
        return None
    terms = torch.tensor(list(about.values()))
    n_columns = 2 * len(PERIODS) * len(terms)
    squares, products = torch.zeros(n_columns, n_columns).double(), torch.zeros(n_columns).double()
    for x, f in zip(positions.double().split(CHUNK), forces.double().split(CHUNK), strict=True):
        pushes = _pushes(x.cpu(), terms).flatten(1)  # (columns, forces)
        squares += pushes @ pushes.T
        products += pushes @ f.cpu().flatten()
    found = torch.linalg.lstsq(squares, products[:, None], driver="gelsd").solution[:, 0]
    cosine, sine = found.view(2, len(terms), len(PERIODS))
    period = torch.tensor(PERIODS).double().expand_as(cosine)
    parameters = torch.stack([period, torch.atan2(sine, cosine), torch.hypot(cosine, sine)], -1)
    return Table(terms.repeat_interleave(len(PERIODS), 0), parameters.flatten(0, 1))


def _pushes(x: Tensor, terms: Tensor) -> Tensor:
    """Return the forces of cos(n phi), then of sin(n phi): (2 x terms x periods, frames, ...)."""
    with torch.enable_grad():
        points = [p.requires_grad_() for p in points_of(x, terms)]
        phi = dihedral(points)  # (terms, frames)
        slopes = torch.autograd.grad(phi.sum(), points)  # 4 x (3, terms, frames)
    phi = phi.detach()
    turns = x.new_zeros(len(terms), *x.shape)
    for place, slope in enumerate(slopes):
        for term in range(len(terms)):
            turns[term, :, terms[term, place]] = slope[:, term].T
    n = torch.tensor(PERIODS).to(x)[:, None]
    along = torch.stack([n * (n * phi[:, None]).sin(), -n * (n * phi[:, None]).cos()])
    return (along[..., None, None] * turns[:, None]).flatten(0, 2)
