"""Vectors of numbers (SIMD) in compiled loops, where the compiler does not find them by itself.

A vector is a value: arithmetic with numbers and other vectors gives a vector. LLVM lays it out in
whatever registers the machine has, so that any width is right on any machine.

==============================  ==================================  =======================
operation                       name here                           defined by
==============================  ==================================  =======================
v = a[k : k + n]                load(a, k, n)                       n numbers
a[k]                            peek(a, k)                          one number
a[k : k + n] = v                store(a, k, v)
(a[k n :] ...) = v, w, z        put(a, k, v, w, z)                  3 n numbers
sum_l v_l                       total(v)                            one number
b[t + l s] = a[k + l r], l < n  transpose(a, k, r, b, t, s)         whole rows, n = LANES
sqrt, floor, min, max           sqrt, floor, minimum, maximum       NumPy's, on every number
==============================  ==================================  =======================

What they do is what NumPy does with arrays: ``tests/compute/test_simd.py`` ties them,
``tests/compute/test_simd.py::test_arithmetic_is_that_of_arrays`` and
``tests/compute/test_simd.py::test_squares_are_transposed_from_row_to_row``.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model
from numba.np.arrayobj import make_array

LANES = 16
"""Numbers in a vector: single precision fills the widest registers that there are."""

Vec = Any
"""So many numbers as one value inside of a loop; Python's types do not know it."""

FAST = ("fast",)


class Vector(types.Type):
    """So many numbers of one kind."""

    def __init__(self, dtype: Any, width: int) -> None:
        self.dtype, self.width = dtype, width
        super().__init__(name=f"Vector({dtype}, {width})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        element = manager.lookup(kind.dtype).get_data_type()
        super().__init__(manager, kind, ir.VectorType(element, kind.width))


@intrinsic
def load(typing: Any, array: Any, start: Any, width: Any) -> Any:
    """Return ``width`` numbers, a constant, of a contiguous array from ``start`` on."""
    if not isinstance(width, types.IntegerLiteral):
        return None
    kind = Vector(array.dtype, width.literal_value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        shape = context.get_value_type(kind)
        place = _place(context, builder, signature.args[0], arguments[0], arguments[1], shape)
        return builder.load(place, align=array.dtype.bitwidth // 8)

    return kind(array, types.intp, width), generate


@intrinsic
def peek(typing: Any, array: Any, index: Any) -> Any:
    """Return a number of a contiguous array; without the question whether the index is negative."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load(builder.gep(data, [arguments[1]]))

    return array.dtype(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, start: Any, vector: Any) -> Any:
    """Write a vector to a contiguous array from ``start`` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        shape = context.get_value_type(vector)
        place = _place(context, builder, signature.args[0], arguments[0], arguments[1], shape)
        builder.store(arguments[2], place, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def put(typing: Any, array: Any, row: Any, first: Any, second: Any, third: Any) -> Any:
    """Write three vectors to a row of a contiguous array, as wide as they are, and the next two."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        shape, width = context.get_value_type(first), _index(first.width)
        for k, vector in enumerate(arguments[2:]):
            start = builder.mul(builder.add(arguments[1], _index(k)), width)
            place = _place(context, builder, signature.args[0], arguments[0], start, shape)
            builder.store(vector, place, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, first, second, third), generate


@intrinsic
def total(typing: Any, vector: Any) -> Any:
    """Return the sum of a vector's numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        shape = context.get_value_type(vector)
        name = f"llvm.vector.reduce.fadd.{_suffix(vector)}"
        kind = ir.FunctionType(shape.element, [shape.element, shape])
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(function, [ir.Constant(shape.element, 0.0), *arguments], fastmath=FAST)

    return vector.dtype(vector), generate


@intrinsic
def transpose(
    typing: Any, source: Any, at: Any, step: Any, target: Any, to: Any, stride: Any
) -> Any:
    """Write a square of LANES by LANES numbers transposed to another array.

    Its rows begin at ``at``, ``at + step`` ... of the source, and at ``to``, ``to + stride`` ... of
    the target.
    """
    kind = Vector(source.dtype, LANES)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        shape = context.get_value_type(kind)
        rows = []
        for k in range(LANES):
            start = builder.add(arguments[1], builder.mul(arguments[2], _index(k)))
            place = _place(context, builder, signature.args[0], arguments[0], start, shape)
            rows.append(builder.load(place, align=source.dtype.bitwidth // 8))
        for k, row in enumerate(_transposed(builder, rows)):
            start = builder.add(arguments[4], builder.mul(arguments[5], _index(k)))
            place = _place(context, builder, signature.args[3], arguments[3], start, shape)
            builder.store(row, place, align=source.dtype.bitwidth // 8)
        return context.get_dummy_value()

    i = types.intp
    return types.void(source, i, i, target, i, i), generate


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Swap halves of halves: after a step of s, blocks of s by s are where they belong."""
    n = len(rows)
    step = n // 2
    while step:
        low = [j if not j & step else n + j - step for j in range(n)]
        high = [j + step if not j & step else n + j for j in range(n)]
        swapped = list(rows)
        for k in range(n):
            if not k & step:
                pair = rows[k], rows[k + step]
                swapped[k] = builder.shuffle_vector(*pair, _mask(low))
                swapped[k + step] = builder.shuffle_vector(*pair, _mask(high))
        rows, step = swapped, step // 2
    return rows


def _elementwise(name: str) -> Any:
    """Return a function of a vector that LLVM knows by name."""

    @intrinsic
    def function(typing: Any, vector: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            shape = context.get_value_type(vector)
            kind = ir.FunctionType(shape, [shape])
            called = f"llvm.{name}.{_suffix(vector)}"
            return builder.call(
                cgutils.get_or_insert_function(builder.module, kind, called), arguments
            )

        return vector(vector), generate

    return function


sqrt = _elementwise("sqrt")
floor = _elementwise("floor")


def _binary(instruction: str) -> Any:
    """Return what generates an operation on two vectors, or on one and a number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.return_type
        both = [
            value if isinstance(of, Vector) else _spread(context, builder, value, of, kind)
            for value, of in zip(arguments, signature.args, strict=True)
        ]
        if instruction in ("<", ">"):
            return builder.select(builder.fcmp_ordered(instruction, *both), *both)
        return getattr(builder, instruction)(*both, flags=FAST)

    return generate


def _extreme(instruction: str) -> Any:
    @intrinsic
    def function(typing: Any, x: Any, y: Any) -> Any:
        return (x if isinstance(x, Vector) else y)(x, y), _binary(instruction)

    return function


minimum, maximum = _extreme("<"), _extreme(">")


class _OfVectors(AbstractTemplate):
    """The type of an operator's result where a vector takes part."""

    def generic(self, arguments: Any, keywords: Any) -> Any:
        vectors = [x for x in arguments if isinstance(x, Vector)]
        if vectors and all(isinstance(x, Vector | types.Number) for x in arguments):
            return signature(vectors[0], *arguments)
        return None


for _operator, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    infer_global(_operator)(type(f"_{_instruction}", (_OfVectors,), {}))
    for _types in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(_operator, *_types)(_binary(_instruction))


def _place(context: Any, builder: Any, kind: Any, array: Any, start: Any, shape: Any) -> Any:
    """Return the address of an array's number as that of a vector."""
    data = make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [start]), ir.PointerType(shape))


def _spread(context: Any, builder: Any, number: Any, kind: Any, vector: Vector) -> Any:
    """Return a vector of one number in all places."""
    shape = context.get_value_type(vector)
    number = context.cast(builder, number, kind, vector.dtype)
    nothing = ir.Constant(shape, ir.Undefined)
    first = builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, nothing, _mask([0] * shape.count))


def _mask(places: list[int]) -> Any:
    return ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places)


def _index(k: int) -> Any:
    return ir.Constant(ir.IntType(64), k)


def _suffix(vector: Vector) -> str:
    return f"v{vector.width}f{vector.dtype.bitwidth}"
