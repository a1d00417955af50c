"""Blocks through transactions, packs and the index: whole again, or a typed error."""

import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from mergepipe.codecs.registry import codec_named
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import U8
from mergepipe.errors import CodecError, Corruption, MissingObject
from mergepipe.ids import BlockId, block_id
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.choice import cheapest, stored_encodings
from mergepipe.packs.encoded_blocks import EncodedRecord, encode_block, seal_payloads
from mergepipe.packs.reader import pack_key
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import Transaction

from .delta_codec import (
    HALVES,
    delta_block,
    flip,
    open_storage,
    pack_path,
    packs,
    raw_block,
    store_blocks,
)

RAWS = [random.Random(number).randbytes(5000 + number) for number in range(8)]


def tuned(raw: bytes, seed: int = 0) -> bytes:
    changed = bytearray(raw)
    chance = random.Random(seed)
    for _ in range(20):
        changed[chance.randrange(len(raw))] ^= 1 + chance.randrange(255)
    return bytes(changed)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = open_storage(tmp_path)
    yield opened
    opened.close()


def read(storage: Storage, *blocks: BlockId) -> list[bytes]:
    return [bytes(raw) for raw in BlockReader(storage).read(blocks)]


def test_what_was_just_made_is_not_decoded_as_far_as_there_was_room(storage: Storage) -> None:
    ids = store_blocks(storage, *map(raw_block, RAWS[:3]))
    reader = BlockReader(storage)
    with reader.remembering(len(RAWS[0]) + len(RAWS[1])):
        assert reader.made is not None
        for block, raw in zip(ids, RAWS, strict=False):
            reader.made.keep(block, memoryview(raw))
        order = [2, 0, 2, 1]
        assert list(reader.read([ids[at] for at in order])) == [RAWS[at] for at in order]
        for pack in packs(storage):
            storage.store.delete(pack_key(pack))
        assert list(reader.read(ids[:2])) == RAWS[:2]
        with pytest.raises(MissingObject):
            reader.read(ids)
    with pytest.raises(MissingObject):
        reader.read(ids[:2])


def test_blocks_come_back_in_the_order_asked(storage: Storage) -> None:
    ids = store_blocks(storage, *map(raw_block, RAWS), pack_bytes=12_000)
    assert len(packs(storage)) > 2
    order = [ids[5], ids[0], ids[5], ids[7]]
    assert read(storage, *order) == [RAWS[5], RAWS[0], RAWS[5], RAWS[7]]
    assert read(storage) == []


def test_nothing_is_visible_before_publication(storage: Storage, tmp_path: Path) -> None:
    with Transaction(storage) as transaction:
        block = raw_block(RAWS[0])
        assert transaction.add_block(block)
        assert not transaction.add_block(block)
        assert transaction.has_block(block.id)
        transaction.settle()
        assert packs(storage) == []
        with pytest.raises(MissingObject):
            read(storage, block.id)
    assert packs(storage) == []
    assert [path for path in (tmp_path / "tmp").rglob("*") if path.is_file()] == []
    with Transaction(storage) as transaction:
        assert not transaction.has_block(block.id)


def test_compression_never_expands(storage: Storage) -> None:
    noise, table = RAWS[0], b"\1\2\3\4" * 4000
    blocks = [
        encode_block(block_id(raw), raw, U8, codec_named("zstd")) for raw in (noise, table, b"")
    ]
    assert [block.records[0].header.codec for block in blocks] == [0, 1, 0]
    assert read(storage, *store_blocks(storage, *blocks)) == [noise, table, b""]


def test_chains_of_layers_and_bases(storage: Storage) -> None:
    first = RAWS[0]
    second, third = tuned(first, 1), tuned(first, 2)
    blocks = [raw_block(first), delta_block(second, first), delta_block(third, second)]
    ids = store_blocks(storage, *blocks)
    assert len(packs(storage)) == 2  # coarse layers apart from the rest
    chosen = BlockReader(storage).resolve([ids[2]])
    assert chosen.keys() == set(ids)
    assert read(storage, *ids) == [first, second, third]
    assert read(storage, ids[2], ids[0]) == [third, first]


def test_the_shortest_chain_is_read_then_the_fewest_bytes(storage: Storage) -> None:
    first, target = RAWS[0], tuned(RAWS[0])
    near = tuned(target, 5)
    ids = store_blocks(
        storage, raw_block(first), delta_block(near, first), delta_block(target, near)
    )
    assert len(BlockReader(storage).resolve([ids[2]])) == 3
    store_blocks(storage, delta_block(target, first))
    assert len(BlockReader(storage).resolve([ids[2]])) == 2
    store_blocks(storage, raw_block(target))
    assert len(BlockReader(storage).resolve([ids[2]])) == 1
    assert read(storage, ids[2]) == [target]


def test_a_lost_base_is_worked_around_or_named(storage: Storage) -> None:
    first, other, target = RAWS[0], tuned(RAWS[0], 3), tuned(RAWS[0], 4)
    store_blocks(storage, delta_block(target, first))  # `first` is never stored
    with pytest.raises(MissingObject, match=block_id(first).hex()):
        read(storage, block_id(target))
    store_blocks(storage, raw_block(other), delta_block(target, other))
    assert read(storage, block_id(target)) == [target]


def test_half_an_encoding_is_none(storage: Storage) -> None:
    whole = delta_block(tuned(RAWS[0]), RAWS[0])
    half = type(whole)(whole.id, whole.raw_length, whole.records[1:])
    store_blocks(storage, raw_block(RAWS[0]), half)
    with Transaction(storage) as transaction:
        assert not transaction.has_block(whole.id)  # so that committing it again heals it
        transaction.add_block(whole)
        transaction.publish()
    assert read(storage, whole.id) == [tuned(RAWS[0])]


def test_a_delta_without_its_base_is_no_block(storage: Storage) -> None:
    store_blocks(storage, delta_block(tuned(RAWS[0]), RAWS[0]))
    with storage.view() as view:
        assert not view.has_block(block_id(tuned(RAWS[0])))
    store_blocks(storage, raw_block(RAWS[0]))
    with storage.view() as view:
        assert view.has_block(block_id(tuned(RAWS[0])))


def test_bases_that_lean_on_each_other_are_refused(storage: Storage) -> None:
    a, b = RAWS[0], tuned(RAWS[0])
    store_blocks(storage, delta_block(a, b), delta_block(b, a))
    with pytest.raises(Corruption, match="never end"):
        read(storage, block_id(a))


def test_every_flipped_bit_gives_an_error_or_the_block(storage: Storage, tmp_path: Path) -> None:
    base, target = RAWS[0], tuned(RAWS[0])
    ids = store_blocks(storage, raw_block(base), delta_block(target, base))
    storage.close()
    chance = random.Random(7)
    for pack in packs(storage):
        path = pack_path(tmp_path, pack)
        healthy = path.read_bytes()
        for _ in range(60):
            flip(path, chance.randrange(len(healthy)), 1 << chance.randrange(8))
            with_damage = open_storage(tmp_path)
            for block, raw in zip(ids, (base, target), strict=True):
                try:
                    assert read(with_damage, block) == [raw]
                except Corruption as error:
                    assert error.exit_code == 12
            with_damage.close()
            path.write_bytes(healthy)


def test_a_base_that_is_asked_for_is_verified_too(storage: Storage) -> None:
    # The delta undoes what is wrong with its base: only the base's own hash can tell.
    base, target = RAWS[0], tuned(RAWS[0])
    liar = seal_payloads(block_id(base), len(base), codec_named("raw"), None, (target,))
    payloads = HALVES.encode(target, target, U8, Workspace())
    delta = seal_payloads(block_id(target), len(target), HALVES, block_id(base), payloads)
    store_blocks(storage, liar, delta)
    assert read(storage, block_id(target)) == [target]
    with pytest.raises(Corruption, match="hash differently"):
        read(storage, block_id(target), block_id(base))


def test_damage_is_avoided_where_there_is_another_copy(storage: Storage, tmp_path: Path) -> None:
    base, target = RAWS[0], tuned(RAWS[0])
    store_blocks(storage, raw_block(base), raw_block(target))
    [pack] = packs(storage)
    store_blocks(storage, delta_block(target, base))
    store_blocks(storage, raw_block(base), raw_block(RAWS[1]))
    for place in (16 + 128 + 9, 16 + 128 + len(base) + 128 + 9):
        flip(pack_path(tmp_path, pack), place)
    assert read(storage, block_id(target), block_id(base)) == [target, base]
    assert read(storage, block_id(target)) == [target]


def test_without_another_copy_the_damage_is_named(storage: Storage, tmp_path: Path) -> None:
    base, target = RAWS[0], tuned(RAWS[0])
    store_blocks(storage, raw_block(base))
    [pack] = packs(storage)
    store_blocks(storage, delta_block(target, base))
    flip(pack_path(tmp_path, pack), 16 + 128 + 9)
    with pytest.raises(Corruption, match=f"{block_id(base).hex()}.*{pack.hex()}"):
        read(storage, block_id(target))


@pytest.mark.parametrize("layer", [0, 1])
def test_the_layer_that_is_damaged_is_named(storage: Storage, tmp_path: Path, layer: int) -> None:
    base, target = RAWS[0], tuned(RAWS[0])
    store_blocks(storage, raw_block(base))
    below = set(packs(storage))
    store_blocks(storage, delta_block(target, base))
    layers = sorted(set(packs(storage)) - below)
    assert len(layers) == 2
    flip(pack_path(tmp_path, layers[layer]), 16 + 128 + 9)
    with pytest.raises(Corruption, match=layers[layer].hex()):
        read(storage, block_id(target))


def test_the_base_that_is_another_is_named(storage: Storage) -> None:
    """Its record is whole: only its hash tells."""
    base, other = b"ab" * 2500, b"cd" * 2500
    store_blocks(storage, encode_block(block_id(base), other, U8, codec_named("zstd")))
    target = tuned(base)
    store_blocks(storage, delta_block(target, base))
    with pytest.raises(Corruption, match=f"block {block_id(base).hex()}"):
        read(storage, block_id(target))


def test_a_block_under_anothers_id_is_refused(storage: Storage) -> None:
    """Its record is whole: who verifies decodes it."""
    forged = encode_block(block_id(RAWS[2]), RAWS[1], U8, codec_named("raw"))
    for block in (raw_block(RAWS[0]), forged):
        ids = store_blocks(storage, block)
        way = cheapest(ids, stored_encodings(storage, ids))
        if block is not forged:
            BlockReader(storage).verify(way)
            continue
        with pytest.raises(Corruption):
            BlockReader(storage).verify(way)


def test_packs_replaced_under_a_reader_are_found_again(storage: Storage, tmp_path: Path) -> None:
    [block] = store_blocks(storage, raw_block(RAWS[0]))
    [old] = packs(storage)
    assert storage.ask(lambda view: view.has_block(block))
    other = tmp_path / "another"
    rewritten = open_storage(other)
    store_blocks(rewritten, raw_block(RAWS[1]), raw_block(RAWS[0]))
    rewritten.close()
    shutil.copy(next((other / "packs").iterdir()), tmp_path / "packs")
    pack_path(tmp_path, old).unlink()
    assert read(storage, block) == [RAWS[0]]


def test_a_copy_in_another_pack_outlives_the_first(storage: Storage) -> None:
    [block] = store_blocks(storage, raw_block(RAWS[0]))
    [first] = packs(storage)
    store_blocks(storage, raw_block(RAWS[1]), raw_block(RAWS[0]))
    storage.store.delete(f"packs/{first.hex()}.pack")
    assert storage.refresh()
    assert read(storage, block) == [RAWS[0]]


def test_threads_read_while_others_write(storage: Storage) -> None:
    ids = store_blocks(storage, *map(raw_block, RAWS))
    failures: list[BaseException] = []

    def reading() -> None:
        try:
            for _ in range(30):
                assert read(storage, *ids) == RAWS
        except BaseException as error:
            failures.append(error)

    def writing(seed: int) -> None:
        try:
            for number in range(10):
                raw = random.Random((seed << 8) + number).randbytes(1000)
                assert read(storage, *store_blocks(storage, raw_block(raw))) == [raw]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=reading) for _ in range(2)]
    threads += [threading.Thread(target=writing, args=(seed,)) for seed in range(2)]
    threads.append(threading.Thread(target=storage.rebuild))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_raw_record_of_a_later_version_is_not_read_as_ours(storage: Storage) -> None:
    raw = b"\x07" * 64
    encoded = encode_block(block_id(raw), raw, U8, codec_named("raw"))
    (record,) = encoded.records
    later = structs.replace(record.header, version=2)
    sealed = EncodedRecord(later, later.sealed(block_id(raw)), raw)
    store_blocks(storage, structs.replace(encoded, records=(sealed,)))
    with pytest.raises(CodecError, match="version 2 of codec raw"):
        BlockReader(storage).read([block_id(raw)])
