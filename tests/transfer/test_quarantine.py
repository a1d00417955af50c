"""Packs that came in and that no ref needs yet: which are let in, how many, and for how long."""

import os
import time

import pytest

from mergepipe.api import Repository
from mergepipe.errors import Corruption, MergepipeError, RemoteRefused
from mergepipe.ids import block_id
from mergepipe.packs.format import Content
from mergepipe.packs.reader import pack_ids, pack_key
from mergepipe.repository.incoming import STALE_AFTER_S
from mergepipe.transfer.quarantine import MAX_PACK_BYTES
from mergepipe.transfer.receiving import ReceivingStore
from tests.transfer.pushes import MAIN, a_model, deliver

from .forging import BLOCK, Forge, line, noise, pack_of, quarantined, send


def test_quarantine_outlives_the_process(repo: Repository) -> None:
    packs, commit = a_model()
    with ReceivingStore(repo) as store:
        deliver(store, packs)
    with ReceivingStore(repo) as store:
        assert store.holds([commit]) == [True]
        assert store.compare_and_swap(MAIN, None, line(commit))
    assert repo.fsck(read_data=True).ok


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"\0" * len(data),
        lambda data: data[:12] + b"\1\0\0\0" + data[16:],  # blocks that are called objects
        lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:],
        lambda data: data[:30] + bytes([data[30] ^ 1]) + data[31:],
        lambda data: data[:-60] + bytes([data[-60] ^ 1]) + data[-59:],
    ],
)
def test_what_is_no_pack(repo: Repository, store: ReceivingStore, harm) -> None:
    packs, _ = a_model()
    pack = max(packs, key=lambda pack: len(packs[pack]))
    with pytest.raises(Corruption):
        send(store, pack, harm(packs[pack]))
    assert quarantined(repo) == []
    assert not [*(repo.directory / "tmp").rglob("0*")]


def test_a_pack_under_anothers_name(repo: Repository, store: ReceivingStore) -> None:
    packs, _ = a_model()
    first, second = packs
    with pytest.raises(Corruption):
        send(store, first, packs[second])
    assert quarantined(repo) == []


def test_a_pack_too_large(store: ReceivingStore) -> None:
    writer = store.create()
    piece = bytes(MAX_PACK_BYTES // 4)
    with pytest.raises(RemoteRefused):
        for _ in range(5):
            writer.write(piece)
    assert writer.size <= MAX_PACK_BYTES
    writer.abort()


def test_the_limit_of_all(repo: Repository) -> None:
    repo.configure("receive.limit", "100000")
    with ReceivingStore(repo) as store:
        with pytest.raises(RemoteRefused, match="are received"):
            while True:
                deliver(store, a_model(10 * BLOCK)[0])
        held = sorted(quarantined(repo), key=lambda pack: -(store.size(pack_key(pack)) or 0))
        assert 50_000 < sum(store.size(pack_key(pack)) or 0 for pack in held) <= 100_000
        # What nobody asked for in a week gives way.
        old = time.time() - STALE_AFTER_S - 60
        for pack in held[:-1]:
            os.utime(repo.directory / f"incoming/{pack.hex()}.pack", (old, old))
        assert store.size(pack_key(held[-2])) is not None  # so that this one is asked for
        more, _ = a_model(10 * BLOCK)
        deliver(store, more)
        assert {held[-2], held[-1], *more} == set(quarantined(repo))


def test_gc_takes_what_is_stale(repo: Repository, store: ReceivingStore) -> None:
    deliver(store, a_model()[0])
    kept = quarantined(repo)
    deliver(store, a_model()[0])
    old = time.time() - STALE_AFTER_S - 60
    for pack in set(quarantined(repo)) - set(kept):
        os.utime(repo.directory / f"incoming/{pack.hex()}.pack", (old, old))
    assert repo.gc(dry_run=True, grace_s=0).freed_bytes == 0
    assert repo.gc(grace_s=0).packs_removed == 2
    assert quarantined(repo) == kept
    assert store.holds([b"x" * 32]) == [False]  # the index of the quarantine notices


def test_a_pack_that_is_here_is_not_kept_twice(repo: Repository, store: ReceivingStore) -> None:
    packs, commit = a_model()
    deliver(store, packs)
    deliver(store, packs)
    assert store.compare_and_swap(MAIN, None, line(commit))
    deliver(store, packs)
    assert quarantined(repo) == []


def test_a_disk_that_fails_leaves_nothing_visible(repo: Repository, store: ReceivingStore) -> None:
    packs, commit = a_model()
    deliver(store, packs)
    (repo.directory / "packs").chmod(0o500)
    try:
        if os.access(repo.directory / "packs", os.W_OK):
            pytest.skip("root writes everywhere")
        with pytest.raises((MergepipeError, OSError)):
            store.compare_and_swap(MAIN, None, line(commit))
        assert repo.refs.list() == {}
    finally:
        (repo.directory / "packs").chmod(0o700)
    assert store.compare_and_swap(MAIN, None, line(commit))


def test_records_with_a_name_of_two(repo: Repository, store: ReceivingStore) -> None:
    """The same record twice in a pack, and in two packs: one of them is enough."""
    forge = Forge()
    raw = noise(BLOCK)
    commit = forge.model(raw)
    forge.blocks += [forge.blocks[0], forge.blocks[0]]
    again, data = pack_of(Content.BLOCKS, forge.blocks[:1])
    deliver(store, {again: data} | forge.packs())
    assert store.compare_and_swap(MAIN, None, line(commit))
    with repo.storage.view() as view:
        assert len(view.block(block_id(raw))) == 1
    assert len(quarantined(repo)) <= 1
    assert repo.fsck(read_data=True).ok
    assert len(pack_ids(repo.store)) == 2
