"""The ingest that stores nothing: what files would be called if they were committed."""

from collections.abc import Sequence

from mergepipe.checkpoints.layout import Layout, Span
from mergepipe.checkpoints.outcome import BlockOutcome
from mergepipe.ids import BlockId, ObjectId, object_id
from mergepipe.packs.encoded_blocks import EncodedBlock


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
