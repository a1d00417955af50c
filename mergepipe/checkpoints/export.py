"""Blocks out of the store into files: read in order, verified, written in place, renamed whole."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mergepipe.bytestore.whole_disk import WholeDisk
from mergepipe.checkpoints.assembly import FilePlan, Part
from mergepipe.checkpoints.layout import PIECE_BYTES
from mergepipe.closing import Closing
from mergepipe.errors import Corruption
from mergepipe.formats.export_files import ExportFile, publish
from mergepipe.formats.writing import ExportDirectory
from mergepipe.grouping import grouped
from mergepipe.names import quoted
from mergepipe.packs.blocks import BlockReader
from mergepipe.parallel import Scratch, ordered_map
from mergepipe.progress import Progress

# Two descriptors each, and each folder, of 1024 that a process may have; a large file is published
# alone.
_FILES_TOGETHER = 200
_BYTES_TOGETHER = 64 << 20
# Of those that a sync of the disk makes durable, none is kept open.
_FILES_AT_ONCE = 10_000
_BYTES_AT_ONCE = 256 << 20
_FOLDERS_TOGETHER = 200
_SYNCERS = 16
# Read in one go: few enough that each thread has something to do.
_PIECES_TOGETHER = 256


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
        for batch in _batches(files, destination):
            with WholeDisk(destination, len(batch)) as disk:
                create = partial(_create, directory, together, many=disk.at_once)
                work = partial(_write_group, reader, scratch)
                groups = _groups((file, create(file)) for file in batch)
                for written in ordered_map(workers, work, groups, window=2 * threads + 2):
                    progress.advance(written)
                together.publish(disk)


def _create(
    directory: ExportDirectory, together: "_Together", file: FilePlan, *, many: bool
) -> ExportFile:
    target = together.take(directory.create(file.path, file.size, file.executable, many=many))
    if file.head:
        target.write_at(0, file.head)
    return target


def _batches(files: Sequence[FilePlan], destination: Path) -> Iterator[list[FilePlan]]:
    """Files that are written, and then published, together: each more only takes descriptors."""
    with WholeDisk(destination, len(files)) as disk:
        at_once = disk.at_once
    most_files = _FILES_AT_ONCE if at_once else _FILES_TOGETHER
    most_bytes = _BYTES_AT_ONCE if at_once else _BYTES_TOGETHER
    batch: list[FilePlan] = []
    folders: set[str] = set()
    size = 0
    for file in files:
        batch.append(file)
        folders.add(file.path.rpartition("/")[0])
        size += file.size
        if len(batch) >= most_files or size >= most_bytes or len(folders) >= _FOLDERS_TOGETHER:
            yield batch
            batch, folders, size = [], set(), 0
    if batch:
        yield batch


class _Together(Closing):
    """Files that are written and not yet published: small ones are synced many at a time."""

    def __init__(self) -> None:
        self._files: list[ExportFile] = []
        self._syncers = ThreadPoolExecutor(_SYNCERS, thread_name_prefix="sync")

    def close(self) -> None:
        """Drop what is not published."""
        for file in self._files:
            file.abort()
        self._syncers.shutdown()

    def take(self, file: ExportFile) -> ExportFile:
        """A file that is being written."""
        self._files.append(file)
        return file

    def publish(self, disk: WholeDisk) -> None:
        """Publish all that were taken. Raises NoSpace, MergepipeError."""
        files, self._files = self._files, []
        publish(files, self._syncers, disk)


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
    return grouped(works, _cost, PIECE_BYTES)


def _cost(work: _Work) -> int:
    """Bytes, and of few so many that each thread gets something to do."""
    return max(sum(part.length for part in work.piece), PIECE_BYTES // _PIECES_TOGETHER)


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
