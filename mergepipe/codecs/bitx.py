"""`bitx`: ZipLLM's coding of a fine-tune (NSDI 2026), kept to measure against and to read.

The 16 bits of every weight are XORed with the base's; bits 7..14 (bf16's exponent) make one byte
plane, bit 15 and bits 0..6 the other, and each is a zstd frame. As in ZipLLM the split is the same
for fp16. Payload: u32 length of the first frame, both frames, and the last byte of an odd block.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mergepipe.codecs import frames
from mergepipe.codecs.pieces import Pieces, octets
from mergepipe.codecs.protocol import Buffer
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import BF16, F16, DType
from mergepipe.errors import CodecError
from mergepipe.kernels.declared import kernel
from mergepipe.kernels.signatures import read_only, uint8, uint16, void

_U8 = uint8[::1]
_U16 = uint16[::1]
_READ_U8 = read_only(uint8[::1])
_READ_U16 = read_only(uint16[::1])
_u16 = np.uint16


@kernel(void(_READ_U16, _READ_U16, _U8, _U8))
def split_xor(values: Any, base: Any, exponents: Any, rest: Any) -> None:
    """The two planes of `values ^ base`."""
    for i in range(exponents.size):
        mixed = _u16(values[i] ^ base[i])
        exponents[i] = _u16(mixed >> _u16(7))
        rest[i] = _u16(_u16(_u16(mixed >> _u16(8)) & _u16(0x80)) | _u16(mixed & _u16(0x7F)))


@kernel(void(_READ_U8, _READ_U8, _READ_U16, _U16))
def join_xor(exponents: Any, rest: Any, base: Any, out: Any) -> None:
    """Undo `split_xor`."""
    for i in range(out.size):
        low = _u16(rest[i])
        mixed = _u16(_u16(_u16(low & _u16(0x80)) << _u16(8)) | _u16(low & _u16(0x7F)))
        out[i] = _u16(_u16(mixed | _u16(_u16(exponents[i]) << _u16(7))) ^ base[i])


class BitX:
    """XOR with the base as two planes, zstd `level` each."""

    name = "bitx"
    tag = 2
    version = 1
    layers = 1
    needs_base = True

    def __init__(self, level: int = 3) -> None:
        self.level = level

    def supports(self, dtype: DType) -> bool:
        """16-bit floats."""
        return dtype in (BF16, F16)

    def encode(
        self, raw: Buffer, base: Buffer | None, dtype: DType, workspace: Workspace
    ) -> tuple[Buffer, ...]:
        """One payload."""
        if base is None:
            raise CodecError("bitx needs the base block")
        x, b = octets(raw), octets(base)
        whole = x.size // 2 * 2
        planes = workspace.array("planes", whole, np.uint8)
        first, second = planes[: whole // 2], planes[whole // 2 :]
        split_xor(
            workspace.elements("tuned", x[:whole], np.uint16),
            workspace.elements("base", b[:whole], np.uint16),
            first,
            second,
        )
        frame = frames.compress(first.data, self.level)
        parts = (
            len(frame).to_bytes(4, "little"),
            frame,
            frames.compress(second.data, self.level),
            x[whole:].tobytes(),
        )
        return (b"".join(parts),)

    def decode_into(
        self,
        layers: Sequence[Buffer],
        base: Buffer | None,
        out: memoryview,
        workspace: Workspace,
    ) -> None:
        """Raises CodecError for a payload that is not a block of `len(out)` bytes."""
        if len(layers) != 1 or base is None:
            raise CodecError("bitx needs one layer and the base block")
        pieces, b, target = Pieces(layers[0]), octets(base), octets(out)
        if b.size != target.size:
            raise CodecError("bitx needs a base block of the block's length")
        count, tail = divmod(target.size, 2)
        last = pieces.take_last(tail)
        exponents = frames.decompress(pieces.take(pieces.number()).data, count)
        rest = frames.decompress(pieces.rest().data, count)
        view = target[: 2 * count].view(np.uint16)
        halves = view if view.flags.aligned else workspace.array("out", count, np.uint16)
        join_xor(
            octets(exponents),
            octets(rest),
            workspace.elements("base", b[: 2 * count], np.uint16),
            halves,
        )
        if not view.flags.aligned:
            view[:] = halves
        target[2 * count :] = last
