"""Healing from files: a model is cut as a commit cuts it, and what the store lacks is kept."""

from collections.abc import Sequence

from mergepipe.checkpoints.ingest import Ingest, ingest, plain_piece
from mergepipe.checkpoints.ingest_work import Piece
from mergepipe.checkpoints.layout import Layout, Span
from mergepipe.checkpoints.outcome import BlockNote, BlockOutcome
from mergepipe.codecs.chooser import choose, samples_of
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import DType
from mergepipe.executors.readings import NOTHING_READ, Readings
from mergepipe.executors.threads import ThreadExecutor
from mergepipe.executors.workforce import Workforce
from mergepipe.formats.tree import SourceFile, StableReader
from mergepipe.ids import BlockId, ObjectId, object_id
from mergepipe.packs.encoded_blocks import EncodedBlock, encode_block
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import Transaction
from mergepipe.packs.written import WrittenPack
from mergepipe.progress import Progress
from mergepipe.repository.config import Config
from mergepipe.transfer.healing import Healed, Lacking


def heal_from_files(
    storage: Storage,
    config: Config,
    sources: Sequence[SourceFile],
    lacking: Lacking,
    *,
    threads: int,
    progress: Progress,
) -> Healed:
    """Store what of `lacking` the files hold, and nothing else; each block leans on no other.

    Raises what `ingest` raises for files that are no model, or change meanwhile. `store.lock` is
    held.
    """
    with Transaction(storage) as transaction:
        sink = _OnlyLacking(transaction, lacking)
        ingest(
            sources,
            sink,
            _Again(config.store.codec, lacking),
            Ingest(Workforce(ThreadExecutor(threads)), storage.store, known=transaction.holds),
            block_size=config.store.block_size,
            progress=progress,
            check_index=False,
        )
        transaction.publish()
    return Healed(sink.objects, sink.blocks)


class _Again:
    """Encodes the blocks that lack; the encoder of an ingest, and its coder."""

    def __init__(self, effort: str, lacking: Lacking) -> None:
        self._effort = effort
        self._workspace = Workspace()
        self._lacking = lacking
        self._layout = Layout((), ())

    @property
    def coder(self) -> "_Again":
        """It is."""
        return self

    def begin(self, layout: Layout) -> None:
        """Learn which tensors will come."""
        self._layout = layout

    def piece(self, source: SourceFile, spans: Sequence[Span]) -> Piece:
        """Neighbouring blocks."""
        return plain_piece(self._layout, source, spans)

    def encode(
        self,
        piece: Piece,
        identities: Sequence[BlockId],
        raws: Sequence[memoryview],
        file: StableReader,
    ) -> list[BlockOutcome]:
        """The outcomes of neighbouring blocks, in order."""
        return [
            BlockOutcome(
                identity,
                self._encode(piece.tensors[span.tensor].tensor.dtype, identity, raw)
                if identity in self._lacking.blocks
                else None,
            )
            for span, identity, raw in zip(piece.spans, identities, raws, strict=True)
        ]

    def readings(self) -> Readings:
        """The store is not read."""
        return NOTHING_READ

    def collect(self, spans: Sequence[Span], notes: Sequence[BlockNote]) -> None:
        """Nothing is to be noted."""

    def _encode(self, dtype: DType, identity: BlockId, raw: memoryview) -> EncodedBlock:
        codec = choose(self._effort, dtype, samples_of(raw, None), self._workspace)
        return encode_block(identity, raw, dtype, codec, workspace=self._workspace)


class _OnlyLacking:
    """The sink of an ingest that keeps nothing but what lacks."""

    def __init__(self, transaction: Transaction, lacking: Lacking) -> None:
        self._transaction = transaction
        self._lacking = lacking
        self.objects = 0
        self.blocks = 0

    @property
    def stored_bytes(self) -> int:
        """What was added to the store so far."""
        return self._transaction.stored_bytes

    def has_block(self, block: BlockId, /) -> bool:
        """Whether a block is not to be stored: all but those that lack."""
        return block not in self._lacking.blocks or self._transaction.has_block(block)

    def pending_object(self, identity: ObjectId, /) -> bytes | None:
        """The canonical bytes of an object that was stored again."""
        return self._transaction.pending_object(identity)

    def add_block(self, block: EncodedBlock, /) -> bool:
        """Store a block again; it lacked."""
        added = self._transaction.add_block(block)
        self.blocks += added
        return added

    def add_packs(self, packs: Sequence[WrittenPack], /) -> None:
        """Store blocks again; they lacked."""
        before = self._transaction.new_blocks
        self._transaction.add_packs(packs)
        self.blocks += self._transaction.new_blocks - before

    def add_object(self, canonical: bytes, /) -> ObjectId:
        """Store an object again, if it lacked; returns its id."""
        identity = object_id(canonical)
        if identity in self._lacking.objects:
            self._transaction.add_object(canonical)
            self.objects += 1
        return identity
