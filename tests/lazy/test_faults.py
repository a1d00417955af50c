"""Promised packs where something fails: no answer, damage on the way or here, a full disk, lies."""

import errno
import os
from pathlib import Path

import pytest

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.errors import MergepipeError, RemoteRefused, RemoteUnreachable
from mergepipe.lazy import frames
from mergepipe.lazy.frames import bring_frames
from mergepipe.lazy.promised_pack import PROMISED, promised_key
from mergepipe.packs.reader import pack_key
from tests.lazy.clones import Clone, block_packs, clone_of_two_models, files, largest, records_of


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return clone_of_two_models(tmp_path)


def test_offline_names_the_remote_and_works_with_what_is_here(clone: Clone, tmp_path: Path) -> None:
    with clone.opened() as repository:
        first = repository.tensor("tuned", "t1")
        clone.remote.reachable = False
        again = repository.tensor("tuned", "t1")
        assert bool((again == first).all())
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
        with pytest.raises(MergepipeError, match="damaged") as caught:
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
