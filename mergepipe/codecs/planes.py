"""`planes` and `delta`: byte k of every element together, a zstd frame each; any dtype.

`delta` first takes the base block away, element by element: floats as integers that grow with the
value, integers as they are, the difference zigzagged so that small ones of either sign are small;
what is neither (booleans, packed elements below a byte) is XORed. Payload, after one u8 (0: no
base, 1: difference of floats, 2: of integers, 3: XOR; the element's bytes in the upper four bits,
minus one) and a u32 for each plane's length: the planes, each a frame, or as it is where that is
not longer; then the bytes after the last whole element.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mergepipe.codecs import frames
from mergepipe.codecs.pieces import Pieces, octets, only_layer
from mergepipe.codecs.protocol import Buffer
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import DType, Kind
from mergepipe.errors import CodecError

_NONE, _DIFFERENCE, _INTEGER_DIFFERENCE, _XOR = 0, 1, 2, 3
Elements: TypeAlias = npt.NDArray[Any]
_INTEGERS: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def _width(dtype: DType) -> int:
    """Bytes of what is split into planes: an element, or half a complex one."""
    width = dtype.bits // 8
    return 4 if dtype.kind is Kind.COMPLEX else max(width, 1) if dtype.bits % 8 == 0 else 1


def _mode(dtype: DType) -> int:
    if dtype.bits % 8 or dtype.kind is Kind.BOOLEAN:
        return _XOR
    return _DIFFERENCE if dtype.kind in (Kind.FLOAT, Kind.COMPLEX) else _INTEGER_DIFFERENCE


def _monotone(values: Elements) -> Elements:
    """Sign and magnitude to two's complement, and back: then differences are distances.

    -0 is the most negative integer, which no other float maps to.
    """
    top = values.dtype.type(1 << (8 * values.itemsize - 1))
    return np.where(values > top, top - values, values)


def _zigzag(values: Elements) -> Elements:
    """0, -1, 1, -2... to 0, 1, 2, 3..."""
    signs: Elements = -(values >> (8 * values.itemsize - 1))
    return (values << 1) ^ signs


def _unzigzag(values: Elements) -> Elements:
    signs: Elements = -(values & 1)
    return (values >> 1) ^ signs


def _remove(values: Elements, base: Elements, mode: int) -> Elements:
    if mode == _XOR:
        return values ^ base
    if mode == _DIFFERENCE:
        values, base = _monotone(values), _monotone(base)
    return _zigzag(values - base)


def _restore(values: Elements, base: Elements, mode: int) -> Elements:
    if mode == _XOR:
        return values ^ base
    if mode == _INTEGER_DIFFERENCE:
        return _unzigzag(values) + base
    return _monotone(_unzigzag(values) + _monotone(base))


def _integers(data: npt.NDArray[np.uint8], width: int) -> Elements:
    """Whole elements as little-endian integers; numpy reads misaligned ones too."""
    whole: Elements = data[: data.size // width * width].view(_INTEGERS[width])
    return whole


class Planes:
    """Byte planes of the elements themselves."""

    name = "planes"
    tag = 5
    version = 1
    layers = 1
    needs_base = False

    def __init__(self, level: int = 1) -> None:
        self.level = level

    def supports(self, dtype: DType) -> bool:
        """Every dtype."""
        return True

    def encode(
        self, raw: Buffer, base: Buffer | None, dtype: DType, workspace: Workspace
    ) -> tuple[Buffer, ...]:
        """One payload."""
        data, width = octets(raw), _width(dtype)
        elements = _integers(data, width)
        mode = _NONE
        if self.needs_base:
            if base is None:
                raise CodecError(f"{self.name} needs the base block")
            mode = _mode(dtype)
            elements = _remove(elements, _integers(octets(base), width), mode)
        own = elements.view(np.uint8)
        planes = []
        for k in range(width):
            plane = own[k::width].tobytes()
            frame = frames.compress(plane, self.level)
            planes.append(frame if len(frame) < len(plane) else plane)
        parts = (
            bytes([mode | (width - 1) << 4]),
            *(len(plane).to_bytes(4, "little") for plane in planes),
            *planes,
            data[own.size :].tobytes(),
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
        pieces = Pieces(only_layer(layers, self.name))
        layout = int(pieces.take(1)[0])
        mode, width = layout & 15, (layout >> 4) + 1
        if width not in _INTEGERS or mode > _XOR or (mode != _NONE) != self.needs_base:
            raise CodecError(f"unknown planes layout {layout}")
        count, tail = divmod(len(out), width)
        values = np.empty(count * width, np.uint8)
        lengths = [pieces.number() for _ in range(width)]
        for k, length in enumerate(lengths):
            plane = pieces.take(length)
            if length != count:
                plane = octets(frames.decompress(plane.data, count))
            values[k::width] = plane
        last = pieces.rest()
        if last.size != tail:
            raise CodecError(f"{last.size} bytes after the planes, {tail} wanted")
        target = octets(out)
        if self.needs_base:
            if base is None or len(octets(base)) != len(out):
                raise CodecError(f"{self.name} needs a base block of the block's length")
            before = _integers(octets(base), width)
            values = _restore(values.view(_INTEGERS[width]), before, mode).view(np.uint8)
        target[: values.size] = values
        target[values.size :] = last


class Delta(Planes):
    """Byte planes of the difference from the base."""

    name = "delta"
    tag = 6
    needs_base = True
