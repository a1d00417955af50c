"""Promised packs: what is fetched when, and how much of it."""

import os
import threading
from pathlib import Path

import pytest

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.ids import PackId
from mergepipe.lazy.frames import bring_frames
from mergepipe.lazy.promised_pack import PROMISED, PromisedPack
from mergepipe.lazy.store import LazyByteStore
from mergepipe.packs.reader import pack_ids, pack_key, read_footer
from tests.lazy.clones import Clone, block_packs, clone_of_two_models, files, largest, records_of


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return clone_of_two_models(tmp_path)


def test_a_lazy_clone_costs_frames_only(clone: Clone) -> None:
    with LocalByteStore(clone.directory) as store, LocalByteStore(clone.origin) as origin:
        assert {key.removeprefix(PROMISED) for key in store.list(PROMISED)} == {
            pack_key(pack).removeprefix("packs/") for pack in block_packs(origin)
        }
        for key in store.list(PROMISED):
            path = clone.directory / key
            assert path.stat().st_blocks * 512 < path.stat().st_size
        assert bring_frames(clone.remote, store) == set(pack_ids(origin))
        assert clone.remote.reads == []  # nothing is new: nothing is read


def test_checkouts_are_the_same_and_what_came_stays(clone: Clone, tmp_path: Path) -> None:
    with clone.opened() as repository:
        repository.checkout("tuned", to=tmp_path / "out")
        assert isinstance(repository.store, LazyByteStore)
        assert repository.store.received_bytes == clone.remote.bytes
    assert files(tmp_path / "out") == files(tmp_path / "tuned")
    came = clone.remote.bytes
    with clone.opened() as repository:
        repository.checkout("tuned", to=tmp_path / "again")
    assert clone.remote.bytes == came
    with clone.opened() as repository:
        repository.checkout("main", to=tmp_path / "base")
    assert files(tmp_path / "base") == files(tmp_path / "main")
    with LocalByteStore(clone.directory) as store, LocalByteStore(clone.origin) as origin:
        assert list(store.list(PROMISED)) == []  # whole now, and ours
        assert block_packs(store) == block_packs(origin)
        for pack in block_packs(store):
            assert store.get(pack_key(pack)) == origin.get(pack_key(pack))


def test_a_pack_that_is_whole_is_durable_before_it_is_ours(
    clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync = os.fsync

    def noting(descriptor: int) -> None:
        sync(descriptor)
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        if place.is_relative_to(clone.directory):
            synced.append(place.relative_to(clone.directory).as_posix())

    with clone.opened() as repository:
        monkeypatch.setattr(os, "fsync", noting)
        for branch in ("tuned", "main"):
            repository.checkout(branch, to=tmp_path / f"{branch}-out")
    whole = [name for name in synced if name.startswith(PROMISED) and name.endswith(".pack")]
    assert whole
    after = synced[synced.index(whole[-1]) + 1 :]
    assert {"packs", PROMISED.rstrip("/")} <= set(after)


def test_one_tensor_brings_its_records_and_nothing_else(clone: Clone) -> None:
    with clone.opened() as repository:
        tensor = repository.tensor("tuned", "t3")
        assert tensor.shape == (64, 256)
        needed = records_of(repository, "tuned", "t3")
    asked = {(key, at) for key, offset, length in clone.remote.reads for at in (offset, length)}
    assert asked
    assert clone.remote.bytes == sum(length for _, _, length in needed)
    for key, offset, length in clone.remote.reads:
        inside = [at for pack, at, _ in needed if pack == key and offset <= at < offset + length]
        assert inside


def test_a_part_of_a_record_brings_the_record_only(clone: Clone) -> None:
    with clone.store() as store, LocalByteStore(clone.origin) as origin:
        pack, records = largest(origin)
        header, offset = records[2]
        key = pack_key(pack)
        part = bytearray(10)
        assert store.read_into(key, offset + 100, memoryview(part)) == 10
        assert part == origin.get(key)[offset + 100 : offset + 110]  # type: ignore[index]
        assert clone.remote.reads == [(key, offset, header.stored_bytes)]
        store.read_into(key, offset, memoryview(part))
        assert len(clone.remote.reads) == 1
        size = origin.size(key) or 0
        whole = bytearray(size + 10)
        assert store.read_into(key, 0, memoryview(whole)) == size
        assert bytes(whole[:size]) == origin.get(key)
        # Everything but what was there: header, footer, and the record that came before.
        assert clone.remote.bytes == sum(header.stored_bytes for header, _ in records)
        assert store.read_into(key, size, memoryview(part)) == 0


def test_many_threads_bring_each_record_once(clone: Clone, tmp_path: Path) -> None:
    with clone.store() as store, LocalByteStore(clone.origin) as origin:
        pack, records = largest(origin)
        key = pack_key(pack)
        whole = origin.get(key)
        assert whole is not None
        wrong: list[int] = []
        clone.remote.gate = threading.Event()

        def read(seed: int) -> None:
            for step in range(3 * len(records)):
                header, offset = records[(seed * 5 + step * (1 + seed % 3)) % len(records)]
                out = bytearray(header.stored_bytes)
                store.read_into(key, offset, memoryview(out))
                if out != whole[offset : offset + len(out)]:
                    wrong.append(offset)

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        clone.remote.gate.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert clone.remote.bytes == sum(header.stored_bytes for header, _ in records)


def test_what_is_expected_comes_in_few_exchanges(clone: Clone) -> None:
    with clone.store() as store, LocalByteStore(clone.origin) as origin:
        pack, records = largest(origin)
        assert len(records) > 6
        key = pack_key(pack)
        wanted = [*records[:4], records[5]]
        store.expect([(key, offset, header.stored_bytes) for header, offset in wanted])
        assert len(clone.remote.reads) == 2
        for header, offset in wanted:
            store.read_into(key, offset, memoryview(bytearray(header.stored_bytes)))
        assert len(clone.remote.reads) == 2
        everything = [
            (pack_key(one), offset, header.stored_bytes)
            for one in block_packs(origin)
            for header, offset in read_footer(origin, one)[1]
        ]
        store.expect(everything)
        assert clone.remote.bytes == sum(length for _, _, length in everything)
        assert len(clone.remote.reads) < 3 + 2 * len(block_packs(origin))
        store.expect([("packs/none.pack", 0, 10), ("refs/heads/main", 0, 10)])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_its_own_line(clone: Clone) -> None:
    with clone.opened() as repository:
        repository.tensor("main", "t0")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                repository.tensor("main", "t1")
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        clone.remote.reads.clear()
        repository.tensor("main", "t1")  # what the child brought is here
        assert clone.remote.reads == []


def test_records_by_range() -> None:
    from array import array

    pack = PromisedPack(PackId(b"x" * 32), 1000, b"", array("Q", [16, 116, 216, 316]))
    assert list(pack.records(0, 16)) == [0] or list(pack.records(0, 16)) == []
    assert list(pack.records(16, 1)) == [0]
    assert list(pack.records(115, 2)) == [0, 1]
    assert list(pack.records(116, 100)) == [1]
    assert list(pack.records(0, 1000)) == [0, 1, 2]
    assert list(pack.records(316, 100)) == []
    assert list(pack.records(50, 0)) == []
