"""Taking a payload apart, piece by piece, never past its end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from mergepipe.codecs.protocol import Buffer
from mergepipe.errors import CodecError

if TYPE_CHECKING:  # whoever opens a repository imports this, and many compute nothing
    import numpy as np
    import numpy.typing as npt

    Octets: TypeAlias = npt.NDArray[np.uint8]


def octets(buffer: Buffer) -> "Octets":
    """A buffer as uint8, without a copy."""
    import numpy as np

    return np.frombuffer(buffer, np.uint8)


def only_layer(layers: Sequence[Buffer], codec: str) -> Buffer:
    """The payload of a codec that has one layer. Raises CodecError."""
    if len(layers) != 1:
        raise CodecError(f"{codec} has one layer, not {len(layers)}")
    return layers[0]


class Pieces:
    """What is left of a payload. Every method raises CodecError where there is not enough."""

    def __init__(self, payload: Buffer) -> None:
        self._left = octets(payload)

    def take(self, size: int) -> "Octets":
        """The next `size` bytes, not copied."""
        if not 0 <= size <= self._left.size:
            raise CodecError(f"a payload ends {size - self._left.size} bytes early")
        piece, self._left = self._left[:size], self._left[size:]
        return piece

    def take_last(self, size: int) -> "Octets":
        """The last `size` bytes of what is left."""
        if not 0 <= size <= self._left.size:
            raise CodecError(f"a payload ends {size - self._left.size} bytes early")
        cut = self._left.size - size
        piece, self._left = self._left[cut:], self._left[:cut]
        return piece

    def number(self) -> int:
        """A little-endian uint32."""
        return int.from_bytes(self.take(4).tobytes(), "little")

    def rest(self) -> "Octets":
        """All that is left."""
        return self.take(self._left.size)
