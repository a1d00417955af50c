"""What numba has no words for: arrays over raw addresses, and the bits of a float.

Numba compiles a kernel per tuple length, and calling one kernel per expert and piece costs more
than the piece. So a sweep takes addresses as int64, and its caller keeps the buffers alive and long
enough (`terms.Unit.check` has compared their lengths).
"""

from collections.abc import Callable
from typing import Any, cast

import numba
from llvmlite import ir  # type: ignore[import-untyped, unused-ignore]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

# numba's stubs leave it out.
carray: Callable[..., Any] = cast(Any, numba).carray
# numba's stub has an intrinsic take the typing context that its compiler supplies.
_declare = cast(Callable[[Any], Callable[..., Any]], intrinsic)


@_declare
def pointer(typing_context: Any, address: Any) -> Any:
    """The address as a void pointer, for `numba.carray`."""

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
