"""Sets of ids as sorted arrays: 32 bytes each, where a set of bytes takes some 120."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from mergepipe.ids import ID_BYTES, BlockId

ID_DTYPE = f"S{ID_BYTES}"
Ids = NDArray[np.bytes_]
"""Ids, sorted, each once. NumPy drops zeros at the end of what it gives: see `whole`."""

NO_IDS: Ids = np.empty(0, ID_DTYPE)
# So many come together before they are sorted in.
_FEW = 1 << 16


class OrderedIds:
    """Ids, each once, that remember the order in which they came: 40 bytes each."""

    def __init__(self) -> None:
        self._ids = NO_IDS
        self._places: NDArray[np.int64] = np.empty(0, np.int64)
        self._come: list[bytes] = []
        self._waiting = 0
        self._next = 0

    @property
    def ids(self) -> Ids:
        """All of them, sorted."""
        self._sort_in()
        return self._ids

    def add(self, ids: bytes) -> None:
        """Add ids that follow each other."""
        self._come.append(ids)
        self._waiting += len(ids) // ID_BYTES
        # When as many came as there are: what is equal is not kept for long, and sorting is cheap.
        if self._waiting > max(_FEW, len(self._ids)):
            self._sort_in()

    def places(self, ids: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """When each of `ids` came first; of those that did not come, a number past all others."""
        self._sort_in()
        rows = rows_of(ids, self._ids)
        places = np.full(len(ids), self._next, np.int64)
        places[rows >= 0] = self._places[rows[rows >= 0]]
        return places

    def _sort_in(self) -> None:
        if not self._come:
            return
        come = np.frombuffer(b"".join(self._come), ID_DTYPE)
        self._come.clear()
        self._waiting = 0
        ids = np.concatenate([self._ids, come])
        places = np.concatenate([self._places, np.arange(self._next, self._next + len(come))])
        self._next += len(come)
        # Stable: of equal ones, what came first stays first.
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        first = begins(ids)
        self._ids, self._places = ids[first], places[order][first]


def distinct(ids: NDArray[np.bytes_]) -> Ids:
    """Ids, sorted, each once: `np.unique`, which loads masked arrays (10 ms) to ask for them."""
    rising = np.sort(ids)
    return rising[begins(rising)]


def sorted_ids(ids: Iterable[bytes]) -> Ids:
    """Ids as a sorted array, each once."""
    return distinct(np.frombuffer(b"".join(ids), ID_DTYPE))


def whole(value: np.bytes_) -> BlockId:
    """An id of an array as bytes again."""
    return BlockId(bytes(value).ljust(ID_BYTES, b"\0"))


def batches(ids: NDArray[np.bytes_], size: int) -> Iterator[list[BlockId]]:
    """Ids as bytes again, up to `size` at a time."""
    for begin in range(0, len(ids), size):
        raw = ids[begin : begin + size].tobytes()
        yield [BlockId(raw[at : at + ID_BYTES]) for at in range(0, len(raw), ID_BYTES)]


def rows_of(values: NDArray[np.bytes_], ids: Ids) -> NDArray[np.int64]:
    """Where in `ids` each value is; -1 for one that is not."""
    if not len(ids):
        return np.full(len(values), -1, np.int64)
    # In their order: neighbours are looked for near each other.
    order = np.argsort(values)
    ordered = values[order]
    at = np.minimum(np.searchsorted(ids, ordered), len(ids) - 1)
    rows = np.empty(len(values), np.int64)
    rows[order] = np.where(ids[at] == ordered, at, -1)
    return rows


def among(values: NDArray[np.bytes_], ids: Ids) -> NDArray[np.bool_]:
    """Which values are among `ids`."""
    return rows_of(values, ids) >= 0


def union(one: Ids, other: Ids) -> Ids:
    """What is in either."""
    return distinct(np.concatenate([one, other])) if len(other) else one


def without(ids: Ids, gone: Ids) -> Ids:
    """What is not in `gone`."""
    return ids[~among(ids, gone)]


def begins(values: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Where a value differs from the one before."""
    differs = np.ones(len(values), np.bool_)
    differs[1:] = values[1:] != values[:-1]
    return differs
