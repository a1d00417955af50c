"""What kernels need to know of float formats: the mantissa's width, and values as float32."""

from typing import Any

import numpy as np
from msgspec import Struct

from mergepipe.dtypes import BF16, F16, F32, DType
from mergepipe.kernels.declared import kernel
from mergepipe.kernels.primitives import as_float


class FloatFormat(Struct, frozen=True):
    """A float whose upper 16 bits are sign, exponent and `mantissa_bits` bits of mantissa.

    code  byte in payloads        width_bytes  of one element
    """

    code: int
    width_bytes: int
    mantissa_bits: int

    @property
    def largest_exponent(self) -> int:
        """The biased exponent of infinities and NaNs."""
        return (1 << (15 - self.mantissa_bits)) - 1

    @property
    def bias(self) -> int:
        """What is added to an exponent before it is stored."""
        return self.largest_exponent // 2


FORMATS = {
    BF16: FloatFormat(1, 2, 7),
    F16: FloatFormat(2, 2, 10),
    F32: FloatFormat(3, 4, 7),
}
BY_CODE = {format_.code: format_ for format_ in FORMATS.values()}


def float_format(dtype: DType) -> FloatFormat:
    """The format of a dtype in FORMATS."""
    return FORMATS[dtype]


@kernel(inline=True)
def bf16_value(half: Any) -> Any:
    """float32 of the 16 bits of a bf16, inside a kernel."""
    return as_float(np.uint32(np.uint32(half) << np.uint32(16)))


@kernel(inline=True)
def f16_value(half: Any) -> Any:
    """float32 of the 16 bits of an fp16, inside a kernel; NaN for an infinity."""
    bits = np.uint32(half)
    size = np.uint32(np.uint32(bits & np.uint32(0x7FFF)) << np.uint32(13))
    # Moves the exponent's bias from 15 to 127; exact, denormals included.
    value = np.float32(as_float(size) * np.float32(2.0**112))
    value = value if size < np.uint32(0x7C00 << 13) else np.float32(np.nan)
    return -value if bits >= np.uint32(0x8000) else value
