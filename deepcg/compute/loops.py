"""What compiled loops over beads share: how beads are dealt to threads, how a loop is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from deepcg.compute.simd import LANES
from deepcg.compute.threads import use_torch_threads

Loop = Callable[..., None]


CHUNKS = 64
"""Beads are dealt to threads in so many parts: scratch memory is made once for each."""


@njit
def padded(n):
    """Return the next multiple of LANES."""
    return -(-n // LANES) * LANES


@njit(inline="always")
def share(chunk, n):
    """Return the first bead of a chunk, and that of the next."""
    return chunk * n // CHUNKS, (chunk + 1) * n // CHUNKS


def divisor(n: int) -> int:
    """Return the widest vectors that n numbers are made of."""
    return next(width for width in (LANES, 8, 4, 2, 1) if n % width == 0)


def run_loop(loop: Loop, *arguments: Tensor | NDArray[Any] | tuple[Any, ...] | float) -> None:
    """Call a loop, which writes to its last argument, on as many threads as PyTorch uses."""
    use_torch_threads()
    *given, out = arguments
    arrays = [t.detach().contiguous().numpy() if isinstance(t, Tensor) else t for t in given]
    assert isinstance(out, Tensor)
    loop(*arrays, out.numpy())
