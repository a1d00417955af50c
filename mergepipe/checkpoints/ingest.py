"""Files into the store: read once, hash, encode what is new, name it all in a snapshot.

The bytes stored are the bytes hashed: a block is read into our own buffer, and everything happens
there. Memory is bounded by the pieces in flight, not by the model.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from msgspec import Struct, field

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.checkpoints.delta_coding import IngestJob
from mergepipe.checkpoints.ingest_work import Coder, IngestWorker, Piece, PieceTensor
from mergepipe.checkpoints.layout import FileLayout, Layout, Span, lay_out, pieces
from mergepipe.checkpoints.outcome import BlockNote
from mergepipe.executors.home import Coordinator
from mergepipe.executors.segments import Job, Segment, segmented
from mergepipe.executors.workforce import Workforce
from mergepipe.formats.huggingface import check_shards
from mergepipe.formats.tree import SourceFile, open_stable
from mergepipe.ids import BlockId, ObjectId
from mergepipe.objects.encoding import encode
from mergepipe.objects.paths import check_paths
from mergepipe.objects.records import Blob, FileEntry, Safetensors, Snapshot, Tensor, TensorEntry
from mergepipe.packs.sink import PackSink
from mergepipe.progress import Progress


class Ingested(Struct, frozen=True):
    """What an ingest made: the snapshot, and its tensors and blocks in the order of the layout."""

    snapshot: ObjectId
    raw_bytes: int
    tensors: tuple[ObjectId, ...]
    block_ids: tuple[tuple[BlockId, ...], ...]
    nonfinite: tuple[int, ...] = ()
    """Values of each tensor that are infinite or NaN."""
    squares: tuple[float, ...] = ()
    """Of each tensor, the sum of squares of the others, roughly."""

    @property
    def blocks(self) -> int:
        """How many blocks the files fall into."""
        return sum(len(ids) for ids in self.block_ids)


class Encoder(Protocol):
    """What becomes of blocks: the coordinator's side of a `Coder`. Used from one thread."""

    @property
    def coder(self) -> Coder:
        """What encodes here."""
        ...

    def begin(self, layout: Layout) -> None:
        """Learn which tensors will come."""
        ...

    def piece(self, source: SourceFile, spans: Sequence[Span]) -> Piece:
        """Neighbouring blocks as an item."""
        ...

    def collect(self, spans: Sequence[Span], notes: Sequence[BlockNote]) -> None:
        """Take note of blocks, in the order of the file."""
        ...


class Ingest(Struct, frozen=True):
    """Who sends blocks to a sink, and how.

    store  where packs are written; None: nothing is stored
    files  the same as other processes see it
    known  blocks that are left out of what is written here
    job    what workers elsewhere do, where there are any
    """

    workforce: Workforce
    store: ByteStore | None = None
    files: LocalByteStore | None = None
    known: Callable[[BlockId], bool] | None = None
    job: Job = field(default_factory=IngestJob)


def ingest(
    sources: Sequence[SourceFile],
    sink: PackSink,
    encoder: Encoder,
    how: Ingest,
    *,
    block_size: int,
    progress: Progress,
    check_index: bool = True,
    kept: Sequence[FileEntry] = (),
) -> Ingested:
    """Send files' blocks and objects to a sink (a transaction, which the caller publishes).

    kept  files that the snapshot has beside them, whose tensors are stored

    Raises MalformedFile, IncompleteCheckpoint, UnsafePath, SourceChanged and NoSpace; nothing is
    visible then.
    """
    check_paths([*(source.path for source in sources), *(entry.path for entry in kept)])
    layout = lay_out(sources, block_size)
    if check_index:
        _check_index(layout, kept)
    progress.start("commit", layout.raw_bytes)
    blocks: list[list[BlockId]] = [[] for _ in layout.tensors]
    nonfinite = [0] * len(layout.tensors)
    squares = [0.0] * len(layout.tensors)
    encoder.begin(layout)
    home = Coordinator(IngestWorker(encoder.coder), sink, progress, how.store, how.files, how.known)
    begun: dict[int, Segment] = {}

    def segments() -> Iterator[Segment]:
        items = (
            encoder.piece(layout.files[layout.tensors[spans[0].tensor].file].source, spans)
            for spans in pieces(layout)
        )
        for segment in segmented(items, lambda piece: piece.length, how.workforce.segment_bytes):
            begun[segment.number] = segment
            yield segment

    spec = how.workforce.spec(how.job, writes=how.store is not None)
    for result in how.workforce.executor.results(segments(), spec, home):
        for piece, notes in zip(begun.pop(result.number).items, result.values, strict=True):
            for span, note in zip(piece.spans, notes, strict=True):
                blocks[span.tensor].append(note.id)
                nonfinite[span.tensor] += note.nonfinite
                squares[span.tensor] += note.square
            encoder.collect(piece.spans, notes)
        sink.add_packs(result.packs)
    for source in sources:
        # Each piece was looked at by itself; the file is to have been one and the same for all.
        with open_stable(source):
            pass
    tensors = [
        sink.add_object(
            encode(Tensor(tensor.dtype.name, tensor.shape, tensor.block_bytes, b"".join(ids)))
        )
        for tensor, ids in zip(layout.tensors, blocks, strict=True)
    ]
    entries = [*(_entry(file, layout, tensors) for file in layout.files), *kept]
    snapshot = Snapshot(tuple(sorted(entries, key=lambda entry: entry.path.encode())))
    return Ingested(
        sink.add_object(encode(snapshot)),
        layout.raw_bytes,
        tuple(tensors),
        tuple(tuple(ids) for ids in blocks),
        tuple(nonfinite),
        tuple(squares),
    )


def plain_piece(layout: Layout, source: SourceFile, spans: Sequence[Span]) -> Piece:
    """Neighbouring blocks of which nothing was decided beforehand."""
    numbers = dict.fromkeys(span.tensor for span in spans)
    return Piece(
        source, tuple(spans), {number: PieceTensor(layout.tensors[number]) for number in numbers}
    )


def _check_index(layout: Layout, kept: Sequence[FileEntry]) -> None:
    """Check that what a shard index names is there."""
    names = {
        entry.path: frozenset(tensor.name for tensor in entry.content.tensors)
        for entry in kept
        if isinstance(entry.content, Safetensors)
    } | {
        file.source.path: frozenset(tensor.name for tensor in file.header.tensors)
        for file in layout.files
        if file.header is not None
    }
    check_shards([file.source for file in layout.files], names)


def _entry(file: FileLayout, layout: Layout, tensors: Sequence[ObjectId]) -> FileEntry:
    source = file.source
    if file.header is None:
        return FileEntry(source.path, source.executable, source.size, Blob(tensors[file.first]))
    entries = tuple(
        TensorEntry(layout.tensors[number].name or "", tensors[number])
        for number in range(file.first + 1, file.last)
    )
    content = Safetensors(tensors[file.first], entries)
    return FileEntry(source.path, source.executable, source.size, content)
