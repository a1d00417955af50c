"""Blocks out of the store into files: read in order, verified, written in place, renamed whole."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from mergepipe.checkpoints.assembly import FilePlan, Part
from mergepipe.checkpoints.layout import PIECE_BYTES
from mergepipe.errors import Corruption
from mergepipe.formats.writing import ExportDirectory, ExportFile, publish
from mergepipe.grouping import grouped
from mergepipe.names import quoted
from mergepipe.packs.blocks import BlockReader
from mergepipe.parallel import Scratch, ordered_map
from mergepipe.progress import Progress

# Two descriptors each, of 1024 that a process may have; a large file is published alone.
_FILES_TOGETHER = 200
_BYTES_TOGETHER = 64 << 20
_SYNCERS = 16


def export(
    files: Sequence[FilePlan],
    destination: Path,
    reader: BlockReader,
    *,
    threads: int,
    progress: Progress,
) -> None:
    """Write files under `destination`; each appears whole, durable and verified, or not at all.

    Raises Corruption and MissingObject naming the file, NoSpace, UnsafePath.
    """
    scratch = Scratch()
    progress.start("checkout", sum(file.size for file in files))
    with (
        ExportDirectory(destination) as directory,
        ThreadPoolExecutor(threads, thread_name_prefix="export") as workers,
        _Together() as together,
    ):
        directory.require_space(sum(file.size for file in files))
        for batch in _batches(files):
            targets = [
                together.take(directory.create(file.path, file.size, file.executable))
                for file in batch
            ]
            for file, target in zip(batch, targets, strict=True):
                if file.head:
                    target.write_at(0, file.head)
            work = partial(_write_group, reader, scratch)
            groups = _groups(zip(batch, targets, strict=True))
            for written in ordered_map(workers, work, groups, window=2 * threads + 2):
                progress.advance(written)
            together.publish()


def _batches(files: Sequence[FilePlan]) -> Iterator[list[FilePlan]]:
    """Files that are written, and then published, together: each more only takes descriptors."""
    batch: list[FilePlan] = []
    size = 0
    for file in files:
        batch.append(file)
        size += file.size
        if len(batch) >= _FILES_TOGETHER or size >= _BYTES_TOGETHER:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class _Together:
    """Files that are written and not yet published: small ones are synced many at a time."""

    def __init__(self) -> None:
        self._files: list[ExportFile] = []
        self._syncers = ThreadPoolExecutor(_SYNCERS, thread_name_prefix="sync")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files:
            file.abort()
        self._syncers.shutdown()

    def take(self, file: ExportFile) -> ExportFile:
        """A file that is being written."""
        self._files.append(file)
        return file

    def publish(self) -> None:
        """Publish all that were taken. Raises NoSpace, MergepipeError."""
        files, self._files = self._files, []
        publish(files, self._syncers)


def read_out(file: FilePlan, reader: BlockReader) -> Iterator[memoryview]:
    """The bytes of a file in order, a piece at a time. Raises Corruption, MissingObject."""
    if file.head:
        yield memoryview(file.head)
    for piece in _pieces(file):
        yield from _read_piece(file, piece, reader, Scratch())


class _Work(NamedTuple):
    """Neighbouring parts of a file, and where they go."""

    file: FilePlan
    target: ExportFile
    piece: list[Part]


def _groups(files: Iterable[tuple[FilePlan, ExportFile]]) -> Iterator[list[_Work]]:
    """Pieces that are read in one go, up to PIECE_BYTES: of many files, if they are small."""
    works = (_Work(file, target, piece) for file, target in files for piece in _pieces(file))
    return grouped(works, lambda work: sum(part.length for part in work.piece), PIECE_BYTES)


def _write_group(reader: BlockReader, scratch: Scratch, group: list[_Work]) -> int:
    raws = iter(reader.read([part.block for work in group for part in work.piece], scratch))
    written = 0
    for file, target, piece in group:
        for part in piece:
            raw = next(raws)
            _check_length(file, part, raw)
            target.write_at(part.offset, raw)
            written += part.length
    return written


def _read_piece(
    file: FilePlan, piece: list[Part], reader: BlockReader, scratch: Scratch
) -> list[memoryview]:
    raws = reader.read([part.block for part in piece], scratch)
    for part, raw in zip(piece, raws, strict=True):
        _check_length(file, part, raw)
    return raws


def _check_length(file: FilePlan, part: Part, raw: memoryview) -> None:
    if len(raw) != part.length:
        raise Corruption(
            f"{quoted(file.path)}: block {part.block.hex()[:12]} has {len(raw)} bytes, "
            f"not the {part.length} its tensor needs"
        )


def _pieces(file: FilePlan) -> Iterator[list[Part]]:
    """Neighbouring parts, up to PIECE_BYTES at a time."""
    return grouped(file.parts, lambda part: part.length, PIECE_BYTES)
