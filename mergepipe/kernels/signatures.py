"""The types that kernels take and return, in numba's notation: `void(uint8[::1], int64)`.

Arrays are contiguous, of one or two dimensions. Nothing here loads numba.
"""

from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace


class Array(Struct, frozen=True):
    """A contiguous array; a kernel writes to no array that is `read_only`."""

    element: "Scalar"
    dimensions: int
    read_only: bool = False


class Signature(Struct, frozen=True):
    """What a kernel returns (None: nothing) and takes."""

    result: "Scalar | None"
    parameters: "tuple[Parameter, ...]"


class Scalar(Struct, frozen=True):
    """A number, by numpy's name of its type. Called, it is the result of a signature."""

    name: str

    def __call__(self, *parameters: "Parameter") -> Signature:
        """The signature that returns this."""
        return Signature(self, parameters)

    def __getitem__(self, item: slice | tuple[slice, ...]) -> Array:
        """`[::1]`, a row of these, or `[:, ::1]`, rows of them."""
        return Array(self, len(item) if isinstance(item, tuple) else 1)


Parameter: TypeAlias = Scalar | Array


def void(*parameters: Parameter) -> Signature:
    """The signature that returns nothing."""
    return Signature(None, parameters)


def read_only(array: Array) -> Array:
    """The same array, which the kernel does not write to."""
    return replace(array, read_only=True)


boolean = Scalar("bool")
uint8, uint16, uint32 = Scalar("uint8"), Scalar("uint16"), Scalar("uint32")
int16, int64 = Scalar("int16"), Scalar("int64")
float32, float64 = Scalar("float32"), Scalar("float64")
