from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

_P = ParamSpec("_P")
_C = TypeVar("_C")

# loops call an intrinsic without its first argument, and get whatever it generates
def intrinsic(function: Callable[Concatenate[Any, _P], Any]) -> Callable[_P, Any]: ...
def is_jitted(function: Any) -> bool: ...
def register_model(kind: type) -> Callable[[_C], _C]: ...

class models:
    class PrimitiveModel:
        def __init__(self, manager: Any, kind: Any, backend_type: Any) -> None: ...
