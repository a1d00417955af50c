"""Blocks out of the store into files: read in order, verified, written in place, renamed whole."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from mergepipe.checkpoints.assembly import FilePlan, Part
from mergepipe.checkpoints.layout import PIECE_BYTES
from mergepipe.errors import Corruption
from mergepipe.formats.writing import ExportDirectory, ExportFile, publish
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
        for file in files:
            target = together.take(directory.create(file.path, file.size, file.executable))
            if file.head:
                target.write_at(0, file.head)
            work = partial(_write_piece, file, target, reader, scratch)
            for written in ordered_map(workers, work, _pieces(file), window=2 * threads + 2):
                progress.advance(written)
            together.publish_if_full()
        together.publish()


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

    def publish_if_full(self) -> None:
        """Publish, once there are enough that each more would only take descriptors."""
        if (
            len(self._files) >= _FILES_TOGETHER
            or sum(file.size for file in self._files) >= _BYTES_TOGETHER
        ):
            self.publish()

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


def _write_piece(
    file: FilePlan,
    target: ExportFile,
    reader: BlockReader,
    scratch: Scratch,
    piece: list[Part],
) -> int:
    for part, raw in zip(piece, _read_piece(file, piece, reader, scratch), strict=True):
        target.write_at(part.offset, raw)
    return sum(part.length for part in piece)


def _read_piece(
    file: FilePlan, piece: list[Part], reader: BlockReader, scratch: Scratch
) -> list[memoryview]:
    raws = reader.read([part.block for part in piece], scratch)
    for part, raw in zip(piece, raws, strict=True):
        if len(raw) != part.length:
            raise Corruption(
                f"{quoted(file.path)}: block {part.block.hex()[:12]} has {len(raw)} bytes, "
                f"not the {part.length} its tensor needs"
            )
    return raws


def _pieces(file: FilePlan) -> Iterator[list[Part]]:
    """Neighbouring parts, up to PIECE_BYTES at a time."""
    piece: list[Part] = []
    size = 0
    for part in file.parts:
        if piece and size + part.length > PIECE_BYTES:
            yield piece
            piece, size = [], 0
        piece.append(part)
        size += part.length
    if piece:
        yield piece
