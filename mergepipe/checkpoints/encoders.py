"""What becomes of each block of an ingest: known already, or encoded."""

from collections.abc import Sequence

from mergepipe.checkpoints.layout import Layout, Span
from mergepipe.checkpoints.outcome import BlockOutcome
from mergepipe.codecs.protocol import Codec
from mergepipe.ids import BlockId, ObjectId, object_id
from mergepipe.packs.encoding import EncodedBlock, encode_block
from mergepipe.packs.storage import Storage


class Fingerprint:
    """Encodes nothing, stores nothing: for the id that files would have."""

    stored_bytes = 0

    def begin(self, layout: Layout) -> None:
        """Nothing to learn."""

    def encode(
        self, spans: Sequence[Span], identities: Sequence[BlockId], raws: Sequence[memoryview]
    ) -> list[BlockOutcome]:
        """Ids only."""
        return [BlockOutcome(identity, None) for identity in identities]

    def collect(self, spans: Sequence[Span], outcomes: Sequence[BlockOutcome]) -> None:
        """Nothing to note."""

    def add_block(self, block: EncodedBlock) -> bool:
        """Nothing to keep."""
        return False

    def add_object(self, canonical: bytes) -> ObjectId:
        """The id alone."""
        return object_id(canonical)


class BlockEncoder:
    """Encodes the blocks of one ingest. `encode` runs on worker threads, the rest on one."""

    def __init__(self, storage: Storage, codec: Codec) -> None:
        self._storage = storage
        self._codec = codec
        self._layout = Layout((), ())

    def begin(self, layout: Layout) -> None:
        """Learn which tensors will come."""
        self._layout = layout

    def encode(
        self, spans: Sequence[Span], identities: Sequence[BlockId], raws: Sequence[memoryview]
    ) -> list[BlockOutcome]:
        """The outcome of neighbouring blocks; `raws` may be reused once it is in a pack."""
        with self._storage.view() as view:
            known = [view.has_block(identity) for identity in identities]
        return [
            BlockOutcome(identity, None if have else self._encode(span, identity, raw))
            for span, identity, raw, have in zip(spans, identities, raws, known, strict=True)
        ]

    def collect(self, spans: Sequence[Span], outcomes: Sequence[BlockOutcome]) -> None:
        """Take note of outcomes, in the order of the file."""

    def _encode(self, span: Span, identity: BlockId, raw: memoryview) -> EncodedBlock:
        return encode_block(identity, raw, self._layout.tensors[span.tensor].dtype, self._codec)
