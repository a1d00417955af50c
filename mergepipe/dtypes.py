"""Every dtype safetensors 0.8 knows: its name, width in bits, and kind. No numpy here."""

from enum import StrEnum
from math import prod

from msgspec import Struct

from mergepipe.errors import MalformedFile, UsageError


class Kind(StrEnum):
    """What the bits of an element mean."""

    FLOAT = "float"
    INTEGER = "integer"
    UNSIGNED = "unsigned"
    BOOLEAN = "boolean"
    COMPLEX = "complex"


class DType(Struct, frozen=True):
    """An element type. `bits` may be below 8 (F4, F6): such elements are packed without gaps."""

    name: str
    bits: int
    kind: Kind

    def __str__(self) -> str:
        return self.name


# safetensors 0.8, `Dtype` in safetensors/src/tensor.rs.
_ALL = (
    DType("BOOL", 8, Kind.BOOLEAN),
    DType("F4", 4, Kind.FLOAT),
    DType("F6_E2M3", 6, Kind.FLOAT),
    DType("F6_E3M2", 6, Kind.FLOAT),
    DType("U8", 8, Kind.UNSIGNED),
    DType("I8", 8, Kind.INTEGER),
    DType("F8_E5M2", 8, Kind.FLOAT),
    DType("F8_E4M3", 8, Kind.FLOAT),
    DType("F8_E8M0", 8, Kind.FLOAT),
    DType("F8_E4M3FNUZ", 8, Kind.FLOAT),
    DType("F8_E5M2FNUZ", 8, Kind.FLOAT),
    DType("I16", 16, Kind.INTEGER),
    DType("U16", 16, Kind.UNSIGNED),
    DType("F16", 16, Kind.FLOAT),
    DType("BF16", 16, Kind.FLOAT),
    DType("I32", 32, Kind.INTEGER),
    DType("U32", 32, Kind.UNSIGNED),
    DType("F32", 32, Kind.FLOAT),
    DType("C64", 64, Kind.COMPLEX),
    DType("F64", 64, Kind.FLOAT),
    DType("I64", 64, Kind.INTEGER),
    DType("U64", 64, Kind.UNSIGNED),
)
DTYPES = {dtype.name: dtype for dtype in _ALL}
U8 = DTYPES["U8"]
BF16 = DTYPES["BF16"]
F16 = DTYPES["F16"]
F32 = DTYPES["F32"]
F64 = DTYPES["F64"]

# What torch, transformers and mergekit call the dtypes that safetensors names otherwise.
_TORCH_NAMES = {
    "bfloat16": "BF16",
    "float16": "F16",
    "half": "F16",
    "float32": "F32",
    "float": "F32",
    "float64": "F64",
    "double": "F64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}


def dtype_of(name: str) -> DType:
    """The dtype called `name` in a safetensors header. Raises MalformedFile for an unknown one."""
    try:
        return DTYPES[name]
    except KeyError:
        raise MalformedFile(
            f"unknown dtype {name!r}", f"known dtypes: {', '.join(DTYPES)}"
        ) from None


def dtype_called(name: str) -> DType:
    """The dtype that safetensors or torch call `name`, in any case. Raises UsageError."""
    plain = name.strip().removeprefix("torch.")
    dtype = DTYPES.get(_TORCH_NAMES.get(plain.lower(), plain.upper()))
    if dtype is None:
        raise UsageError(f"no dtype is called {name!r}", "try bfloat16, float16 or float32")
    return dtype


def byte_length(dtype: DType, shape: tuple[int, ...]) -> int:
    """Bytes that a tensor takes. Raises MalformedFile if its bits do not fill whole bytes."""
    bits = prod(shape) * dtype.bits
    if bits % 8:
        raise MalformedFile(f"{dtype} of shape {list(shape)} does not fill whole bytes")
    return bits // 8
