"""`raw`: the block's own bytes. Always allowed, never expands, fastest."""

from collections.abc import Sequence

from mergepipe.codecs.pieces import only_layer
from mergepipe.codecs.protocol import Buffer
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import DType
from mergepipe.errors import CodecError


class Raw:
    """The block as it is; the payload is a view of the caller's buffer, not a copy."""

    name = "raw"
    tag = 0
    version = 1
    layers = 1
    needs_base = False

    def supports(self, dtype: DType) -> bool:
        """Every dtype."""
        return True

    def encode(
        self, raw: Buffer, base: Buffer | None, dtype: DType, workspace: Workspace
    ) -> tuple[Buffer, ...]:
        """The block itself."""
        return (raw,)

    def decode_into(
        self,
        layers: Sequence[Buffer],
        base: Buffer | None,
        out: memoryview,
        workspace: Workspace,
    ) -> None:
        """Copy the payload. Raises CodecError if it has another length than the block."""
        payload = memoryview(only_layer(layers, self.name)).cast("B")
        if len(payload) != len(out):
            raise CodecError(f"raw payload of {len(payload)} bytes for a block of {len(out)}")
        out[:] = payload
