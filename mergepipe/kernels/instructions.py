"""What numba has no words for: arrays over raw addresses and on the stack, and the bits of a float.

Numba compiles a kernel per tuple length, and calling one kernel per expert and piece costs more
than the piece. So a sweep takes addresses as int64, and its caller keeps the buffers alive and long
enough (`terms.Unit.check` has compared their lengths).

Only the compiler imports this module; kernels name what is here through `primitives` beside it.
"""

from collections.abc import Callable
from math import prod
from typing import Any, cast

import numba
from llvmlite import ir  # type: ignore[import-untyped, unused-ignore]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

_LINE = 64  # bytes: vectors of any width are aligned to it

# numba's stubs leave these out, and have an intrinsic take the context that its compiler supplies.
carray: Callable[..., Any] = cast(Any, numba).carray
_populate: Any = populate_array
_builders: Any = cgutils
_declare = cast(Callable[[Any], Callable[..., Any]], intrinsic)
_declare_literal = cast(
    Callable[[Any], Callable[..., Any]], cast(Any, intrinsic)(prefer_literal=True)
)


@_declare
def pointer(typing_context: Any, address: Any) -> Any:
    """The address as a void pointer, for `carray`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@_declare
def store_unaligned(typing_context: Any, address: Any, word: Any) -> Any:
    """Write a uint64 to an address of any alignment."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        builder.store(arguments[1], target, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.uint64), generate


@_declare
def as_float(typing_context: Any, bits: Any) -> Any:
    """The float32 whose bits these 32 are."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


@_declare
def as_bits(typing_context: Any, value: Any) -> Any:
    """The 32 bits of a float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@_declare
def as_double(typing_context: Any, bits: Any) -> Any:
    """The float64 whose bits these 64 are."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


@_declare_literal
def on_stack(typing_context: Any, shape: Any, dtype: Any) -> Any:
    """An array of a constant shape, tens of KiB at most; what it holds is undefined.

    Unlike numpy's it needs none of numba's runtime, which is not there when object code is run.
    """
    axes = list(cast(Any, shape)) if isinstance(shape, types.BaseTuple) else [shape]
    if not all(isinstance(axis, types.IntegerLiteral) for axis in axes):
        return None
    lengths = [axis.literal_value for axis in axes]
    element = dtype.dtype
    array_type = types.Array(element, len(lengths), "C")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        llvm_type = context.get_data_type(element)
        size = context.get_abi_sizeof(llvm_type)
        data = _builders.alloca_once(
            builder, llvm_type, size=context.get_constant(types.intp, prod(lengths))
        )
        data.align = _LINE
        array = context.make_array(array_type)(context, builder)
        strides = [size * prod(lengths[axis + 1 :]) for axis in range(len(lengths))]
        _populate(
            array,
            data=data,
            shape=[context.get_constant(types.intp, length) for length in lengths],
            strides=[context.get_constant(types.intp, stride) for stride in strides],
            itemsize=context.get_constant(types.intp, size),
            meminfo=None,
        )
        return array._getvalue()

    return array_type(shape, dtype), generate
