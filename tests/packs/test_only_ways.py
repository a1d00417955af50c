"""Blocks that are stored in one way, told in arrays: the same as their encodings say."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.codecs.registry import TAGS
from mergepipe.ids import NO_ID, BlockId, PackId, digest
from mergepipe.packs.choice import stored_encodings
from mergepipe.packs.entries import PackEntry
from mergepipe.packs.format import Content, RecordHeader, RecordKind
from mergepipe.packs.id_arrays import sorted_ids, whole
from mergepipe.packs.index import Index
from mergepipe.packs.only_ways import only_ways
from mergepipe.packs.storage import Storage
from mergepipe.transfer.two_storages import LayeredView

# One whose id ends in zeros, as NumPy drops them.
BASE = BlockId(bytes([9]) * 20 + bytes(12))
PLAIN, LAYERED, TWO_WAYS, TWICE, HALF, LENGTHS, FOLLOWS, NOWHERE = (
    BlockId(digest(name.encode()))
    for name in ("plain", "layered", "two ways", "twice", "half", "lengths", "follows", "nowhere")
)
ALL = (BASE, PLAIN, LAYERED, TWO_WAYS, TWICE, HALF, LENGTHS, FOLLOWS, NOWHERE)


def record(
    block: BlockId, length: int, layer: int = 0, layers: int = 1, base: bytes = NO_ID,
    codec: int = 1, raw: int = 1000,
) -> RecordHeader:  # fmt: skip
    return RecordHeader(RecordKind.BLOCK, codec, 1, layer, layers, raw, length, block, base)


def layered(block: BlockId, base: bytes, codec: int = 3) -> list[RecordHeader]:
    return [record(block, 80, 0, 2, base, codec), record(block, 300, 1, 2, base, codec)]


def pack(name: bytes, records: Sequence[RecordHeader]) -> PackEntry:
    placed = [(header, 16 + 4096 * number) for number, header in enumerate(records)]
    return PackEntry(PackId(digest(name)), 1 << 20, Content.BLOCKS, placed)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    index = Index(tmp_path / "index")
    records = [record(BASE, 900), record(PLAIN, 500), *layered(LAYERED, BASE)]
    records += [record(TWO_WAYS, 700), *layered(TWO_WAYS, BASE), record(TWICE, 10)]
    records += [layered(HALF, BASE)[0], *layered(FOLLOWS, LAYERED, TAGS["successor"])]
    records += [record(LENGTHS, 1, 0, 2), record(LENGTHS, 2, 1, 2, raw=999)]
    index.add_packs([pack(b"one", records), pack(b"two", [record(TWICE, 10)])])
    storage = Storage(LocalByteStore(tmp_path), index)
    yield storage
    storage.close()
    index.close()


def test_what_has_one_encoding_is_told_as_it_is(storage: Storage) -> None:
    ids = sorted_ids(ALL)
    ways = only_ways(storage, ids)
    found = stored_encodings(storage, ALL, confirm=False)
    single = {whole(ids[row]) for row in np.flatnonzero(ways.single)}
    assert single == {BASE, PLAIN, LAYERED}
    for row in np.flatnonzero(ways.single):
        [way] = found[whole(ids[row])]
        assert (whole(ways.bases[row]) if ways.bases[row] else None) == way.base
        assert ways.layers[row] == len(way.layers)
        assert ways.stored_bytes[row] == way.stored_bytes
        assert ways.first_bytes[row] == way.layers[0].stored_bytes
    rest = ~ways.single
    assert not (ways.layers[rest].any() or ways.stored_bytes[rest].any())
    assert not len(only_ways(storage, sorted_ids([])).single)
    assert not only_ways(storage, sorted_ids([NOWHERE])).single.any()


def test_of_two_storages_the_lines_of_a_block_come_together(storage: Storage) -> None:
    with storage.view() as view:
        single = {block: view.lines([block]) for block in ALL}
        assert view.lines(ALL) == b"".join(single.values())
        both = LayeredView(view, view).lines(ALL)
    assert both == b"".join(chain.from_iterable((lines, lines) for lines in single.values()))


def test_rows_of_what_was_not_asked_about_tell_nothing(storage: Storage) -> None:
    ids = sorted_ids(ALL)
    ways = only_ways(storage, ids)
    places = np.array([list(map(whole, ids)).index(BASE), -1])
    some = ways.rows(places)
    assert some.single.tolist() == [True, False]
    assert some.stored_bytes.tolist() == [ways.stored_bytes[places[0]], 0]
    assert not (some.bases[1] or some.layers[1] or some.first_bytes[1])
