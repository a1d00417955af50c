"""Making a profile from the facts of blocks, in whatever order they come."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from msgspec import Struct, field

from mergepipe.catalog.facts import BlockFacts, merge_counts
from mergepipe.catalog.pairs import Pair
from mergepipe.catalog.view import SAMPLES, sample_positions
from mergepipe.ids import ID_BYTES, ObjectId
from mergepipe.objects.merging import Profile, TensorProfile

_MANY_PARTS = 16


class _Column(Struct):
    """A tensor's facts so far."""

    pair: Pair
    energies: Any
    changed: Any
    largest: Any
    thresholds: Any
    magnitudes: Any
    kept: Any
    coarse: bytearray
    signs: Any
    parts: list[tuple[Any, Any]] = field(default_factory=list)
    zeros: int = 0
    complete_counts: bool = True


class ProfileBuilder:
    """Collects the facts of one model's blocks. Used from one thread."""

    def __init__(self) -> None:
        self._columns: dict[int, _Column] = {}
        self._done: dict[int, set[int]] = {}

    def begin(self, tensor: int, pair: Pair) -> None:
        """Announce a tensor that pairs, under a number of the caller's."""
        blocks = pair.block_count
        elements = pair.size_bytes * 8 // pair.dtype.bits
        self._columns[tensor] = _Column(
            pair=pair,
            energies=np.zeros(blocks, "<f8"),
            changed=np.zeros(blocks, "<u4"),
            largest=np.zeros(blocks, "<f4"),
            thresholds=np.zeros(blocks, "<f4"),
            magnitudes=np.zeros(blocks, "<f4"),
            kept=np.zeros(blocks, "<u4"),
            coarse=bytearray(ID_BYTES * blocks),
            signs=np.zeros(min(SAMPLES, elements), np.uint8),
            complete_counts=pair.dtype.bits == 16,
        )
        self._done[tensor] = set()

    def add(self, tensor: int, index: int, facts: BlockFacts | None) -> None:
        """Take a block's facts; None for a block equal to its base's."""
        column = self._columns.get(tensor)
        if column is None:
            return
        self._done[tensor].add(index)
        begin, end = column.pair.span(index)
        if facts is None:
            column.zeros += (end - begin) * 8 // column.pair.dtype.bits
            return
        column.energies[index] = facts.energy
        column.changed[index] = facts.changed
        column.largest[index] = facts.largest
        column.thresholds[index] = facts.threshold
        column.magnitudes[index] = facts.magnitude
        column.kept[index] = facts.kept
        column.coarse[index * ID_BYTES : (index + 1) * ID_BYTES] = facts.coarse
        width = column.pair.dtype.bits // 8
        positions = sample_positions(column.pair.size_bytes // width)
        first = int(np.searchsorted(positions, begin // width))
        column.signs[first : first + len(facts.signs)] = facts.signs
        if facts.sizes is not None:
            column.parts.append((facts.sizes, facts.counts))
            if len(column.parts) >= _MANY_PARTS:
                column.parts = [merge_counts(column.parts)]

    def add_unpaired(self, tensor: int, index: int) -> None:
        """Take note of a block that has no base block."""
        column = self._columns.get(tensor)
        if column is not None:
            self._done[tensor].add(index)
            column.energies[index] = np.nan
            column.complete_counts = False

    def missing(self) -> Iterator[tuple[int, int]]:
        """(tensor, block) whose facts have not come."""
        for tensor, column in self._columns.items():
            for index in range(column.pair.block_count):
                if index not in self._done[tensor]:
                    yield tensor, index

    def pair(self, tensor: int) -> Pair:
        """The pair announced under a number."""
        return self._columns[tensor].pair

    def finish(self, snapshot: ObjectId, base: ObjectId, tensors: Sequence[ObjectId]) -> Profile:
        """The profile; `tensors` are the ids of the tensors by the numbers used here."""
        columns = [
            _finish(column, tensors[number])
            for number, column in self._columns.items()
            if tensors[number] != column.pair.base_id
        ]
        columns.sort(key=lambda tensor: tensor.name.encode())
        return Profile(snapshot, base, tuple(columns))


def _finish(column: _Column, tensor: ObjectId) -> TensorProfile:
    values = counts = b""
    if column.complete_counts:
        parts = list(column.parts)
        if column.zeros:
            parts.append((np.zeros(1, np.uint32), np.array([column.zeros], np.uint64)))
        sizes, numbers = merge_counts(parts)
        values = np.diff(sizes, prepend=np.uint32(0)).astype("<u4").tobytes()
        counts = numbers.astype("<u8").tobytes()
    padded = np.zeros(-(-len(column.signs) // 5) * 5, np.int64)
    padded[: len(column.signs)] = column.signs
    signs = (padded.reshape(-1, 5) * 3 ** np.arange(5)).sum(1).astype(np.uint8)
    return TensorProfile(
        column.pair.name,
        tensor,
        column.pair.base_id,
        column.energies.tobytes(),
        column.changed.tobytes(),
        column.largest.tobytes(),
        column.thresholds.tobytes(),
        column.magnitudes.tobytes(),
        column.kept.tobytes(),
        bytes(column.coarse),
        values,
        counts,
        signs.tobytes(),
    )
