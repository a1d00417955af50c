"""How an output block is stored: as commits store blocks, against the base's block under it.

Which codec a block gets depends on the block alone, never on which thread came first, so that packs
are the same for any number of threads.
"""

from msgspec import Struct, field

from mergepipe.bytestore.protocol import Buffer
from mergepipe.codecs.registry import codec_named
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import DType
from mergepipe.ids import BlockId
from mergepipe.packs.encoded_blocks import EncodedBlock, encode_block

_DELTA_DTYPES = frozenset({"BF16", "F16", "F32"})


class BaseBlock(Struct, frozen=True):
    """The base's block under an output block; `links`: the bases that its own encoding leans on."""

    id: BlockId
    raw: Buffer
    links: int


class OutputEncoder(Struct, frozen=True):
    """Encodes output blocks, on worker threads. Settings as in `store.codec`, `store.max_chain`.

    There is no choosing among codecs as at commit: a merge is made of its base and near it, and the
    codec for that is known. `raw` stores raw.
    """

    codec: str = "auto"
    max_chain: int = 2
    workspace: Workspace = field(default_factory=Workspace)

    # Two are the same, wherever they are, if they make the same: of the workspace nothing hangs.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, OutputEncoder) and self._settings == other._settings

    def __hash__(self) -> int:
        return hash(self._settings)

    def __repr__(self) -> str:
        return "OutputEncoder(codec={!r}, max_chain={!r})".format(*self._settings)

    @property
    def _settings(self) -> tuple[str, int]:
        return self.codec, self.max_chain

    def encode(
        self, identity: BlockId, raw: Buffer, dtype: DType, base: BaseBlock | None
    ) -> EncodedBlock:
        """The block's records; `raw` may be part of them."""
        if self.codec == "raw":
            return encode_block(identity, raw, dtype, codec_named("raw"))
        if dtype.name not in _DELTA_DTYPES:
            return encode_block(identity, raw, dtype, codec_named("zstd"), None, self.workspace)
        if base is None or base.links + 1 > self.max_chain or base.id == identity:
            return encode_block(identity, raw, dtype, codec_named("split"), None, self.workspace)
        leaning = base.id, base.raw
        return encode_block(identity, raw, dtype, codec_named("residual"), leaning, self.workspace)
