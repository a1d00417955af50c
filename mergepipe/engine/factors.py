"""Low-rank factors: read once for each tensor that they change, and multiplied where it is merged.

A product's element is the sum of rank products in float32, in order, times the scale: the same for
any range that it is computed in, on any machine.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct, field

from mergepipe.codecs.workspace import Workspace
from mergepipe.engine.meter import Meter, Source, metered
from mergepipe.engine.reading import FetchedBlocks
from mergepipe.engine.work import Adapted, Factor, Group, Making, Permit, Product, Step, Work
from mergepipe.errors import Corruption
from mergepipe.ids import NO_ID, BlockId, ObjectId
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.choice import stored_encodings
from mergepipe.packs.storage import Storage
from mergepipe.plans.reads import Chain, whole_reads
from mergepipe.values import decode

Floats = npt.NDArray[np.float32]
# Elements that are summed at a time: two float32 arrays of it fit in a second-level cache.
_TILE = 1 << 16


class FactorReader(Struct):
    """Reads the factors of steps, metered; keeps those of the tensor it is at."""

    storage: Storage
    meter: Meter
    _held: dict[int, dict[Factor, bytes]] = field(default_factory=dict)

    def of(self, steps: Sequence[Step]) -> dict[Factor, bytes]:
        """The bytes of every factor in these steps, which come in the order of their tensors.

        Raises MissingObject, Corruption.
        """
        matrices: dict[Factor, bytes] = {}
        for step in steps:
            if any(step.making.products()):
                number = step.task.number
                if number not in self._held:
                    self._held = {number: self._read(step.making)}
                matrices.update(self._held[number])
        return matrices

    def forget(self) -> None:
        """Keep nothing: what comes next is another pass."""
        self._held = {}

    def _read(self, making: Making) -> dict[Factor, bytes]:
        bases, others = _factors(making)
        options = stored_encodings(
            Storage(self.storage.store, self.storage.index),
            (block for factor in (*bases, *others) for block in factor.blocks),
        )
        held: set[BlockId] = set()
        under = [whole_reads(factor.blocks, options, held) for factor in bases]
        over = [whole_reads(factor.blocks, options, held) for factor in others]
        work = _work(under, over)
        try:
            source = FetchedBlocks(work, self.storage.store, self.meter, Workspace())
            for group in work.groups:
                source.fetch(group)
            return {
                factor: b"".join(bytes(source.raw(block)) for block in factor.blocks)
                for factor in (*bases, *others)
            }
        except (Corruption, FileNotFoundError):
            return self._repaired(bases, Source.BASE) | self._repaired(others, Source.EXPERT)

    def _repaired(self, factors: Iterable[Factor], source: Source) -> dict[Factor, bytes]:
        """By whatever intact copy or encoding the store has."""
        reader = BlockReader(metered(self.storage, self.meter, source))
        return {factor: b"".join(reader.read(factor.blocks)) for factor in factors}


def _factors(making: Making) -> tuple[list[Factor], list[Factor]]:
    """Every factor once: first those of bases, then those of inputs."""
    bases: dict[Factor, None] = {}
    others: dict[Factor, None] = {}
    for inner in making.inner():
        for one in (inner.base, *inner.inputs):
            if isinstance(one, Adapted):
                to = bases if one is inner.base else others
                to.update(dict.fromkeys((one.product.up, one.product.down)))
    return list(bases), [factor for factor in others if factor not in bases]


def _work(under: Sequence[tuple[Chain, ...]], over: Sequence[tuple[Chain, ...]]) -> Work:
    """A work that makes nothing, and reads what these chains name."""
    base = {link for chains in under for chain in chains for link, _ in chain.links}
    links = dict(link for chains in (*under, *over) for chain in chains for link in chain.links)
    records = {(at.pack, at.offset): at for way in links.values() for at in way.exact}
    group = Group((), tuple(at for _, at in sorted(records.items())))
    exact = frozenset(links) - base
    permit = Permit(frozenset(base), exact, frozenset())
    return Work(plan=ObjectId(NO_ID), groups=(group,), encodings=links, coarse={}, permit=permit)


def product_values(product: Product, up: bytes, down: bytes, start: int, length: int) -> Floats:
    """Elements [start, start + length) of a low-rank difference, float32.

    up, down: the factors' bytes.
    """
    if product.transposed:
        columns = product.up.rows
        first_row, end_row = start // columns, -(-(start + length) // columns)
        left = _rows(product.down, down, 0, product.down.rows)[:, first_row:end_row].T
        right = np.ascontiguousarray(_rows(product.up, up, 0, product.up.rows).T)
    else:
        columns = product.down.columns
        first_row, end_row = start // columns, -(-(start + length) // columns)
        left = _rows(product.up, up, first_row, end_row)
        right = _rows(product.down, down, 0, product.down.rows)
    out = np.empty(length, np.float32)
    done = 0
    for row, rows, first, width in _pieces(start, length, columns):
        piece = out[done : done + rows * width].reshape(rows, width)
        at = row - first_row
        _multiply(left[at : at + rows], right[:, first : first + width], piece)
        done += rows * width
    out *= np.float32(product.scale)
    return out


def _rows(factor: Factor, raw: bytes, first: int, end: int) -> Floats:
    """Rows of a factor, in float32."""
    width = factor.columns * factor.dtype.bits // 8
    values = decode(factor.dtype, memoryview(raw)[first * width : end * width])
    return values.astype(np.float32, copy=False).reshape(end - first, factor.columns)


def _pieces(start: int, length: int, columns: int) -> Iterator[tuple[int, int, int, int]]:
    """A range as rectangles of at most `_TILE` elements: first row, rows, first column, columns."""
    at, end = start, start + length
    while at < end:
        row, first = divmod(at, columns)
        width = min(columns - first, end - at, _TILE)
        rows = 1
        if width == columns:
            rows = max(1, min((end - at) // columns, _TILE // columns))
        yield row, rows, first, width
        at += rows * width


def _multiply(left: Floats, right: Floats, out: Floats) -> None:
    """Out = left @ right, summed in float32 in the order of the rank.

    Not numpy's product: its order of sums depends on the machine and on the shape.
    """
    out[:] = 0
    term = np.empty_like(out)
    for rank in range(left.shape[1]):
        np.multiply(left[:, rank, None], right[rank], out=term)
        out += term
