"""How an output block is stored: as commits store blocks. The one place to change that."""

from dataclasses import dataclass

from mergepipe.bytestore.protocol import Buffer
from mergepipe.codecs.registry import codec_named
from mergepipe.dtypes import DType
from mergepipe.ids import BlockId
from mergepipe.packs.encoding import EncodedBlock, encode_block


@dataclass(frozen=True, slots=True)
class BaseBlock:
    """The base's block under an output block; `links`: the bases that its own encoding leans on."""

    id: BlockId
    raw: Buffer
    links: int


@dataclass(frozen=True, slots=True)
class OutputEncoder:
    """Encodes output blocks, on worker threads. `codec` as in `store.codec`."""

    codec: str = "raw"
    max_chain: int = 2

    def encode(
        self, identity: BlockId, raw: Buffer, dtype: DType, base: BaseBlock | None
    ) -> EncodedBlock:
        """The block's records; `raw` may be part of them."""
        codec = codec_named("raw" if self.codec == "raw" else "zstd")
        return encode_block(identity, raw, dtype, codec)
