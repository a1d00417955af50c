"""What a codec is: block bytes to one encoded payload per layer, and back.

A block is the raw little-endian bytes of a contiguous piece of one tensor. A codec never decides
identity (the block's BLAKE3 does), so its output may change between versions as long as every
`(tag, version)` ever written stays decodable.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import DType

if TYPE_CHECKING:  # numpy: not for codecs that do without
    from mergepipe.codecs.statistics import BlockStatistics

Buffer: TypeAlias = bytes | bytearray | memoryview


@runtime_checkable
class Codec(Protocol):
    """One way to store a block, in one or more layers.

    tag      byte written in every record; never reused for another codec
    version  byte written in every record; `decode_into` is asked for versions the registry knows
    layers   records a block becomes: 1, or 2 for coarse (layer 0) and exact (layer 1)
    needs_base  whether encoding and decoding take the base block's bytes (same length as the block)
    """

    @property
    def name(self) -> str:  # noqa: D102
        ...

    @property
    def tag(self) -> int:  # noqa: D102
        ...

    @property
    def version(self) -> int:  # noqa: D102
        ...

    @property
    def layers(self) -> int:  # noqa: D102
        ...

    @property
    def needs_base(self) -> bool:  # noqa: D102
        ...

    def supports(self, dtype: DType) -> bool:
        """Whether blocks of this dtype can be encoded."""
        ...

    def encode(
        self, raw: Buffer, base: Buffer | None, dtype: DType, workspace: Workspace
    ) -> tuple[Buffer, ...]:
        """Encode one block; one payload per layer, deterministic in its arguments.

        `raw` and `base` may be misaligned and read-only and have equal length; never empty.
        `workspace` has working memory: payloads are no part of it.
        """
        ...

    def decode_into(
        self,
        layers: Sequence[Buffer],
        base: Buffer | None,
        out: memoryview,
        workspace: Workspace,
    ) -> None:
        """Decode all layers into `out`, a writable byte view of exactly the block's raw length.

        Payloads are hostile until the caller has compared the block's hash: every read is bounded,
        and nothing is allocated from a declared length before it is checked against `len(out)`.
        `workspace` has working memory. Raises CodecError for bytes that do not decode to
        `len(out)` bytes.
        """
        ...


@runtime_checkable
class MeasuringCodec(Protocol):
    """A power that some codecs have: the passes that encode a block also measure its change."""

    def encode_with_statistics(
        self, raw: Buffer, base: Buffer, dtype: DType, workspace: Workspace
    ) -> "tuple[tuple[Buffer, ...], BlockStatistics]":
        """What `encode` returns, and how the block differs from its base."""
        ...


@runtime_checkable
class EstimatingCodec(Protocol):
    """A power that some codecs have: to say about what a block takes, for less than coding it."""

    def estimate(
        self, samples: Sequence[tuple[Buffer, Buffer]], dtype: DType, workspace: Workspace
    ) -> int:
        """About how many bytes `encode` returns for pieces of a block and its base, as if one."""
        ...
