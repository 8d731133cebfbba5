"""What a network is, and the function that all of them fade out by at the cutoff."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from deepcg.geometry.neighbor_list import Neighbors


class Network(Protocol):
    """Bead energies as a function of the environments: all that a new kind must supply."""

    cutoff: float

    def __call__(self, neighbors: Neighbors, types: Tensor) -> Tensor:
        """Return bead energies (n_frames, n_beads), kJ/mol; ``types`` is (n_beads,).

        This is the definition of the network, in plain PyTorch: it runs on every device and can be
        differentiated as often as one likes.
        """
        ...

    def standardize(self, neighbors: Neighbors, types: Tensor) -> None:
        """Set the constants that scale the inputs, from a sample of environments.

        Those of beads of ``types`` (n_beads,).
        """
        ...


@runtime_checkable
class LinearNetwork(Network, Protocol):
    """A network whose energies are linear in its weights, w: least squares finds them at once."""

    def force_features(self, neighbors: Neighbors, types: Tensor) -> Tensor:
        """Return dF/dw (n_frames, n_beads, 3, n_weights), 1/nm, of forces on beads of ``types``.

        In the dtype of the displacements.
        """
        ...

    def roughness(self) -> Tensor:
        """Return the matrix P (n_weights, n_weights), positive definite, of a penalty w^T P w."""
        ...

    def set_weights(self, weights: Tensor) -> None:
        """Take weights (n_weights,), kJ/mol."""
        ...


def switch(r: Tensor, start: float, cutoff: float) -> Tensor:
    """Fall from 1 at ``start`` to 0 at ``cutoff`` with two continuous derivatives.

    The quintic of DeepPot-SE (Zhang et al., NeurIPS 2018, arXiv:1805.09003).
    """
    x = ((r - start) / (cutoff - start)).clamp(0, 1)
    return 1 - x**3 * (10 - 15 * x + 6 * x**2)
