"""What is more than anything honest is refused before it is taken in: from remotes and clients.

Limits of megabytes are lowered for a test: it is who looks at them that counts.
"""

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from msgspec.structs import replace

from mergepipe.api import Repository
from mergepipe.bytestore import elsewhere, frames, pace, wire
from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.bytestore.protocol import ByteStore, Gathering
from mergepipe.errors import (
    Corruption,
    NotMounted,
    RemoteRefused,
    UnsafeRepository,
    UsageError,
)
from mergepipe.hub import commit_body, staging
from mergepipe.hub import objects as hub_objects
from mergepipe.hub.errors import HubError
from mergepipe.hub.passes import Passes
from mergepipe.hub.xet import xorbs
from mergepipe.ids import ObjectId
from mergepipe.lazy import frames as lazy_frames
from mergepipe.objects import limits
from mergepipe.packs import reader
from mergepipe.packs.format import RecordKind
from mergepipe.packs.index import Index
from mergepipe.packs.reader import read_footer_bytes
from mergepipe.repository import absent, notes, operations, pruned, push_log, roots, tombstones
from mergepipe.transfer import noting, quarantine, receiving, remote_packs, remote_refs
from mergepipe.transfer.receiving import ReceivingStore
from mergepipe.transfer.serving.offer import NOBODY, Offer, TooLarge
from mergepipe.transfer.serving.recording import Caller
from tests.bytestore.transports import TRANSPORTS
from tests.packs.test_packs import header, write_pack
from tests.repository.checkpoints import WHO

A_COMMIT = b"0" * 64 + b"\n"
IDS = [bytes([number]) * wire.WRITE_ID_BYTES for number in range(3)]
Patch = pytest.MonkeyPatch


def _with(key: str, value: bytes) -> MemoryByteStore:
    store = MemoryByteStore()
    store.put(key, value)
    return store


def test_values_of_a_remote(monkeypatch: Patch) -> None:
    values = {f"refs/heads/{name}": A_COMMIT for name in "abc"}
    data = wire.encode(values)
    assert len(wire.all_values(lambda _: data, "refs/")) == 3
    monkeypatch.setattr(wire, "MOST_VALUES", 2)
    with pytest.raises(RemoteRefused):
        wire.all_values(lambda _: data, "refs/")
    keys = wire.encode(sorted(values))
    assert len(list(wire.all_keys(lambda _: keys, "refs/"))) == 3
    monkeypatch.setattr(wire, "MOST_KEYS", 2)
    with pytest.raises(RemoteRefused):
        list(wire.all_keys(lambda _: keys, "refs/"))
    monkeypatch.undo()
    monkeypatch.setattr(wire, "MOST_LISTED_BYTES", 10)
    with pytest.raises(RemoteRefused):
        list(wire.all_keys(lambda _: keys, "refs/"))
    store = MemoryByteStore()
    for key, value in values.items():
        store.put(key, value)
    assert len(remote_refs.read_refs(store).values) == 3
    monkeypatch.setattr(remote_refs, "MOST_REFS", 2)
    with pytest.raises(RemoteRefused, match="refs"):
        remote_refs.read_refs(store)


def test_a_head_of_a_remote() -> None:
    assert remote_refs.read_refs(_with("HEAD", b"ref: refs/heads/main")).head == "refs/heads/main"
    long = b"ref: refs/heads/main" + b" " * 5000
    assert remote_refs.read_refs(_with("HEAD", long)).head is None


def test_keys() -> None:
    assert wire.is_key("a/" * 549 + "ab")
    assert not wire.is_key("a/" * 549 + "abc")


def test_frames() -> None:
    reading, writing = os.pipe()
    line = frames.FrameReader(reading)
    os.write(writing, (frames.LARGEST_PAYLOAD + 1).to_bytes(4, "little") + bytes(5))
    with pytest.raises(RemoteRefused):
        line.header()
    line.close()
    out = frames.FrameWriter(writing, 1.0, lambda: False)
    with pytest.raises(RemoteRefused, match="larger than a frame"):
        out.send(0, frames.Kind.DATA, bytes(frames.LARGEST_PAYLOAD + 1))
    for descriptor in (reading, writing):
        os.close(descriptor)


def test_still_working_is_not_believed_for_ever() -> None:
    seconds = iter((0.0, 1.0, 1.0, pace.LONGEST_WORK_S + 1, pace.LONGEST_WORK_S + 1))
    waiting = pace.Pace(now=lambda: next(seconds))
    waiting.alive()
    with pytest.raises(pace.Stalled):
        waiting.alive()


def test_what_a_client_asks(monkeypatch: Patch, tmp_path: Path) -> None:
    store = MemoryByteStore()
    offer = Offer(store)
    large = bytes(wire.LARGEST_VALUE + 1)
    for old, new in ((None, large), (large, None)):
        with pytest.raises(TooLarge):
            offer.swap(wire.SwapRequest("refs/heads/a", old, new, bytes(16)))
    swaps = wire.swaps_request([("refs/heads/a", None, A_COMMIT)] * 3, IDS, (), again=False)
    assert not offer.swaps(swaps)
    assert offer.pick(["refs/heads/a"] * 3) == wire.encode({})
    monkeypatch.setattr(wire, "MOST_SWAPS", 2)
    monkeypatch.setattr(wire, "MOST_PICKED", 2)
    with pytest.raises(TooLarge, match="swaps at once"):
        offer.swaps(swaps)
    with pytest.raises(UsageError, match="keys at once"):
        offer.pick(["refs/heads/a"] * 3)
    store.put("refs/heads/a", A_COMMIT)
    monkeypatch.setattr(wire, "LARGEST_LISTING", 10)
    with pytest.raises(RemoteRefused, match="the listing"):
        offer.keys("refs/")
    monkeypatch.setattr(wire, "MOST_IDS", 2)
    monkeypatch.setattr(receiving, "MOST_IDS", 2)
    repository = Repository.init(tmp_path / "repo", who=WHO)
    with repository, ReceivingStore(repository) as taking:
        ids = [bytes(32)] * 3
        assert taking.holds(ids[1:]) == [False, False]
        with pytest.raises(RemoteRefused, match="ids at once"):
            taking.holds(ids)
        with pytest.raises(UsageError, match="ids of"):
            Offer(taking).holds(ids)
        for name in ("a", "b", "c"):
            repository.local.put(f"refs/tags/{name}", A_COMMIT)
        assert len(taking.values("refs/")) == 3
        monkeypatch.setattr(receiving, "MOST_REFS", 2)
        with pytest.raises(RemoteRefused):
            taking.values("refs/")
        monkeypatch.undo()
        monkeypatch.setattr(receiving, "LARGEST_VALUES_BYTES", 100)
        with pytest.raises(RemoteRefused):
            taking.values("refs/")


def test_packs_of_a_client(monkeypatch: Patch, tmp_path: Path) -> None:
    repository = Repository.init(tmp_path / "repo", who=WHO)
    with repository, ReceivingStore(repository) as taking:
        writer = taking.create()
        monkeypatch.setattr(quarantine, "MAX_PACK_BYTES", 10)
        writer.write(b"x" * 10)
        with pytest.raises(RemoteRefused, match="a pack of more"):
            writer.write(b"x")
        writer.abort()
        monkeypatch.undo()
        monkeypatch.setattr(quarantine, "MAX_PACKS", 0)
        with pytest.raises(RemoteRefused, match="are received"):
            taking.create().write(bytes(64 << 20))


def test_packs_of_a_remote(monkeypatch: Patch, tmp_path: Path) -> None:
    store = MemoryByteStore()
    packs = [write_pack(store, [bytes([number]) * 150]) for number in range(3)]
    monkeypatch.setattr(lazy_frames, "MOST_PACKS", 2)
    with Repository.init(tmp_path / "repo", who=WHO) as repository:
        with pytest.raises(RemoteRefused, match="more than 2 packs"):
            lazy_frames.bring_frames(store, repository.local)
        monkeypatch.undo()
        monkeypatch.setattr(lazy_frames, "LARGEST_PACK_BYTES", 100)
        with pytest.raises(RemoteRefused, match="of the remote has"):
            lazy_frames.bring_frames(store, repository.local)
    assert read_footer_bytes(store, packs[0], far=True)
    monkeypatch.setattr(reader, "_LARGEST_FAR_FOOTER_BYTES", 10)
    assert read_footer_bytes(store, packs[0])
    with pytest.raises(RemoteRefused, match="a footer of"):
        read_footer_bytes(store, packs[0], far=True)
    assert reader.raw_footer(store, packs[0]) is None
    monkeypatch.undo()
    assert reader.raw_footer(store, packs[0]) == read_footer_bytes(store, packs[0])


@pytest.mark.parametrize("limit", ["MOST_PACKS", "MOST_RECORDS"])
def test_the_index_over_a_remote(monkeypatch: Patch, tmp_path: Path, limit: str) -> None:
    store = MemoryByteStore()
    for number in range(3):
        write_pack(store, [bytes([number]) * 150])
    (tmp_path / "index").mkdir()
    storage = remote_packs.RemoteStorage(store, Index(tmp_path / "index"))
    monkeypatch.setattr(remote_packs, limit, 2)
    with pytest.raises(RemoteRefused, match="2"):
        storage.refresh()
    monkeypatch.setattr(remote_packs, limit, 3)
    assert storage.refresh()
    storage.close()


def test_objects_of_a_remote() -> None:
    largest = limits.MAX_OBJECT_BYTES
    small = header(b"x", RecordKind.OBJECT)
    claims = replace(small, raw_length=largest + 1)
    assert remote_packs._is_sane(small, 16)
    assert not remote_packs._is_sane(claims, 16)


@pytest.mark.parametrize(
    ("module", "read"),
    [(pruned, pruned.read_pruned), (tombstones, tombstones.read_tombstones)],
)
def test_lists_of_a_repository(
    module: ModuleType, read: Callable[[ByteStore], object], monkeypatch: Patch
) -> None:
    store = _with(module.KEY, b"")
    read(store)
    store.put(module.KEY, b"\n" * 20)
    monkeypatch.setattr(module, "_MOST_BYTES", 10)
    with pytest.raises(Corruption, match="are allowed"):
        read(store)


def test_commits_that_are_done_without(monkeypatch: Patch) -> None:
    store = _with(absent.KEY, A_COMMIT)
    assert absent.read_absent(store) == absent.AbsentCommits(store)() != frozenset()
    monkeypatch.setattr(absent, "_MOST_BYTES", 10)
    monkeypatch.setattr(store, "get", lambda _: pytest.fail("it is read"))
    for read in (lambda: absent.read_absent(store), absent.AbsentCommits(store)):
        with pytest.raises(Corruption, match="are allowed"):
            read()


def test_whose_another_disk_is(tmp_path: Path) -> None:
    place = tmp_path / elsewhere.MARKER
    place.write_bytes(elsewhere.marker(tmp_path, "a" * 32))
    assert elsewhere.read_marker(tmp_path)[0] == "a" * 32
    elsewhere.require(tmp_path)
    place.write_bytes(b"".join(b"line%d x\n" % number for number in range(8000)))
    with pytest.raises(UnsafeRepository, match="not as mergepipe writes it"):
        elsewhere.read_marker(tmp_path)
    place.unlink()
    place.symlink_to(tmp_path)
    with pytest.raises(NotMounted):
        elsewhere.require(tmp_path)


def test_notes_that_somebody_sends(monkeypatch: Patch, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with Repository.init(tmp_path, who=WHO) as repository:
        commit = repository.commit(message="first").commit
        sent = notes.encode({"key": notes.Remark("v", 1, "a")})
        with ReceivingStore(repository) as taking:
            monkeypatch.setattr(noting, "LARGEST_BYTES", 3)
            with pytest.raises(RemoteRefused, match="no notes"):
                taking.compare_and_swap(notes.note_key(commit), None, sent)
            monkeypatch.undo()
            assert taking.compare_and_swap(notes.note_key(commit), None, sent)


@pytest.mark.parametrize("kind", ["http", "stdio"])
def test_more_than_a_server_takes_at_once_is_not_sent(
    kind: str, monkeypatch: Patch, tmp_path: Path
) -> None:
    """Neither swaps, which the server would refuse, nor the names of very many notes."""
    came: list[int] = []
    take = Offer.swaps

    def counted(self: Offer, asked: wire.SwapsRequest, caller: Caller = NOBODY) -> bool:
        came.append(len(asked.swaps))
        return take(self, asked, caller)

    monkeypatch.setattr(Offer, "swaps", counted)
    monkeypatch.setattr(wire, "MOST_SWAPS", 2)
    monkeypatch.setattr(noting, "_MOST_PICKED", 2)
    with TRANSPORTS[kind](tmp_path) as store:
        assert isinstance(store, Gathering)
        swaps = [(f"refs/heads/{name}", None, A_COMMIT) for name in "abc"]
        assert not store.swap_together(swaps)
        assert not came
        store.swap_together(swaps[:2])
        assert came == [2]
        commits = [ObjectId(bytes([number]) * 32) for number in range(3)]
        for commit in commits:
            store.put(notes.note_key(commit), b"noted")
        assert len(noting._values(store, commits[:2])) == 2
        monkeypatch.setattr(store, "pick", lambda _: pytest.fail("they are asked for by name"))
        assert len(noting._values(store, commits)) == 3


def _chunk(size: int, *, says: int | None = None) -> bytes:
    length = size.to_bytes(3, "little")
    return b"\0" + length + b"\0" + (says or size).to_bytes(3, "little") + bytes(size)


@pytest.mark.parametrize(
    ("limit", "most", "body"),
    [
        ("_LARGEST_CHUNK", 99, _chunk(100)),
        ("_LARGEST_CHUNK", 49, _chunk(100, says=20)[:40]),
        ("_MOST_BYTES", 199, _chunk(100) * 2),
        ("_MOST_CHUNKS", 1, _chunk(100) * 2),
    ],
)
def test_chunks_of_a_client(limit: str, most: int, body: bytes, monkeypatch: Patch) -> None:
    monkeypatch.setattr(xorbs, limit, most + 1)
    came: list[bytes] = []
    xorbs.XorbReader(lambda chunk: came.append(bytes(chunk))).feed(body)
    monkeypatch.setattr(xorbs, limit, most)
    with pytest.raises(HubError):
        xorbs.XorbReader(lambda _: None).feed(body)


def test_lines_and_parts_of_a_client(monkeypatch: Patch, tmp_path: Path) -> None:
    parts = [{"partNumber": number, "etag": "x"} for number in range(3)]
    assert len(hub_objects._part_names(parts)) == 3
    monkeypatch.setattr(hub_objects, "_MOST_PARTS", 2)
    with pytest.raises(HubError):
        hub_objects._part_names(parts)
    monkeypatch.setattr(commit_body, "_MOST_LINES", 2)
    with Repository.init(tmp_path, who=WHO) as repository:
        reader = commit_body.CommitReader(staging.Staging(repository))
        reader.feed(b"\n\n")
        with pytest.raises(HubError, match="at most 2 lines"):
            reader.feed(b"\n")


def test_a_worktree_file(monkeypatch: Patch) -> None:
    store = _with("worktree", b"a" * 64)
    assert len(list(roots.checked_out(store))) == 1
    monkeypatch.setattr(roots, "_LARGEST_NOTE", 10)
    assert list(roots.checked_out(store)) == []


def test_values_of_notes() -> None:
    store = MemoryByteStore()
    commit = ObjectId(bytes(32))
    notes.add_notes(store, commit, {"key": "x" * 1000}, WHO)
    with pytest.raises(UsageError, match="at most"):
        notes.add_notes(store, commit, {"key": "x" * 1001}, WHO)


def test_logs_do_not_grow_for_ever(tmp_path: Path, monkeypatch: Patch) -> None:
    with Repository.init(tmp_path / "repo", who=WHO) as repository:
        log = push_log.PushLog(repository.directory, lambda _: "")
        entry = push_log.PushEntry(0, "push", "me", "here", "done", ref="x" * 200)
        monkeypatch.setattr(push_log, "LARGEST_BYTES", 500)
        for _ in range(20):
            log.append(entry)
        kept = sorted(repository.directory.glob(f"{push_log.KEY}*"))
        assert len(kept) == 2
        assert sum(path.stat().st_size for path in kept) < 2000
        monkeypatch.setattr(operations, "_MOST_BYTES", 500)
        for number in range(20):
            repository.operations.moved([("refs/heads/a", None, A_COMMIT, "x" * 100)], number)
        assert (repository.directory / operations.KEY).stat().st_size < 1500


def test_a_pass_is_for_what_it_was_given_out_for_and_for_its_time() -> None:
    now = 1000.0
    passes = Passes(lambda: now)
    given = passes.issue("model", "oid")
    assert passes.holds(given, "model", "oid")
    assert not passes.holds(given, "model", "another")
    assert not passes.holds({**given, "pass": "0" * 64}, "model", "oid")
    assert not passes.holds({**given, "until": "99999999"}, "model", "oid")
    now = 1e9
    assert not passes.holds(given, "model", "oid")
