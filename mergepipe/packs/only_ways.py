"""How blocks are stored that are stored in one way, for very many at once: in arrays.

Planning prices millions of blocks, of which nearly all have one encoding; what else there is, is
left to `packs.choice`, which makes objects of what it finds.
"""

from collections.abc import Iterable
from functools import partial

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from mergepipe.codecs.registry import SUCCESSORS
from mergepipe.ids import BlockId
from mergepipe.packs.format import RECORD_HEADER_BYTES
from mergepipe.packs.id_arrays import ID_DTYPE, Ids, batches, begins, rows_of
from mergepipe.packs.storage import Storage
from mergepipe.packs.view import View

# As the index keeps it: docs/format.md, "LMDB index".
_LINE = np.dtype(
    [
        ("id", ID_DTYPE),
        ("base", ID_DTYPE),
        ("codec", "u1"),
        ("version", "u1"),
        ("layer", "u1"),
        ("pack", "<u4"),
        ("offset", "<u8"),
        ("encoded_length", "<u8"),
        ("raw_length", "<u8"),
        ("layers", "u1"),
    ]
)
_OF_AN_ENCODING = ("base", "codec", "version", "layers", "raw_length")
_BATCH = 8192
_FORGOTTEN = 4  # batches after which pages of the index are given back


class OnlyWays(Struct, frozen=True):
    """One row for each of some ids. Sizes in bytes, of whole records.

    single        the block has one encoding, complete, no record twice, and none whose layer 0
                  follows another (packs.coarse_layers); else the rest is zeros
    bases         what that leans on; empty: nothing
    stored_bytes  all its layers; first_bytes: layer 0
    """

    single: NDArray[np.bool_]
    bases: NDArray[np.bytes_]
    layers: NDArray[np.uint8]
    stored_bytes: NDArray[np.int64]
    first_bytes: NDArray[np.int64]

    def rows(self, rows: NDArray[np.int64]) -> "OnlyWays":
        """Some of the rows; of -1 nothing is known."""
        there = rows >= 0
        return OnlyWays(
            single=self.single[rows] & there,
            bases=np.where(there, self.bases[rows], b""),
            layers=np.where(there, self.layers[rows], np.uint8(0)),
            stored_bytes=np.where(there, self.stored_bytes[rows], 0),
            first_bytes=np.where(there, self.first_bytes[rows], 0),
        )

    @classmethod
    def none(cls, count: int) -> "OnlyWays":
        """Of so many blocks of which nothing is known."""
        return cls(
            single=np.zeros(count, np.bool_),
            bases=np.zeros(count, ID_DTYPE),
            layers=np.zeros(count, np.uint8),
            stored_bytes=np.zeros(count, np.int64),
            first_bytes=np.zeros(count, np.int64),
        )


def only_ways(storage: Storage, ids: Ids) -> OnlyWays:
    """Those of some blocks, as the index has them now: what is not there may be found later."""
    ways = OnlyWays.none(len(ids))
    for number, batch in enumerate(batches(ids, _BATCH), 1):
        lines = np.frombuffer(storage.ask(partial(_lines, blocks=batch)), _LINE)
        if len(lines):
            _fill(ways, ids, lines)
        if number % _FORGOTTEN == 0:
            storage.index.forget_pages()  # ids are sorted: what was read is not read again
    if len(ids) > _BATCH * _FORGOTTEN:
        storage.index.forget_pages()
    return ways


def _lines(view: View, blocks: Iterable[BlockId]) -> bytes:
    return view.lines(blocks)


def _fill(ways: OnlyWays, ids: Ids, lines: NDArray[np.void]) -> None:
    """Take in lines of the index, those of a block together."""
    starts = np.flatnonzero(begins(lines["id"]))
    counts = np.diff(np.append(starts, len(lines)))
    first = lines[np.repeat(starts, counts)]
    fits = lines["layer"] == np.arange(len(lines)) - np.repeat(starts, counts)
    for name in _OF_AN_ENCODING:
        fits &= lines[name] == first[name]
    single = np.logical_and.reduceat(fits, starts) & (lines["layers"][starts] == counts)
    single &= ~np.isin(lines["codec"][starts], list(SUCCESSORS))
    stored = lines["encoded_length"].astype(np.int64) + RECORD_HEADER_BYTES
    sums = np.add.reduceat(stored, starts)[single]
    starts = starts[single]
    rows = rows_of(lines["id"][starts], ids)
    ways.single[rows] = True
    ways.bases[rows] = lines["base"][starts]
    ways.layers[rows] = lines["layers"][starts]
    ways.stored_bytes[rows] = sums
    ways.first_bytes[rows] = stored[starts]
