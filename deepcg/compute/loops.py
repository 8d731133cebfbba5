"""What compiled loops share: how they are compiled and called, how beads are dealt to threads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from numba import njit
from numba.extending import is_jitted
from numpy.typing import NDArray
from torch import Tensor

from deepcg.compute import simd
from deepcg.compute.simd import LANES
from deepcg.compute.threads import use_torch_threads

Array = NDArray[Any]
Loop = Callable[..., None]
Function = TypeVar("Function", bound=Callable[..., Any])


CHUNKS = 64
"""Beads are dealt to threads in so many parts: scratch memory is made once for each."""


def compiled(*, fastmath: bool = False, parallel: bool = True) -> Callable[[Function], Function]:
    """Compile a loop that Python calls, and keep it on disk until anything in it changes.

    numba alone looks at the file of the loop itself: it would go on with what it once made of
    functions in other files.
    """

    def compile_loop(function: Function) -> Function:
        decorate = njit(parallel=parallel, fastmath=fastmath, cache=True, error_model="numpy")
        loop = decorate(function)
        # numba has no public way to say what a loop is made of; a test holds this one
        kept = getattr(getattr(loop, "_cache", None), "_cache_file", None)
        if kept is not None:
            kept._source_stamp = kept._source_stamp, _hash_of(function)
        return loop

    return compile_loop


def _hash_of(function: Callable[..., Any]) -> str:
    """Return a hash of all files that a loop may call functions of, and of their constants."""
    modules, parts = [vars(simd), function.__globals__], dict[str, bytes]()
    while modules:
        names = modules.pop()
        path = Path(names["__file__"])
        if str(path) in parts or not path.is_file():
            continue
        constants = sorted((k, v) for k, v in names.items() if isinstance(v, int | float))
        parts[str(path)] = path.read_bytes() + repr(constants).encode()
        modules += [value.py_func.__globals__ for value in names.values() if is_jitted(value)]
    return hashlib.sha256(b"".join(parts[path] for path in sorted(parts))).hexdigest()


@njit
def padded(n: int) -> int:
    """Return the next multiple of LANES."""
    return -(-n // LANES) * LANES


@njit(inline="always")
def share(chunk: int, n: int) -> tuple[int, int]:
    """Return the first bead of a chunk, and that of the next."""
    return chunk * n // CHUNKS, (chunk + 1) * n // CHUNKS


def divisor(n: int) -> int:
    """Return the widest vectors that n numbers are made of."""
    return next(width for width in (LANES, 8, 4, 2, 1) if n % width == 0)


def run_loop(loop: Loop, *arguments: Tensor | Array | tuple[Any, ...] | float) -> None:
    """Call a loop, which writes to its last argument, on as many threads as PyTorch uses."""
    use_torch_threads()
    *given, out = arguments
    arrays = [t.detach().contiguous().numpy() if isinstance(t, Tensor) else t for t in given]
    assert isinstance(out, Tensor)
    loop(*arrays, out.numpy())
