# What the package uses of numba, which brings no types.

from collections.abc import Callable
from typing import Any, TypeVar, overload

from numba import types as types

_F = TypeVar("_F", bound=Callable[..., Any])

prange = range

@overload
def njit(function: _F, /) -> _F: ...
@overload
def njit(
    *,
    parallel: bool = ...,
    cache: bool = ...,
    fastmath: bool = ...,
    inline: str = ...,
    error_model: str = ...,
) -> Callable[[_F], _F]: ...
def set_num_threads(n: int) -> None: ...
