"""One suite that every byte store passes, and what only a local one can show."""

import errno
import fcntl
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import MergepipeError, NoSpace
from tests.bytestore.s3 import Bucket, serving
from tests.bytestore.transports import TRANSPORTS


@pytest.fixture(scope="module")
def make_bucket() -> Iterator[Callable[[], Bucket]]:
    pytest.importorskip("moto", reason="pip install 'mergepipe[test]'")
    with serving() as make:
        yield make


@pytest.fixture(params=[*TRANSPORTS, "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ByteStore]:
    if request.param in TRANSPORTS:
        made = TRANSPORTS[request.param](tmp_path)
    else:
        made = request.getfixturevalue("make_bucket")().store()
    with made as opened:
        yield opened


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalByteStore]:
    with LocalByteStore(tmp_path) as opened:
        yield opened


def publish(store: ByteStore, key: str, *chunks: bytes) -> None:
    writer = store.create()
    for chunk in chunks:
        writer.write(chunk)
    writer.sync()
    store.publish([(writer, key)])


def read(store: ByteStore, key: str, offset: int, length: int) -> bytes:
    out = bytearray(length)
    return bytes(out[: store.read_into(key, offset, memoryview(out))])


def test_a_value_is_invisible_until_it_is_published(store: ByteStore) -> None:
    writer = store.create()
    writer.write(b"abc", bytearray(b"def"), memoryview(b""), memoryview(b"g"))
    assert writer.size == 7
    assert store.get("packs/a") is None
    writer.sync()
    assert list(store.list("packs/")) == []
    store.publish([(writer, "packs/a")])
    assert store.get("packs/a") == b"abcdefg"
    writer.abort()  # does nothing any more
    assert store.size("packs/a") == 7


def test_an_aborted_value_is_gone(store: ByteStore) -> None:
    writer = store.create()
    writer.write(b"abc")
    writer.abort()
    writer.abort()
    assert list(store.list("packs/")) == []
    assert [key for key in store.list("") if key.startswith("tmp/")] == []


def test_ranges_end_where_the_value_ends(store: ByteStore) -> None:
    publish(store, "packs/a", bytes(range(100)))
    assert read(store, "packs/a", 10, 5) == bytes(range(10, 15))
    assert read(store, "packs/a", 95, 50) == bytes(range(95, 100))
    assert read(store, "packs/a", 100, 1) == b""
    assert read(store, "packs/a", 4096, 1) == b""


def test_what_is_not_there(store: ByteStore) -> None:
    assert store.get("refs/heads/main") is None
    assert store.size("refs/heads/main") is None
    assert list(store.list("refs/")) == []
    store.delete("refs/heads/main")
    with pytest.raises(FileNotFoundError):
        read(store, "packs/none", 0, 1)
    publish(store, "a", b"1")
    assert store.get("a/b") is None
    assert store.size("a/b") is None


def test_listing_is_sorted_and_by_folder(store: ByteStore) -> None:
    keys = ["refs/heads/b", "refs/heads/a/x", "refs/heads/a.b", "refs/heads/z/y/x", "refs/tags/v1"]
    for key in keys:
        store.put(key, b"1")
    store.put("refsother", b"1")
    assert list(store.list("refs/")) == sorted(keys)
    assert list(store.list("refs/heads/a/")) == ["refs/heads/a/x"]


def test_put_replaces(store: ByteStore) -> None:
    store.put("worktree", b"one")
    store.put("worktree", b"two!")
    assert store.get("worktree") == b"two!"
    assert read(store, "worktree", 0, 9) == b"two!"
    store.put("worktree", b"three")
    assert read(store, "worktree", 0, 9) == b"three"


def test_compare_and_swap(store: ByteStore) -> None:
    assert not store.compare_and_swap("r", b"x", b"1")
    assert store.compare_and_swap("r", None, b"1")
    assert not store.compare_and_swap("r", None, b"2")
    assert store.compare_and_swap("r", b"1", b"2")
    assert store.get("r") == b"2"
    assert store.compare_and_swap("r", b"2", None)
    assert store.get("r") is None
    assert store.compare_and_swap("r", None, None)


def test_one_of_many_swaps_wins(store: ByteStore) -> None:
    won: list[int] = []

    def swap(number: int) -> None:
        if store.compare_and_swap("r", None, str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=swap, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.get("r") == str(won[0]).encode()


def test_values_of_a_folder_come_at_once(store: ByteStore) -> None:
    put = {f"refs/heads/{name}": name.encode() for name in ("a", "b/c", "ä", "100%", "a+b", "x=y")}
    for key, value in put.items():
        store.put(key, value)
    assert store.values("refs/") == put
    assert list(store.values("refs/")) == sorted(put)
    assert store.values("refs/tags/") == {}
    assert all(store.get(key) == value for key, value in put.items())


def test_an_empty_value_is_a_value(request: pytest.FixtureRequest, store: ByteStore) -> None:
    if request.node.callspec.params["store"] == "s3":
        pytest.skip("in a bucket, an empty object marks what was deleted")
    publish(store, "packs/a")
    assert store.get("packs/a") == b""
    assert store.size("packs/a") == 0
    assert read(store, "packs/a", 0, 5) == b""
    assert read(store, "packs/a", 0, 0) == b""


def test_large_values_from_many_threads(store: ByteStore) -> None:
    values = [random.Random(number).randbytes((3 << 20) + number) for number in range(4)]
    wrong: list[int] = []

    def use(number: int) -> None:
        value = values[number]
        publish(store, f"packs/{number}", value[: 1 << 20], value[1 << 20 :])
        wrong.extend(
            start
            for start in (0, 1, 2 << 20, len(value) - 1)
            if read(store, f"packs/{number}", start, len(value)) != value[start:]
        )

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert [store.size(f"packs/{number}") for number in range(4)] == [len(each) for each in values]


def test_keys_cannot_escape(local: LocalByteStore) -> None:
    for key in ("../x", "/etc/x", "a//b", "a/./b", "", "a\0b"):
        with pytest.raises(MergepipeError):
            local.put(key, b"1")


def test_a_ref_may_take_the_place_of_folders_left_empty(local: LocalByteStore) -> None:
    local.put("refs/heads/a/b/c", b"1")
    local.delete("refs/heads/a/b/c")
    local.put("refs/heads/a", b"2")
    assert local.get("refs/heads/a") == b"2"


def test_a_folder_that_cannot_be_listed_is_an_error(
    local: LocalByteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.put("packs/a", b"1")

    def failing(path: Path) -> None:
        raise OSError(errno.EIO, "I/O error", str(path))

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(OSError, match="I/O error"):
        list(local.list("packs/"))


def test_a_failed_sync_stays_failed(local: LocalByteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = local.create()
    writer.write(b"x" * 100)

    def failing(descriptor: int) -> None:
        raise OSError(errno.EIO, "I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(OSError, match="I/O error"):
            writer.sync()
    # The kernel would report success now; the pages may be lost all the same.
    with pytest.raises(OSError, match="I/O error"):
        local.publish([(writer, "packs/a")])
    assert local.get("packs/a") is None


def test_a_full_disk_says_so(local: LocalByteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = local.create()
    monkeypatch.setattr(os, "writev", failing)
    with pytest.raises(NoSpace):
        writer.write(b"x")


def test_large_values_are_flushed_as_they_grow(local: LocalByteStore) -> None:
    writer = local.create()
    piece = bytes(range(256)) * 65536
    for _ in range(5):
        writer.write(piece)
    writer.sync()
    local.publish([(writer, "packs/a")])
    assert local.size("packs/a") == 5 * len(piece)
    assert read(local, "packs/a", 4 * len(piece) + 5, 3) == bytes((5, 6, 7))


def test_republished_values_are_read_anew(local: LocalByteStore) -> None:
    publish(local, "packs/a", b"damaged")
    assert read(local, "packs/a", 0, 7) == b"damaged"
    publish(local, "packs/a", b"healthy")
    assert read(local, "packs/a", 0, 7) == b"healthy"


def test_many_files_are_read_from_many_threads(local: LocalByteStore) -> None:
    for number in range(150):
        publish(local, f"packs/{number}", str(number).encode())
    wrong: list[int] = []

    def reader(seed: int) -> None:
        for step in range(300):
            number = (seed * 37 + step * 11) % 150
            if read(local, f"packs/{number}", 0, 9) != str(number).encode():
                wrong.append(number)

    threads = [threading.Thread(target=reader, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    folder = Path("/proc/self/fd")
    descriptors = len(list(folder.iterdir())) if folder.exists() else 0
    assert descriptors < 150


def test_dead_sessions_are_removed_and_live_ones_kept(tmp_path: Path) -> None:
    dead = tmp_path / "tmp" / "999-dead"
    dead.mkdir(parents=True)
    (dead / "000001").write_bytes(b"left over")
    with LocalByteStore(tmp_path) as mine, LocalByteStore(tmp_path) as other:
        theirs = other.create()
        mine.create().write(b"x")
        mine.remove_dead_sessions()
        assert not dead.exists()
        theirs.write(b"alive")
        theirs.sync()
        other.publish([(theirs, "packs/a")])
        assert mine.get("packs/a") == b"alive"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_forked_child_leaves_the_parents_session_alone(tmp_path: Path) -> None:
    with LocalByteStore(tmp_path) as store:
        writer = store.create()
        writer.write(b"parent")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                publish(store, "packs/child", b"child" * (10 << 20))  # flushes on a thread
                store.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        session = next(iter((tmp_path / "tmp").iterdir()))
        held = os.open(session, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(held)
        writer.sync()
        store.publish([(writer, "packs/parent")])
        assert store.get("packs/parent") == b"parent"
        assert store.size("packs/child") == 5 * (10 << 20)
