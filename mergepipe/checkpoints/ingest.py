"""Files into the store: read once, hash, encode what is new, name it all in a snapshot.

The bytes stored are the bytes hashed: a block is read into our own buffer, and everything happens
there. Memory is bounded by the pieces in flight, not by the model.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from mergepipe.checkpoints.layout import PIECE_BYTES, FileLayout, Layout, Span, lay_out, pieces
from mergepipe.checkpoints.outcome import BlockOutcome
from mergepipe.dtypes import DType, Kind
from mergepipe.formats.huggingface import check_shards
from mergepipe.formats.tree import SourceFile, StableReader, open_stable
from mergepipe.ids import BlockId, ObjectId, block_id
from mergepipe.objects.encoding import encode
from mergepipe.objects.paths import check_paths
from mergepipe.objects.records import Blob, FileEntry, Safetensors, Snapshot, Tensor, TensorEntry
from mergepipe.packs.sink import Sink
from mergepipe.parallel import BufferPool, ordered_map
from mergepipe.progress import Progress


@dataclass(frozen=True, slots=True)
class Ingested:
    """What an ingest made: the snapshot, and its tensors and blocks in the order of the layout."""

    snapshot: ObjectId
    raw_bytes: int
    tensors: tuple[ObjectId, ...]
    block_ids: tuple[tuple[BlockId, ...], ...]
    nonfinite: tuple[int, ...] = ()
    """Values of each tensor that are infinite or NaN."""

    @property
    def blocks(self) -> int:
        """How many blocks the files fall into."""
        return sum(len(ids) for ids in self.block_ids)


@dataclass(slots=True)
class _Piece:
    """One worker's piece and, once it ran, its outcome."""

    file: int
    reader: StableReader
    spans: list[Span]
    buffer: bytearray = field(default_factory=bytearray)
    outcomes: list[BlockOutcome] = field(default_factory=list)
    nonfinite: list[int] = field(default_factory=list)


class Encoder(Protocol):
    """What becomes of blocks (checkpoints/encoders.py). `encode` runs on worker threads."""

    def begin(self, layout: Layout) -> None:
        """Learn which tensors will come."""
        ...

    def encode(
        self, spans: Sequence[Span], identities: Sequence[BlockId], raws: Sequence[memoryview]
    ) -> list[BlockOutcome]:
        """The outcomes of neighbouring blocks, in order."""
        ...

    def collect(self, spans: Sequence[Span], outcomes: Sequence[BlockOutcome]) -> None:
        """Take note of outcomes, in the order of the file, on one thread."""
        ...


def ingest(
    sources: Sequence[SourceFile],
    sink: Sink,
    encoder: Encoder,
    *,
    block_size: int,
    threads: int,
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
    pool = BufferPool(PIECE_BYTES)

    encoder.begin(layout)

    def work(piece: _Piece) -> _Piece:
        begin, end = piece.spans[0].start, piece.spans[-1].end
        piece.buffer = pool.take(end - begin)
        view = memoryview(piece.buffer)[: end - begin]
        piece.reader.read_into(begin, view)
        raws = [view[span.start - begin : span.end - begin] for span in piece.spans]
        identities = [block_id(raw) for raw in raws]
        piece.outcomes = encoder.encode(piece.spans, identities, raws)
        piece.nonfinite = [
            _nonfinite(layout.tensors[span.tensor].dtype, raw)
            for span, raw in zip(piece.spans, raws, strict=True)
        ]
        return piece

    with (
        _OpenFiles(layout) as files,
        ThreadPoolExecutor(threads, thread_name_prefix="ingest") as workers,
    ):
        for piece in ordered_map(workers, work, files.pieces(), window=2 * threads + 2):
            files.finish_before(piece.file)
            for span, outcome, lost in zip(
                piece.spans, piece.outcomes, piece.nonfinite, strict=True
            ):
                blocks[span.tensor].append(outcome.id)
                nonfinite[span.tensor] += lost
                if outcome.encoded is not None:
                    sink.add_block(outcome.encoded)
            encoder.collect(piece.spans, piece.outcomes)
            raw = piece.spans[-1].end - piece.spans[0].start
            progress.advance(raw, sink.stored_bytes)
            pool.give_back(piece.buffer)
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
    )


def _nonfinite(dtype: DType, raw: memoryview) -> int:
    if dtype.kind not in (Kind.FLOAT, Kind.COMPLEX):
        return 0
    from mergepipe.values import count_nonfinite  # numpy: not for files without weights

    return count_nonfinite(dtype, raw)


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


class _OpenFiles:
    """The source files that pieces in flight need. Closing one checks that it did not change."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._open: dict[int, tuple[ExitStack, StableReader]] = {}

    def pieces(self) -> Iterator[_Piece]:
        """All pieces, each with its file open."""
        for spans in pieces(self._layout):
            number = self._layout.tensors[spans[0].tensor].file
            if number not in self._open:
                stack = ExitStack()
                reader = stack.enter_context(open_stable(self._layout.files[number].source))
                self._open[number] = (stack, reader)
            yield _Piece(file=number, reader=self._open[number][1], spans=spans)

    def finish_before(self, number: int) -> None:
        """Close the files before `number`: all their pieces are done. Raises SourceChanged."""
        for done in [file for file in self._open if file < number]:
            self._open.pop(done)[0].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for stack, _ in self._open.values():
            stack.__exit__(kind, error, trace)
        self._open.clear()


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
