"""Objects: one value, one encoding, one id; damaged or hostile bytes are refused."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergepipe.dtypes import DTYPES
from mergepipe.errors import Corruption, MissingObject
from mergepipe.ids import NO_ID, BlockId, ObjectId, digest, object_id
from mergepipe.objects.encoding import decode, encode, kind_of
from mergepipe.objects.grid import block_bytes, spans
from mergepipe.objects.records import (
    Blob,
    Commit,
    FileEntry,
    Record,
    Safetensors,
    Snapshot,
    Tensor,
    TensorEntry,
)
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.reader import pack_key
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import Transaction
from tests.packs.delta_codec import flip, open_storage, pack_path, packs

IDS = [ObjectId(digest(bytes([number]))) for number in range(4)]
EXAMPLES: list[Record] = [
    Tensor("BF16", (3, 5), 30, b"".join(IDS)),
    Tensor("U8", (), 4096, b""),
    Snapshot(()),
    Snapshot(
        (
            FileEntry("a/config.json", False, 12, Blob(IDS[0])),
            FileEntry(
                "m.safetensors", True, 99, Safetensors(IDS[1], (TensorEntry("w\0é", IDS[2]),))
            ),
        )
    ),
    Commit(IDS[0], (), None, "Ada <a@b>", 0, 0, ""),
    Commit(IDS[0], (IDS[1], IDS[2]), IDS[3], "é", -5, -720, "first\n\nsecond", IDS[1], IDS[2]),
    Commit(IDS[0], (), IDS[1], "a", 0, 0, "", IDS[2], None, trained_from=IDS[3]),
]


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = open_storage(tmp_path)
    yield opened
    opened.close()


def put(storage: Storage, *records: Record) -> list[ObjectId]:
    objects = ObjectStore(storage)
    with Transaction(storage) as transaction:
        ids = [objects.put(record, transaction) for record in records]
        transaction.publish()
    return ids


@pytest.mark.parametrize("record", EXAMPLES)
def test_canonical_bytes_round_trip(record: Record) -> None:
    canonical = encode(record)
    assert kind_of(canonical) == record.KIND
    version = 1 if getattr(record, "trained_from", None) is None else 2
    assert canonical.startswith(f"{record.KIND} {version}\n".encode())
    assert decode(canonical, type(record), "it") == record


@pytest.mark.parametrize("record", EXAMPLES)
def test_every_mutation_is_another_object_or_refused(record: Record) -> None:
    canonical = encode(record)
    chance = random.Random(len(canonical))
    for _ in range(300):
        mutated = bytearray(canonical)
        mutated[chance.randrange(len(mutated))] ^= 1 << chance.randrange(8)
        try:
            assert decode(bytes(mutated), type(record), "it") != record
        except Corruption as error:
            assert error.exit_code == 12


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_hostile_bytes_give_typed_errors(data: bytes) -> None:
    for kind in (Tensor, Snapshot, Commit):
        with pytest.raises(Corruption):
            decode(data, kind, "it")
        with pytest.raises(Corruption):
            decode(f"{kind.KIND} 1\n".encode() + data, kind, "it")


def test_other_spellings_of_a_value_are_refused() -> None:
    fields = ["U8", [3], 4096, b"".join(IDS)]
    good = b"tensor 1\n" + msgspec.msgpack.encode(fields)
    assert decode(good, Tensor, "it").shape == (3,)
    for bad in (
        good.replace(b"\x91\x03", b"\x91\xcc\x03"),  # 3 as a longer integer
        good + b"\0",
        good.replace(b"tensor 1", b"tensor 01"),
        good.replace(b"tensor 1", b"tensor 2"),
        b"tensor 1\n" + msgspec.msgpack.encode([*fields, 1]),
        b"tensor 1\n" + msgspec.msgpack.encode(fields[:3]),
    ):
        with pytest.raises(Corruption):
            decode(bad, Tensor, "it")


@pytest.mark.parametrize(
    "record",
    [
        Commit(ObjectId(b"short"), (), None, "", 0, 0, ""),
        Commit(IDS[0], (ObjectId(b""),), None, "", 0, 0, ""),
        Commit(IDS[0], (), ObjectId(IDS[0] * 2), "", 0, 0, ""),
        Tensor("U8", (-1,), 4096, b""),
        Tensor("U8", (1,), 0, b""),
        Snapshot((FileEntry("a", False, -1, Blob(IDS[0])),)),
        Snapshot((FileEntry("a", False, 1, Blob(ObjectId(b"x"))),)),
    ],
)
def test_impossible_values_are_refused(record: Record) -> None:
    with pytest.raises(Corruption):
        decode(encode(record), type(record), "it")


def test_a_list_of_blocks_cut_short_is_refused() -> None:
    with pytest.raises(Corruption, match="31 bytes"):
        decode(encode(Tensor("U8", (9,), 4096, IDS[0][:31])), Tensor, "it")
    assert Tensor("U8", (9,), 4096, b"".join(IDS)).block_ids() == [*map(BlockId, IDS)]


def test_objects_are_stored_once_and_found(storage: Storage) -> None:
    ids = put(storage, *EXAMPLES)
    objects = ObjectStore(storage)
    for identity, record in zip(ids, EXAMPLES, strict=True):
        assert objects.has(identity)
        assert objects.kind(identity) == record.KIND
        assert objects.load(identity, type(record)) == record
        assert object_id(objects.canonical(identity)) == identity
    count = len(packs(storage))
    put(storage, *EXAMPLES)
    assert len(packs(storage)) == count
    with pytest.raises(Corruption, match="tensor"):
        objects.commit(ids[0])
    with pytest.raises(MissingObject):
        objects.commit(ObjectId(NO_ID))
    assert not objects.has(ObjectId(NO_ID))


def test_objects_are_kept_while_asked_for_and_no_longer(storage: Storage) -> None:
    identity, *rest = put(storage, *EXAMPLES)
    objects = ObjectStore(storage)
    with objects.keeping():
        with objects.keeping():
            record = objects.tensor(identity)
            for other, written in zip(rest, EXAMPLES[1:], strict=True):
                assert objects.load(other, type(written)) == written
        for pack in packs(storage):
            storage.store.delete(pack_key(pack))
        assert objects.tensor(identity) is record
        assert ObjectStore(storage, also=objects).tensor(identity) is record
        for other, written in zip(rest, EXAMPLES[1:], strict=True):
            assert objects.load(other, type(written)) == written
            with pytest.raises(MissingObject):
                objects.load(other, Snapshot if type(written) is Tensor else Tensor)
        with pytest.raises(MissingObject):
            ObjectStore(storage).tensor(identity)
    with pytest.raises(MissingObject):
        objects.tensor(identity)
    with pytest.raises(MissingObject):
        ObjectStore(storage, also=objects).tensor(identity)


def test_ids_are_found_by_prefix(storage: Storage) -> None:
    ids = put(storage, *(Tensor("U8", (number,), 4096, b"") for number in range(400)))
    objects = ObjectStore(storage)
    text = ids[7].hex()
    for length in (5, 6, 11, 64):
        assert ids[7] in objects.find_prefix(text[:length])
    for prefix in ("a", "ab", "abc"):
        expected = sorted(identity for identity in ids if identity.hex().startswith(prefix))
        assert sorted(objects.find_prefix(prefix, 400)) == expected
        assert len(objects.find_prefix(prefix, 1)) == min(1, len(expected))
    assert objects.find_prefix("f" * 64) == []


def test_a_damaged_object_is_refused_or_read_elsewhere(storage: Storage, tmp_path: Path) -> None:
    [identity] = put(storage, EXAMPLES[4])
    [pack] = packs(storage)
    other = open_storage(tmp_path / "other")
    put(other, EXAMPLES[4], EXAMPLES[3])
    flip(pack_path(tmp_path, pack), 16 + 128 + 20)
    with pytest.raises(Corruption, match=f"{identity.hex()}.*{pack.hex()}"):
        ObjectStore(storage).commit(identity)
    [healthy] = packs(other)
    storage.store.put(pack_key(healthy), other.store.get(pack_key(healthy)) or b"")
    storage.refresh()
    assert ObjectStore(storage).commit(identity) == EXAMPLES[4]
    storage.store.delete(pack_key(healthy))
    storage.store.delete(pack_key(pack))
    with pytest.raises(MissingObject):
        ObjectStore(storage).commit(identity)
    other.close()


@given(
    st.sampled_from(sorted(DTYPES)),
    st.lists(st.integers(0, 40), max_size=4),
    st.sampled_from([4096, 16384]),
)
def test_blocks_hold_whole_rows_where_a_row_fits(name: str, shape: list[int], limit: int) -> None:
    dtype = DTYPES[name]
    block = block_bytes(dtype, tuple(shape), limit)
    assert 0 < block <= limit
    row_bits = dtype.bits
    for size in shape[1:]:
        row_bits *= size
    if row_bits and row_bits % 8 == 0 and row_bits // 8 <= limit and dtype.bits % 8 == 0:
        assert block % (row_bits // 8) == 0
    total = 3 * block + 1
    pieces = list(spans(total, block))
    assert pieces[0][0] == 0 and pieces[-1][1] == total
    assert all(end == begin for (_, end), (begin, _) in itertools.pairwise(pieces))


def test_a_commit_of_which_nobody_said_a_base_is_written_as_before() -> None:
    plain = Commit(IDS[0], (IDS[1],), IDS[2], "a", 1, 2, "m", IDS[3])
    canonical = encode(plain)
    assert canonical.startswith(b"commit 1\n\x99")
    assert decode(canonical, Commit, "it") == plain
    trained = encode(msgspec.structs.replace(plain, trained_from=IDS[2]))
    assert trained.startswith(b"commit 2\n\x9a")
    assert decode(trained, Commit, "it").trained_from == IDS[2]
    # The same value as version 2 would be a second id for it.
    silent = b"commit 2\n" + msgspec.msgpack.encode(plain)
    with pytest.raises(Corruption, match="not canonical"):
        decode(silent, Commit, "it")
