"""What kernels need to know of the float formats: how wide a mantissa is, and each value as float32."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import float32, int64, types, uint16, uint32, void

from mergepipe.dtypes import BF16, F16, F32, DType
from mergepipe.jit import kernel


@dataclass(frozen=True, slots=True)
class FloatFormat:
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


_U16 = types.Array(uint16, 1, "C", readonly=True)
_U32 = types.Array(uint32, 1, "C", readonly=True)
_U32_OUT = types.Array(uint32, 1, "C")
_F32_OUT = types.Array(float32, 1, "C")


@kernel(void(_U16, int64, _U32_OUT))
def widen(values: Any, mantissa_bits: int, out: Any) -> None:
    """16-bit floats to the bits of float32."""
    if mantissa_bits == 7:
        for i in range(values.size):
            out[i] = np.uint32(values[i]) << np.uint32(16)
        return
    real = out.view(np.float32)
    for i in range(values.size):
        out[i] = np.uint32(values[i] & 0x7FFF) << np.uint32(13)
    for i in range(values.size):
        # Moves the exponent's bias from 15 to 127; exact, denormals included.
        real[i] = real[i] * np.float32(2.0**112)
    for i in range(values.size):
        special = np.uint32(0x7F800000) if (values[i] & 0x7C00) == 0x7C00 else np.uint32(0)
        sign = np.uint32(values[i] & 0x8000) << np.uint32(16)
        out[i] = out[i] | special | sign
