"""Transactions: what happens when a step of publication fails, and to what failed before it."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mergepipe.errors import MergepipeError, NoSpace
from mergepipe.ids import object_id
from mergepipe.objects.encoding import encode
from mergepipe.objects.records import Snapshot
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.format import PACK_HEADER_BYTES, RECORD_HEADER_BYTES, Content
from mergepipe.packs.reader import pack_ids, pack_key
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import Transaction

from .delta_codec import delta_block, open_storage, packs, raw_block, store_blocks


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = open_storage(tmp_path)
    yield opened
    opened.close()


def leftovers(root: Path) -> list[Path]:
    return [path for path in (root / "tmp").rglob("*") if path.is_file()]


def test_lanes_go_to_packs_of_their_own(storage: Storage) -> None:
    with Transaction(storage) as transaction:
        base = b"base" * 1000
        transaction.add_block(raw_block(base))
        transaction.add_block(delta_block(b"Base" * 1000, base))
        identity = transaction.add_object(b"tensor 1\nnonsense")
        assert transaction.add_object(b"tensor 1\nnonsense") == identity
        assert transaction.pending_object(identity) == b"tensor 1\nnonsense"
        transaction.publish()
        assert transaction.new_blocks == 2
    with storage.view() as view:
        contents = sorted(content for _, content in view.packs().values())
        stored = sum(at.stored_bytes for at in (*view.blocks(), *view.objects()))
    assert contents == [Content.BLOCKS, Content.BLOCKS, Content.OBJECTS]
    assert stored == transaction.stored_bytes
    with Transaction(storage) as again:
        again.add_object(b"tensor 1\nnonsense")
        again.publish()
    assert len(packs(storage)) == 3


def test_large_objects_are_compressed(storage: Storage) -> None:
    canonical = b"commit 1\n" + b"abc" * 1000
    with Transaction(storage) as transaction:
        identity = transaction.add_object(canonical)
        transaction.publish()
    assert identity == object_id(canonical)
    at = storage.ask(lambda view: view.object(identity))
    assert at is not None
    assert at.header.codec == 1
    assert at.header.encoded_length < 200


@pytest.mark.parametrize("call", ["writev", "fsync", "rename"])
def test_a_full_disk_leaves_nothing_behind(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store_blocks(storage, raw_block(b"before" * 100))

    def full(*arguments: object, **named: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(NoSpace), Transaction(storage) as transaction:
        transaction.add_block(raw_block(b"first" * 100))
        with monkeypatch.context() as patch:
            if call == "rename":
                patch.setattr(Path, "rename", full)
            else:
                patch.setattr(os, call, full)
            transaction.add_block(raw_block(b"block" * 100))
            transaction.publish()
    assert leftovers(tmp_path) == []
    assert len(packs(storage)) == 1
    with Transaction(storage) as retry:
        retry.add_block(raw_block(b"first" * 100))
        retry.publish()
    assert len(packs(storage)) == 2


def test_a_failure_between_packs_leaves_an_orphan_at_most(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename
    calls: list[Path] = []

    def second_fails(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise OSError(errno.EIO, "I/O error")
        return rename(self, target)

    with (
        monkeypatch.context() as patch,
        pytest.raises(OSError, match="I/O error"),
        Transaction(storage) as transaction,
    ):
        transaction.add_block(raw_block(b"block" * 100))
        transaction.add_object(b"tensor 1\nnonsense")
        patch.setattr(Path, "rename", second_fails)
        transaction.publish()
    assert leftovers(tmp_path) == []
    # Blocks go first: an object is never visible before what it names.
    storage.refresh()
    with storage.view() as view:
        assert [content for _, content in view.packs().values()] == [Content.BLOCKS]


def test_a_damaged_pack_that_is_written_again_as_it_was_is_whole(storage: Storage) -> None:
    """Its name is a hash of what it holds: the same object alone makes the same pack."""
    objects, canonical = ObjectStore(storage), encode(Snapshot(()))
    for _ in range(2):
        with Transaction(storage) as transaction:
            identity = transaction.add_object(canonical)
            transaction.publish()
        assert objects.canonical(identity) == canonical
        assert not storage.condemned
        (pack,) = pack_ids(storage.store)
        data = bytearray(storage.store.get(pack_key(pack)) or b"")
        data[PACK_HEADER_BYTES + RECORD_HEADER_BYTES] ^= 1
        storage.store.put(pack_key(pack), bytes(data))
        with pytest.raises(MergepipeError):
            objects.canonical(identity)
        assert storage.condemned
