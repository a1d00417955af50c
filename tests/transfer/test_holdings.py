"""What another byte store holds, by the footers of its packs."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.errors import Corruption, RemoteRefused
from mergepipe.ids import BlockId, PackId, block_id
from mergepipe.packs.encoded_blocks import EncodedBlock, EncodedRecord
from mergepipe.packs.format import Content, pack_header, trailer
from mergepipe.packs.index import Index
from mergepipe.packs.reader import pack_key, read_footer_bytes
from mergepipe.packs.writer import PackWriter
from mergepipe.transfer.holdings import (
    AskedHolding,
    Footers,
    IndexedFooters,
    holdings,
)
from tests.packs.delta_codec import delta_block, raw_block

from .remotes import Interposed


def raw(number: int, length: int = 100) -> bytes:
    return random.Random(number).randbytes(length)


def put(store: MemoryByteStore, *records: EncodedRecord) -> PackId:
    writer = PackWriter(store, Content.BLOCKS)
    for record in records:
        writer.add_sealed(record.header, record.sealed, record.payload)
    entry, value = writer.finish()
    store.publish([(value, pack_key(entry.id))])
    return entry.id


def put_all(store: MemoryByteStore, *blocks: EncodedBlock) -> PackId:
    return put(store, *(record for block in blocks for record in block.records))


class Counting(Interposed):
    """Counts reads."""

    def __init__(self, inner: MemoryByteStore) -> None:
        super().__init__(inner)
        self.reads = 0

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        self.reads += 1
        return super().read_into(key, offset, out)


def test_whole_means_every_layer_and_every_base() -> None:
    store = MemoryByteStore()
    base, middle, top, lone = (raw(number) for number in range(4))
    coarse, exact = delta_block(top, middle).records
    put(store, coarse)
    put_all(store, delta_block(middle, base), raw_block(lone))
    ids = [block_id(each) for each in (base, middle, top, lone)]
    assert Footers(store).holds(ids) == [False, False, False, True]
    put_all(store, raw_block(base))
    assert Footers(store).holds(ids) == [True, True, False, True]
    put(store, exact)
    assert Footers(store).holds(ids) == [True, True, True, True]
    assert Footers(store).holds([*ids, *ids][::-1]) == [True] * 8
    assert Footers(store).holds([]) == []


def test_bases_without_an_end_hold_nothing() -> None:
    store = MemoryByteStore()
    one, two = raw(1), raw(2)
    put_all(store, delta_block(one, two), delta_block(two, one))
    assert Footers(store).holds([block_id(one), block_id(two)]) == [False, False]


def test_another_encoding_will_do() -> None:
    store = MemoryByteStore()
    gone, block = raw(1), raw(2)
    put_all(store, delta_block(block, gone))
    put_all(store, raw_block(block))
    assert Footers(store).holds([block_id(block)]) == [True]


def test_footers_are_read_once(tmp_path: Path) -> None:
    store = MemoryByteStore()
    blocks = [raw(number) for number in range(20)]
    for block in blocks:
        put_all(store, raw_block(block))
    counting = Counting(store)
    index = Index(tmp_path / "index")
    try:
        footers = Footers(counting, IndexedFooters(index))
        assert footers.holds([block_id(blocks[7])]) == [True]
        assert counting.reads == 20
        assert footers.holds([block_id(blocks[8])]) == [True]
        put_all(store, raw_block(raw(99)))
        assert footers.holds([block_id(raw(99))]) == [False]
        footers.refresh()
        assert footers.holds([block_id(raw(99))]) == [True]
        assert counting.reads == 21
        # Another process, another day.
        assert Footers(counting, IndexedFooters(index)).holds([block_id(raw(99))]) == [True]
        assert counting.reads == 21
        # A cache that lies is not believed.
        index.cache([(b"f/" + pack, b"x" * 136) for pack in footers.packs()])
        assert Footers(counting, IndexedFooters(index)).holds([block_id(raw(99))]) == [True]
        assert counting.reads == 42
    finally:
        index.close()


def test_packs_that_are_gone_count_no_more() -> None:
    store = MemoryByteStore()
    block = raw(1)
    pack = put_all(store, raw_block(block))
    footers = Footers(store)
    assert footers.holds([block_id(block)]) == [True]
    store.delete(pack_key(pack))
    footers.refresh()
    assert footers.holds([block_id(block)]) == [False]


def test_damaged_packs_do_not_count() -> None:
    store = MemoryByteStore()
    good, bad = raw(1), raw(2)
    put_all(store, raw_block(good))
    pack = put_all(store, raw_block(bad))
    data = bytearray(store.get(pack_key(pack)) or b"")
    data[-100] ^= 1
    store.put(pack_key(pack), data)
    for damaged in (data, data[:30], b"", data[-56:]):
        store.put(pack_key(pack), damaged)
        assert Footers(store).holds([block_id(good), block_id(bad)]) == [True, False]
        with pytest.raises(Corruption):
            read_footer_bytes(store, pack, far=True)


def test_long_footers_are_read_whole_and_absurd_ones_not_at_all() -> None:
    store = MemoryByteStore()
    blocks = [raw_block(raw(number, 40)) for number in range(1000)]
    pack = put_all(store, *blocks)
    assert len(read_footer_bytes(store, pack, far=True)) == 1000 * 136
    places = Footers(store).find({block.id for block in blocks})
    assert len(places) == 1000

    class Huge(MemoryByteStore):
        def size(self, key: str) -> int | None:
            return 1 << 40

        def read_into(self, key: str, offset: int, out: memoryview) -> int:
            out[:] = bytes(len(out))
            end = bytearray(trailer(b""))
            end[:16] = (1 << 30).to_bytes(8, "little") + (136 << 30).to_bytes(8, "little")
            out[-56:] = end
            return len(out)

    huge = PackId(bytes(32))
    store = Huge()
    store.put(pack_key(huge), pack_header(Content.BLOCKS))
    with pytest.raises(RemoteRefused, match="footer of"):
        read_footer_bytes(store, huge, far=True)


def test_who_can_tell_is_asked_in_pieces() -> None:
    class Telling(MemoryByteStore):
        asked: list[int]

        def holds(self, ids: Sequence[bytes]) -> list[bool]:
            self.asked.append(len(ids))
            return [identity[0] == 1 for identity in ids]

    store = Telling()
    store.asked = []
    holding = holdings(store)
    ids = [BlockId(bytes([number % 2]) * 32) for number in range(150_000)]
    assert holding.holds(ids) == [bool(number % 2) for number in range(150_000)]
    assert max(store.asked) <= 100_000
    assert len(store.asked) == 3

    class Short(MemoryByteStore):
        def holds(self, ids: Sequence[bytes]) -> list[bool]:
            return []

    with pytest.raises(RemoteRefused, match="0 answers"):
        AskedHolding(Short()).holds(ids[:3])
