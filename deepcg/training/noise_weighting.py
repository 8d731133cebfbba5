"""Least squares of least variance for heteroscedastic noise: forces on the beads of one molecule.

The noise differs from bead to bead, and is correlated between them: what the solvent does to a
carbonyl's oxygen is fifteen times what it does to the carbon in the middle of a peptide, and it
pushes the two atoms of a bond in opposite ways. A network that sees a molecule whole shares what it
learns between beads, so it matters which of them it believes.
Weighting with the inverse of the covariance of the noise gives the estimate of least variance
(Aitken, Proc. R. Soc. Edinb. 55, 42 (1936)); the mean force is the best fit with any weights.

The covariance is that of what the fit leaves, followed while it is trained: at the end, the weights
are those of maximum likelihood under normal noise. It is a table of beads by beads, as turning
the molecule leaves it alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

MOST_WEIGHED = 200
"""Beads whose covariances the frames of a hundred batches can tell."""

MEMORY = 0.99
"""Of the covariance, per batch."""

STARTING_FRAMES = 1000
"""That the first covariance is of, at most."""

LEAST = 1e-3
"""Of the mean variance, added to each bead's: none is believed without bounds."""


class NoiseWeighting:
    """Weights of the forces on the beads of one molecule by the inverse covariance of their noise.

    Parameters
    ----------
    errors
        (n_frames, n_beads, 3), what is left of the forces at the beginning.
    """

    def __init__(self, errors: Tensor) -> None:
        every = max(1, len(errors) // STARTING_FRAMES)
        self.covariance = _covariance(errors[::every])

    def weigh(self, errors: Tensor) -> Tensor:
        """Return errors (n_frames, n_beads, 3) of equal variance and without correlation.

        Their sum of squares is r^T C^-1 r, for each direction, times the mean variance of the
        covariance C: noise of this covariance keeps its mean square.
        """
        covariance = self.covariance
        mean = covariance.diagonal().mean().clamp(min=1e-12)  # of exact forces nothing is left
        ridge = LEAST * mean * torch.eye(len(covariance)).to(covariance)
        lower = torch.linalg.cholesky(covariance + ridge)
        whitening: Tensor = mean.sqrt() * torch.linalg.inv(lower)
        weighed: Tensor = whitening.to(errors.dtype) @ errors
        return weighed

    def follow(self, errors: Tensor) -> None:
        """Let the covariance (n_beads, n_beads) follow errors (n_frames, n_beads, 3) of a batch.

        Both are in the unit of the errors that `weigh` gets, squared or not.
        """
        self.covariance = torch.lerp(_covariance(errors), self.covariance, MEMORY)


def _covariance(errors: Tensor) -> Tensor:
    """Return the covariance (n_beads, n_beads), the mean over frames and directions."""
    rows = errors.detach().double().transpose(0, 1).flatten(1)
    return rows @ rows.mT / rows.shape[1]
