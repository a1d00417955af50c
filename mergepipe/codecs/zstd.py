"""`zstd`: one frame over the block as it is. For data that repeats: tables, masks, text."""

from collections.abc import Sequence

from mergepipe.codecs import frames
from mergepipe.codecs.pieces import only_layer
from mergepipe.codecs.protocol import Buffer
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import DType


class Zstd:
    """zstd at `level`, which decides what encoding costs and nothing about decoding."""

    name = "zstd"
    tag = 1
    version = 1
    layers = 1
    needs_base = False

    def __init__(self, level: int = 3) -> None:
        self.level = level

    def supports(self, dtype: DType) -> bool:
        """Every dtype."""
        return True

    def encode(
        self, raw: Buffer, base: Buffer | None, dtype: DType, workspace: Workspace
    ) -> tuple[Buffer, ...]:
        """One frame."""
        return (frames.compress(raw, self.level),)

    def decode_into(
        self,
        layers: Sequence[Buffer],
        base: Buffer | None,
        out: memoryview,
        workspace: Workspace,
    ) -> None:
        """Raises CodecError unless the payload is one frame of exactly `len(out)` bytes."""
        out[:] = frames.decompress(only_layer(layers, self.name), len(out))
