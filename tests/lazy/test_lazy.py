"""Promised packs: what is fetched when, how much, and what happens when the other side changes."""

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mergepipe.api import Repository
from mergepipe.bytestore.local import LocalByteStore
from mergepipe.errors import MissingObject, RemoteRefused, RemoteUnreachable
from mergepipe.ids import PackId
from mergepipe.lazy import frames
from mergepipe.lazy.frames import bring_frames
from mergepipe.lazy.promised_pack import PROMISED, PromisedPack, promised_key
from mergepipe.lazy.store import LazyByteStore
from mergepipe.packs.format import Content
from mergepipe.packs.reader import pack_ids, pack_key, read_footer
from tests.repository.checkpoints import WHO, bf16, commit, new_repository, write_model


class CountingRemote(LocalByteStore):
    """A remote that notes what is read of it, and can be cut off."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[tuple[str, int, int]] = []
        self.reachable = True
        self.spoilt: set[int] = set()
        self.gate: threading.Event | None = None

    @property
    def bytes(self) -> int:
        return sum(length for _, _, length in self.reads)

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        if not self.reachable:
            raise RemoteUnreachable("no answer")
        if self.gate is not None:
            self.gate.wait()
        count = super().read_into(key, offset, out)
        self.reads.append((key, offset, len(out)))
        for at in self.spoilt:
            if offset <= at < offset + count:
                out[at - offset] ^= 1
        return count

    def forget_files(self) -> None:
        """Open files would go on to be read after they were removed."""
        for key in [*self._files]:
            self._forget(key)

    def list(self, prefix: str) -> Iterator[str]:
        if not self.reachable:
            raise RemoteUnreachable("no answer")
        return super().list(prefix)


class Clone:
    """A repository, and a lazy clone of it over a remote that counts."""

    def __init__(self, folder: Path) -> None:
        self.origin = folder / "origin/.mergepipe"
        self.directory = folder / "clone/.mergepipe"
        self.remote = CountingRemote(self.origin)
        self.connections = 0
        shutil.copytree(self.origin, self.directory)
        shutil.rmtree(self.directory / "index")
        with LocalByteStore(self.directory) as store:
            for pack in block_packs(store):
                store.delete(pack_key(pack))
            bring_frames(self.remote, store)
        self.remote.reads.clear()

    @contextlib.contextmanager
    def opened(self) -> Iterator[Repository]:
        with self.store() as store, Repository(self.directory, who=WHO) as repository:
            repository.store = repository.storage.store = store
            repository.storage.promises = store
            yield repository

    def store(self) -> LazyByteStore:
        def connect() -> CountingRemote:
            self.connections += 1
            if not self.remote.reachable:
                raise RemoteUnreachable("no answer")
            return self.remote

        return LazyByteStore(LocalByteStore(self.directory), connect, "origin")


def block_packs(store: LocalByteStore) -> list[PackId]:
    return [one for one in pack_ids(store) if read_footer(store, one)[0] is Content.BLOCKS]


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    random = np.random.default_rng(1)
    base = {f"t{number}": random.standard_normal((64, 256)) for number in range(8)}
    tuned = {name: value + random.standard_normal(value.shape) / 99 for name, value in base.items()}
    with new_repository(tmp_path / "origin", 16384, "auto") as repository:
        for branch, values, under in (("main", base, None), ("tuned", tuned, "main")):
            tensors = {name: bf16(value) for name, value in values.items()}
            commit(repository, write_model(tmp_path / branch, tensors), branch, under)
    yield Clone(tmp_path)


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
        assert whole[:size] == origin.get(key)
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


def test_offline_names_the_remote_and_works_with_what_is_here(clone: Clone, tmp_path: Path) -> None:
    with clone.opened() as repository:
        first = repository.tensor("tuned", "t1")
        clone.remote.reachable = False
        assert bytes(repository.tensor("tuned", "t1").flatten().view(dtype=byte())) == bytes(
            first.flatten().view(dtype=byte())
        )
        with pytest.raises(RemoteUnreachable, match="origin"):
            repository.tensor("tuned", "t2")
        assert len(list(repository.log("tuned"))) == 1
        assert repository.fsck().ok
        clone.remote.reachable = True
        repository.tensor("tuned", "t2")  # connects again
    assert clone.connections >= 2


def test_a_record_that_comes_damaged_is_not_kept(clone: Clone, tmp_path: Path) -> None:
    with LocalByteStore(clone.origin) as origin:
        _, records = largest(origin)
    header, offset = records[1]
    clone.remote.spoilt.add(offset + header.stored_bytes - 1)
    with clone.opened() as repository:
        with pytest.raises(Exception, match="damaged") as caught:
            repository.checkout("main", to=tmp_path / "out")
        assert caught.value.exit_code == 12
        clone.remote.spoilt.clear()
        repository.checkout("main", to=tmp_path / "out")
    assert files(tmp_path / "out") == files(tmp_path / "main")


def test_a_bit_that_flips_here_comes_again(clone: Clone, tmp_path: Path) -> None:
    with clone.opened() as repository:
        repository.tensor("main", "t2")
        places = records_of(repository, "main", "t2")
    key, offset, length = places[0]
    path = clone.directory / (PROMISED + key.removeprefix("packs/"))
    with path.open("r+b") as file:
        file.seek(offset + length - 1)
        byte_there = file.read(1)
        file.seek(offset + length - 1)
        file.write(bytes([byte_there[0] ^ 4]))
    clone.remote.reads.clear()
    with clone.opened() as repository:
        assert repository.fsck(read_data=True).ok
        assert clone.remote.reads == []
        repository.tensor("main", "t2")
    assert clone.remote.bytes == length


def test_a_full_disk_keeps_nothing_and_reads_all_the_same(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with clone.opened() as repository:
        monkeypatch.setattr(os, "pwrite", full)
        first = repository.tensor("main", "t2")
        once = clone.remote.bytes
        assert bool((repository.tensor("main", "t2") == first).all())
        assert clone.remote.bytes > once
        monkeypatch.undo()
        repository.tensor("main", "t2")
        came = clone.remote.bytes
        repository.tensor("main", "t2")
        assert clone.remote.bytes == came


def test_packs_that_the_remote_joined_are_found_again(clone: Clone, tmp_path: Path) -> None:
    """Its gc rewrote them: new names, other places; what came before is kept."""
    with clone.opened() as repository:
        repository.tensor("tuned", "t0")
        came = clone.remote.bytes
        rewrite_packs(clone.origin)
        clone.remote.forget_files()
        clone.remote.reads.clear()
        repository.checkout("tuned", to=tmp_path / "out")
        repository.checkout("main", to=tmp_path / "base")
        assert repository.fsck(read_data=True).ok
        frames = sum(length for _, _, length in clone.remote.reads if length <= 65536)
        assert clone.remote.bytes < repository.usage().stored_bytes - came + frames
    assert files(tmp_path / "out") == files(tmp_path / "tuned")
    assert files(tmp_path / "base") == files(tmp_path / "main")


def test_what_the_remote_dropped_and_we_hold_survives(clone: Clone, tmp_path: Path) -> None:
    with clone.opened() as repository:
        repository.checkout("main", to=tmp_path / "one")
        held = repository.tensor("tuned", "t0")
        with Repository(clone.origin, who=WHO) as origin:
            origin.delete_branch("tuned", force=True)
            assert origin.gc(keep_reflog=False).packs_removed
        clone.remote.forget_files()
        for _ in range(2):
            again = repository.tensor("tuned", "t0")
            assert bool((again == held).all())
            with pytest.raises(MissingObject):
                repository.tensor("tuned", "t5")
        repository.checkout("main", to=tmp_path / "two")
    assert files(tmp_path / "two") == files(tmp_path / "main")


def test_gc_and_fsck_leave_promises_alone(clone: Clone, tmp_path: Path) -> None:
    with clone.opened() as repository:
        repository.tensor("tuned", "t4")
        came = clone.remote.bytes
        before = sorted(repository.store.list(PROMISED))
        usage = repository.usage()
        assert usage.promised_bytes > 0
        assert usage.packs_bytes + usage.promised_bytes > usage.stored_bytes
        report = repository.fsck(read_data=True)
        assert report.ok
        assert [note.kind.value for note in report.notes] == ["promised"]
        repository.delete_branch("tuned", force=True)
        found = repository.gc(keep_reflog=False)
        assert found.packs_rewritten == 0
        assert sorted(repository.store.list(PROMISED)) == before
        assert repository.fsck(read_data=True).ok
        repository.storage.rebuild()
        assert clone.remote.bytes == came
        repository.checkout("main", to=tmp_path / "out")
    assert files(tmp_path / "out") == files(tmp_path / "main")


def test_work_on_top_of_promises_is_our_own(clone: Clone, tmp_path: Path) -> None:
    """A commit that shares and leans on promised blocks; gc keeps it, the remote is not written."""
    random = np.random.default_rng(2)
    before = sorted(path.name for path in clone.origin.rglob("*.pack"))
    with clone.opened() as repository:
        repository.checkout("tuned", to=tmp_path / "out")
        base = {f"t{n}": bf16(random.standard_normal((64, 256))) for n in range(2)}
        commit(repository, write_model(tmp_path / "mine", base), "mine", "tuned")
        assert repository.gc().packs_removed == 0
        repository.checkout("mine", to=tmp_path / "back")
        assert repository.fsck(read_data=True).ok
    assert files(tmp_path / "back") == files(tmp_path / "mine")
    assert sorted(path.name for path in clone.origin.rglob("*.pack")) == before


def test_a_damaged_frame_is_found_and_promised_again(clone: Clone, tmp_path: Path) -> None:
    with clone.opened() as repository:
        repository.tensor("main", "t6")
        key = next(iter(repository.store.list(PROMISED)))
    path = clone.directory / key
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size - 20)
        file.write(b"garbage")
    with clone.opened() as repository:
        report = repository.fsck()
        assert "pack" in {problem.kind.value for problem in report.problems}
        assert repository.fsck(repair=True).ok
        repository.checkout("tuned", to=tmp_path / "out")
    assert files(tmp_path / "out") == files(tmp_path / "tuned")


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


def test_what_no_honest_remote_has(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalByteStore(clone.directory) as store, LocalByteStore(clone.origin) as origin:
        packs = block_packs(origin)
        for pack in packs:
            store.delete(promised_key(pack))
        monkeypatch.setattr(frames, "MOST_PACKS", 2)
        with pytest.raises(RemoteRefused):
            bring_frames(clone.remote, store)
        monkeypatch.undo()
        monkeypatch.setattr(frames, "LARGEST_PACK_BYTES", 1000)
        with pytest.raises(RemoteRefused):
            bring_frames(clone.remote, store)
        monkeypatch.undo()
        size = origin.size(pack_key(packs[0])) or 0
        clone.remote.spoilt.add(size - 100)  # in the footer, of every pack
        with pytest.raises(Exception, match="footer"):
            bring_frames(clone.remote, store)
        assert list(store.list(PROMISED)) == []
        assert list((clone.directory / "tmp").rglob("0*")) == []


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


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".")
    }


def byte() -> object:
    import torch

    return torch.uint8


def largest(store: LocalByteStore) -> tuple[PackId, list]:  # type: ignore[type-arg]
    pack = max(block_packs(store), key=lambda one: store.size(pack_key(one)) or 0)
    return pack, read_footer(store, pack)[1]


def records_of(repository: Repository, revision: str, name: str) -> list[tuple[str, int, int]]:
    """Where the records are that reading a tensor takes: (key, offset, length)."""
    from mergepipe.objects.records import Safetensors

    for file in repository.snapshot_of(revision).files:
        if isinstance(file.content, Safetensors):
            for entry in file.content.tensors:
                if entry.name == name:
                    blocks = repository.objects.tensor(entry.tensor).block_ids()
                    chosen = repository.blocks.resolve(blocks)
                    return sorted(
                        {
                            (pack_key(at.pack), at.offset, at.stored_bytes)
                            for encoding in chosen.values()
                            for at in encoding.layers
                        }
                    )
    raise AssertionError(name)


def rewrite_packs(directory: Path) -> None:
    """What a gc may do: every record in another pack than before."""
    from mergepipe.packs.format import RECORD_HEADER_BYTES
    from mergepipe.packs.reader import read_exactly
    from mergepipe.packs.writer import PackWriter

    with LocalByteStore(directory) as store:
        packs = block_packs(store)
        writer = PackWriter(store, Content.BLOCKS)
        for pack in reversed(packs):
            for header, offset in read_footer(store, pack)[1]:
                data = read_exactly(store, pack_key(pack), offset, header.stored_bytes)
                view = memoryview(data)
                writer.add_sealed(
                    header, bytes(view[:RECORD_HEADER_BYTES]), view[RECORD_HEADER_BYTES:]
                )
        identity, value = writer.finish()
        value.sync()
        store.publish([(value, pack_key(identity))])
        for pack in packs:
            store.delete(pack_key(pack))
