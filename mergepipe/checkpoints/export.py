"""Blocks out of the store into files: read in order, verified, written in place, renamed whole."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from mergepipe.checkpoints.assembly import FilePlan, Part
from mergepipe.checkpoints.layout import PIECE_BYTES
from mergepipe.errors import Corruption
from mergepipe.formats.writing import ExportDirectory, ExportFile
from mergepipe.names import quoted
from mergepipe.packs.blocks import BlockReader
from mergepipe.parallel import Scratch, ordered_map
from mergepipe.progress import Progress


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
    ):
        directory.require_space(sum(file.size for file in files))
        for file in files:
            with directory.create(file.path, file.size, file.executable) as target:
                if file.head:
                    target.write_at(0, file.head)
                work = partial(_write_piece, file, target, reader, scratch)
                for written in ordered_map(workers, work, _pieces(file), window=2 * threads + 2):
                    progress.advance(written)
                target.publish()


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
