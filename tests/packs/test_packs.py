"""Packs on their own: written, read by footer, salvaged when damaged, hostile bytes refused."""

import random
from operator import eq, ne

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.errors import Corruption, NewerFormat
from mergepipe.ids import NO_ID, BlockId, PackId, digest
from mergepipe.packs import format as pack_format
from mergepipe.packs.format import Content, RecordHeader, RecordKind
from mergepipe.packs.reader import pack_ids, pack_key, read_footer, salvage_records
from mergepipe.packs.records import Location
from mergepipe.packs.storage import is_whole
from mergepipe.packs.writer import PackWriter
from mergepipe.repository.survey import check_record
from mergepipe.transfer import quarantine


def header(payload: bytes, kind: RecordKind = RecordKind.BLOCK) -> RecordHeader:
    return RecordHeader(kind, 0, 1, 0, 1, len(payload), len(payload), digest(payload), NO_ID)


def write_pack(store: MemoryByteStore, payloads: list[bytes]) -> PackId:
    writer = PackWriter(store, Content.BLOCKS)
    for payload in payloads:
        writer.add(header(payload), payload)
    entry, value = writer.finish()
    value.sync()
    store.publish([(value, pack_key(entry.id))])
    return entry.id


def ids(records: list[tuple[RecordHeader, int]]) -> list[bytes]:
    return [record.id for record, _ in records]


PAYLOADS = [bytes([number]) * (100 + 300 * number) for number in range(5)]


@pytest.fixture
def store() -> MemoryByteStore:
    return MemoryByteStore()


def test_a_pack_reads_back(store: MemoryByteStore) -> None:
    pack = write_pack(store, PAYLOADS)
    content, records = read_footer(store, pack)
    assert content is Content.BLOCKS
    assert ids(records) == [digest(payload) for payload in PAYLOADS]
    for (record, offset), payload in zip(records, PAYLOADS, strict=True):
        data = bytearray(record.stored_bytes)
        store.read_into(pack_key(pack), offset, memoryview(data))
        assert data[pack_format.RECORD_HEADER_BYTES :] == payload
        pack_format.verify_payload(record, payload, "pack")
        with pytest.raises(Corruption, match="checksum"):
            pack_format.verify_payload(record, payload[:-1] + b"\xff", "pack")


@pytest.mark.parametrize("what", ["header", "payload", "footer"])
def test_a_record_is_what_its_header_and_the_footer_say(store: MemoryByteStore, what: str) -> None:
    """Each of the three vouches for the other two."""
    pack = write_pack(store, PAYLOADS)
    key = pack_key(pack)
    record, offset = read_footer(store, pack)[1][1]

    def received() -> object:
        return list(quarantine._checked(store, key, pack, [(record, offset)]))  # type: ignore[arg-type]

    assert check_record(store, pack, record, offset)
    assert received()
    assert is_whole(store, Location(record, pack, offset))
    if what == "footer":
        record = replace(record, checksum=bytes(len(record.checksum)))
    else:
        data = bytearray(store.get(key) or b"")
        data[offset + (20 if what == "header" else pack_format.RECORD_HEADER_BYTES)] ^= 1
        store.put(key, bytes(data))
    with pytest.raises(Corruption):
        check_record(store, pack, record, offset)
    with pytest.raises(Corruption):
        received()
    # Whose record it is, the footer's word apart.
    assert is_whole(store, Location(record, pack, offset)) == (what == "footer")


def test_headers_are_equal_but_for_what_no_index_keeps(store: MemoryByteStore) -> None:
    record, _ = read_footer(store, write_pack(store, PAYLOADS))[1][0]
    indexed = replace(record, checksum=b"")
    assert eq(record, indexed)
    assert not ne(record, indexed)  # asked by itself: a Struct has an answer of its own
    assert hash(record) == hash(indexed)
    for field in ("kind", "codec", "version", "layer", "layers", "raw_length", "encoded_length"):
        other = replace(record, **{field: getattr(record, field) ^ 1})
        assert ne(record, other), field
        assert not eq(record, other), field
    assert record != replace(record, id=bytes(32))
    assert record != replace(record, base=bytes([1] * 32))
    assert record != "a header"


def test_an_empty_pack_is_a_pack(store: MemoryByteStore) -> None:
    assert read_footer(store, write_pack(store, [])) == (Content.BLOCKS, [])


def test_strays_are_no_packs(store: MemoryByteStore) -> None:
    pack = write_pack(store, PAYLOADS)
    for key in ("packs/x.pack", f"packs/{'g' * 64}.pack", f"packs/{'A' * 64}.pack", "packs/readme"):
        store.put(key, b"1")
    assert pack_ids(store) == [pack]


def test_every_flipped_bit_of_the_framing_is_noticed(store: MemoryByteStore) -> None:
    pack = write_pack(store, PAYLOADS)
    data = store.get(pack_key(pack))
    assert data is not None
    footer = len(data) - 56 - 136 * len(PAYLOADS)
    places = [*range(16), *range(footer, len(data))]
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << random.Random(place).randrange(8)
        store.put(pack_key(pack), damaged)
        with pytest.raises(Corruption):
            read_footer(store, pack)


def test_a_pack_of_a_later_release_is_not_taken_for_a_damaged_one(store: MemoryByteStore) -> None:
    pack = write_pack(store, PAYLOADS)
    data = bytearray(store.get(pack_key(pack)) or b"")
    data[8] = 2
    data[-9] ^= 1  # its footer is another than ours
    store.put(pack_key(pack), data)
    with pytest.raises(NewerFormat, match="pack format 2"):
        read_footer(store, pack)


def test_every_truncation_is_noticed(store: MemoryByteStore) -> None:
    pack = write_pack(store, PAYLOADS[:2])
    data = store.get(pack_key(pack))
    assert data is not None
    for length in range(len(data)):
        store.put(pack_key(pack), data[:length])
        with pytest.raises(Corruption):
            read_footer(store, pack)


def test_salvage_finds_every_whole_record(store: MemoryByteStore) -> None:
    pack = write_pack(store, PAYLOADS)
    expected = read_footer(store, pack)[1]
    data = store.get(pack_key(pack))
    assert data is not None
    # Records repeat in the footer; only those that stand in the body count.
    assert list(salvage_records(store, pack)) == expected
    for number, (record, offset) in enumerate(expected):
        others = expected[:number] + expected[number + 1 :]
        for place in (offset, offset + 20, offset + 130, offset + record.stored_bytes - 1):
            damaged = bytearray(data)
            damaged[place] ^= 4
            store.put(pack_key(pack), damaged[: -56 - 136])
            assert list(salvage_records(store, pack)) == others


def test_a_footer_that_fits_its_first_record_is_not_taken_for_one(store: MemoryByteStore) -> None:
    # The footer begins with a copy of the first record's header; here the rest of the file is as
    # long as that record's payload, so only the checksum tells them apart.
    pack = write_pack(store, [b"\x07" * (136 - 128 + 136), b"\x08" * 200])
    assert list(salvage_records(store, pack)) == read_footer(store, pack)[1]


def test_a_record_cannot_claim_what_it_likes() -> None:
    good = header(b"abc")
    for change in (
        {"raw_length": 65 << 20, "encoded_length": 3},
        {"encoded_length": 1 << 60},
        {"encoded_length": 3 + (1 << 17)},
        {"layers": 0},
        {"layers": 9},
        {"layer": 1},
        {"base": good.id},
        {"kind": RecordKind.OBJECT, "base": b"\1" * 32},
        {"kind": RecordKind.OBJECT, "layers": 2},
    ):
        fields = {name: getattr(good, name) for name in good.__struct_fields__} | change
        sealed = RecordHeader(**fields).sealed(digest(b"abc"))
        with pytest.raises(Corruption):
            pack_format.parse_record(sealed, "pack")


def test_bytes_kept_for_later_are_zero() -> None:
    sealed = bytearray(header(b"abc").sealed(digest(b"abc")))
    for place in range(9, 16):
        changed = sealed.copy()
        changed[place] = 1
        with pytest.raises(Corruption):
            pack_format.parse_record(changed, "pack")


@given(st.binary(max_size=600))
@settings(max_examples=200, deadline=None)
def test_hostile_packs_give_typed_errors(data: bytes) -> None:
    store = MemoryByteStore()
    pack = PackId(bytes(32))
    store.put(pack_key(pack), data)
    with pytest.raises(Corruption):
        read_footer(store, pack)
    assert list(salvage_records(store, pack)) == []


@given(st.integers(0, 2**32), st.integers(1, 20))
@settings(max_examples=100, deadline=None)
def test_mutated_packs_never_yield_a_wrong_record(seed: int, flips: int) -> None:
    store = MemoryByteStore()
    pack = write_pack(store, PAYLOADS)
    expected = set(map(bytes, (digest(payload) for payload in PAYLOADS)))
    data = bytearray(store.get(pack_key(pack)) or b"")
    chance = random.Random(seed)
    for _ in range(flips):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    store.put(pack_key(pack), data[: chance.randrange(len(data) // 2, len(data) + 1)])
    for record, offset in salvage_records(store, pack):
        payload = bytearray(record.encoded_length)
        store.read_into(pack_key(pack), offset + 128, memoryview(payload))
        assert digest(payload) == record.id
        assert BlockId(record.id) in expected
