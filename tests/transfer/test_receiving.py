"""The receiving side: what others may see and change, quarantine, write ids, many at once."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from repository.checkpoints import WHO
from torture.models import finish, in_child

from mergepipe.api import Repository
from mergepipe.errors import Corruption, MergepipeError, MissingObject, RemoteRefused
from mergepipe.ids import ObjectId, PackId, block_id
from mergepipe.objects.records import Tensor
from mergepipe.packs.format import Content
from mergepipe.packs.reader import pack_ids, pack_key
from mergepipe.repository.incoming import STALE_AFTER_S
from mergepipe.repository.reflog import ReflogEntry
from mergepipe.transfer.quarantine import MAX_PACK_BYTES
from mergepipe.transfer.receiving import ReceivingStore

from .forging import BLOCK, Forge, line, noise, pack_of, quarantined, send, visible

MAIN = "refs/heads/main"


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with Repository.init(tmp_path / "repo", who=WHO) as opened:
        yield opened


@pytest.fixture
def store(repo: Repository) -> Iterator[ReceivingStore]:
    with ReceivingStore(repo) as opened:
        yield opened


def a_model(size: int = 3 * BLOCK) -> tuple[dict[PackId, bytes], ObjectId]:
    forge = Forge()
    commit = forge.model(noise(size))
    return forge.packs(), commit


def deliver(store: ReceivingStore, packs: dict[PackId, bytes]) -> None:
    for pack, data in packs.items():
        send(store, pack, data)


def lines(repo: Repository, ref: str = MAIN) -> int:
    assert repo.refs.reflog is not None
    return len(repo.refs.reflog.read(ref))


def test_a_push(repo: Repository, store: ReceivingStore) -> None:
    packs, commit = a_model()
    deliver(store, packs)
    for pack, data in packs.items():
        assert store.size(pack_key(pack)) == len(data)
        assert store.get(pack_key(pack)) is None
        with pytest.raises(FileNotFoundError):
            store.read_into(pack_key(pack), 0, memoryview(bytearray(4)))
    assert list(store.list("")) == []
    assert visible(repo) == {}
    assert store.compare_and_swap(MAIN, None, line(commit))
    assert list(store.list("")) == [*map(pack_key, sorted(packs)), MAIN]
    assert store.values("refs/") == {MAIN: line(commit)}
    assert store.get(MAIN) == line(commit)
    assert store.get("HEAD") == b"ref: refs/heads/main\n"
    assert all(store.get(pack_key(pack)) == data for pack, data in packs.items())
    assert quarantined(repo) == []
    assert repo.fsck(read_data=True).ok


@pytest.mark.parametrize(
    "key",
    [
        "config.toml",
        "logs/HEAD",
        "lock",
        "worktree",
        "index/data.mdb",
        "hooks/pre-commit",
        "runs/x",
        "refs/remotes/origin/main",
        "refs/imports/x",
        "refs/heads/../../config.toml",
        "refs/heads/",
        "refs/heads/-x",
        "packs/../config.toml",
        "packs/x.pack",
        f"packs/{'A' * 64}.pack",
        f"incoming/{'0' * 64}.pack",
        "/etc/passwd",
        "../x",
        "",
        "refs/heads/a\0b",
    ],
)
def test_what_others_may_not_see_or_change(store: ReceivingStore, key: str) -> None:
    for attempt in (
        lambda: store.get(key),
        lambda: store.size(key),
        lambda: store.read_into(key, 0, memoryview(bytearray(1))),
        lambda: store.put(key, b"x"),
        lambda: store.delete(key),
        lambda: store.compare_and_swap(key, None, b"0" * 64 + b"\n"),
    ):
        with pytest.raises(RemoteRefused):
            attempt()
    writer = store.create()
    writer.write(b"x")
    with pytest.raises(RemoteRefused):
        store.publish([(writer, key)])


def test_folders_that_others_may_not_list(repo: Repository, store: ReceivingStore) -> None:
    repo.directory.joinpath("refs/remotes/origin").mkdir(parents=True)
    repo.directory.joinpath("refs/remotes/origin/main").write_bytes(b"0" * 64)
    repo.directory.joinpath("packs/stray").write_bytes(b"0" * 64)
    for prefix in ("", "refs/", "refs/remotes/", "logs/", "runs/", "packs/", "hooks/", "../"):
        assert list(store.list(prefix)) == []
    with pytest.raises(RemoteRefused):
        store.values("packs/")
    with pytest.raises(RemoteRefused):
        store.values("")


def test_head_and_packs_do_not_move(store: ReceivingStore) -> None:
    for key in ("HEAD", f"packs/{'0' * 64}.pack"):
        with pytest.raises(RemoteRefused):
            store.compare_and_swap(key, None, b"0" * 64)


@pytest.mark.parametrize("value", [b"", b"main", b"0" * 63, b"ref: refs/heads/x", b"G" * 64])
def test_values_that_are_no_commit(store: ReceivingStore, value: bytes) -> None:
    with pytest.raises(RemoteRefused):
        store.compare_and_swap(MAIN, None, value)


def test_what_is_missing_is_named_and_may_follow(repo: Repository, store: ReceivingStore) -> None:
    packs, commit = a_model()
    blocks, objects = sorted(packs, key=lambda pack: len(packs[pack]), reverse=True)
    with pytest.raises(MissingObject, match=commit.hex()):
        store.compare_and_swap(MAIN, None, line(commit))
    send(store, objects, packs[objects])
    with pytest.raises(MissingObject, match="block"):
        store.compare_and_swap(MAIN, None, line(commit))
    assert quarantined(repo) == [objects]  # nothing is wrong with it
    assert visible(repo) == {}
    send(store, blocks, packs[blocks])
    assert store.compare_and_swap(MAIN, None, line(commit))
    assert repo.fsck(read_data=True).ok


def test_holding_is_being_whole(store: ReceivingStore) -> None:
    base, other = noise(BLOCK), noise(BLOCK)
    raw = bytes(a ^ (b & 1) for a, b in zip(base, noise(BLOCK), strict=True))
    under, above = Forge(), Forge()
    under.block(base)
    delta = above.delta(raw, base)
    half = above.block(noise(10), id=block_id(other), layer=0, layers=2, raw_length=BLOCK)
    thing = above.put(Tensor("U8", (0,), BLOCK, b""))
    ids = [delta, block_id(base), half, thing, bytes(32)]
    assert store.holds(ids) == [False] * 5
    deliver(store, above.packs())
    assert store.holds(ids) == [False, False, False, True, False]
    deliver(store, under.packs())
    assert store.holds(ids) == [True, True, False, True, False]
    with pytest.raises(RemoteRefused):
        store.holds([bytes(32)] * 100_001)


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
def test_what_is_no_pack(repo: Repository, store: ReceivingStore, harm) -> None:  # type: ignore[no-untyped-def]
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
    assert repo.gc(dry_run=True).freed_bytes == 0
    assert repo.gc().packs_removed == 2
    assert quarantined(repo) == kept
    assert store.holds([b"x" * 32]) == [False]  # the index of the quarantine notices


def test_a_pack_that_is_here_is_not_kept_twice(repo: Repository, store: ReceivingStore) -> None:
    packs, commit = a_model()
    deliver(store, packs)
    deliver(store, packs)
    assert store.compare_and_swap(MAIN, None, line(commit))
    deliver(store, packs)
    assert quarantined(repo) == []


def test_the_old_value_decides(repo: Repository, store: ReceivingStore) -> None:
    (packs, first), (more, second) = a_model(), a_model()
    deliver(store, packs | more)
    assert not store.compare_and_swap(MAIN, line(second), line(first))
    assert store.compare_and_swap(MAIN, None, line(first))
    assert not store.compare_and_swap(MAIN, None, line(second))
    assert store.compare_and_swap(MAIN, line(first), line(second))
    assert not store.compare_and_swap(MAIN, line(first), None)
    assert repo.refs.read(MAIN) == second


# Write ids


@pytest.mark.parametrize("again", ["the same process", "another process"])
def test_a_lost_reply_is_looked_up(repo: Repository, again: str) -> None:
    (packs, first), (more, second) = a_model(), a_model()
    write = os.urandom(16)
    with ReceivingStore(repo) as store:
        deliver(store, packs | more)
        assert store.swap_with_id(MAIN, None, line(first), write)
        if again == "the same process":
            assert store.swap_with_id(MAIN, None, line(first), write)
    with ReceivingStore(repo) as store:
        assert store.swap_with_id(MAIN, None, line(first), write)
        assert lines(repo) == 1
        # Somebody else went on from there: the write happened all the same.
        assert store.compare_and_swap(MAIN, line(first), line(second))
    with ReceivingStore(repo) as store:
        assert store.swap_with_id(MAIN, None, line(first), write)
        assert not store.swap_with_id(MAIN, None, line(first), os.urandom(16))
    assert repo.refs.read(MAIN) == second


def test_a_line_about_a_move_that_never_was(repo: Repository) -> None:
    """A crash between the log's line and the ref: the write is done, not reported as done."""
    packs, commit = a_model()
    write = os.urandom(16)
    assert repo.refs.reflog is not None
    repo.refs.reflog.append(MAIN, ReflogEntry(None, commit, WHO, f"push {write.hex()}"))
    with ReceivingStore(repo) as store:
        deliver(store, packs)
        assert store.swap_with_id(MAIN, None, line(commit), write)
    assert repo.refs.read(MAIN) == commit


def test_a_move_that_never_was_and_another_that_was(repo: Repository) -> None:
    (packs, mine), (more, other) = a_model(), a_model()
    write = os.urandom(16)
    assert repo.refs.reflog is not None
    repo.refs.reflog.append(MAIN, ReflogEntry(None, mine, WHO, f"push {write.hex()}"))
    with ReceivingStore(repo) as store:
        deliver(store, packs | more)
        assert store.compare_and_swap(MAIN, None, line(other))
        assert not store.swap_with_id(MAIN, None, line(mine), write)
    assert repo.refs.read(MAIN) == other


def test_removing(repo: Repository) -> None:
    packs, commit = a_model()
    write = os.urandom(16)
    with ReceivingStore(repo) as store:
        deliver(store, packs)
        assert store.compare_and_swap("refs/tags/v1", None, line(commit))
        assert store.compare_and_swap(MAIN, None, line(commit))
        assert not store.compare_and_swap("refs/tags/v1", line(ObjectId(b"x" * 32)), None)
        assert store.swap_with_id("refs/tags/v1", line(commit), None, write)
        assert store.swap_with_id("refs/tags/v1", line(commit), None, write)
        with pytest.raises(RemoteRefused, match="current branch"):
            store.compare_and_swap(MAIN, line(commit), None)
    with ReceivingStore(repo) as store:
        assert store.swap_with_id("refs/tags/v1", line(commit), None, write)
    assert repo.refs.list() == {MAIN: commit}


def test_a_write_id_has_sixteen_bytes(store: ReceivingStore) -> None:
    for write in (b"", b"x" * 15, b"x" * 17):
        with pytest.raises(RemoteRefused):
            store.swap_with_id(MAIN, None, b"0" * 64, write)


def test_deny_force(repo: Repository) -> None:
    forge = Forge()
    first = forge.model(noise(BLOCK))
    later = forge.model(noise(BLOCK), parents=[first])
    apart = forge.model(noise(BLOCK))
    repo.configure("receive.deny_force", "true")
    with ReceivingStore(repo) as store:
        deliver(store, forge.packs())
        assert store.compare_and_swap(MAIN, None, line(first))
        assert store.compare_and_swap("refs/heads/b", None, line(first))
        assert store.compare_and_swap("refs/tags/t", None, line(first))
        before = visible(repo)
        for key, new in ((MAIN, apart), ("refs/heads/b", None), ("refs/tags/t", later)):
            with pytest.raises(RemoteRefused, match="deny_force"):
                store.compare_and_swap(key, line(first), line(new))
        assert visible(repo) == before
        assert store.compare_and_swap(MAIN, line(first), line(later))
        with pytest.raises(RemoteRefused):
            store.compare_and_swap(MAIN, line(later), line(first))


def test_a_branch_may_go_back_where_that_is_allowed(store: ReceivingStore) -> None:
    forge = Forge()
    first = forge.model(noise(BLOCK))
    later = forge.model(noise(BLOCK), parents=[first])
    deliver(store, forge.packs())
    assert store.compare_and_swap(MAIN, None, line(later))
    assert store.compare_and_swap(MAIN, line(later), line(first))


# Many at once


def test_packs_are_taken_in_in_parts(repo: Repository, store: ReceivingStore) -> None:
    """Two branches whose blocks share packs: each gets what it needs."""
    forge = Forge()
    commits = [forge.model(noise(3 * BLOCK)) for _ in range(3)]
    deliver(store, forge.packs())
    for number, commit in enumerate(commits):
        assert store.compare_and_swap(f"refs/heads/b{number}", None, line(commit))
        held = len(quarantined(repo))
        assert held == (2 if number < 2 else 0)
    assert repo.fsck(read_data=True).ok
    assert repo.gc().packs_rewritten == 0


def test_many_pushers_of_one_branch(repo: Repository, store: ReceivingStore) -> None:
    models = [a_model(BLOCK) for _ in range(8)]
    won: list[ObjectId] = []

    def push(packs: dict[PackId, bytes], commit: ObjectId) -> None:
        deliver(store, packs)
        if store.compare_and_swap(MAIN, None, line(commit)):
            won.append(commit)

    together([partial(push, *model) for model in models])
    assert won == [repo.refs.read(MAIN)]
    assert repo.fsck(read_data=True).ok


def test_many_pushers_of_the_same(repo: Repository, tmp_path: Path) -> None:
    """Several processes' worth of stores over one repository, all with the same packs."""
    forge = Forge()
    commits = [forge.model(noise(2 * BLOCK)) for _ in range(4)]
    packs = forge.packs()

    def push(number: int) -> None:
        with (
            Repository.open(tmp_path / "repo", who=WHO) as mine,
            ReceivingStore(mine) as store,
        ):
            for attempt in range(20):
                deliver(store, packs)
                try:
                    key = f"refs/heads/b{number}"
                    assert store.compare_and_swap(key, None, line(commits[number]))
                    return
                except MissingObject:
                    # Another took the pack in, in parts, just when this one needed it.
                    assert attempt < 19

    together([partial(push, number) for number in range(4)])
    assert sorted(repo.refs.list().values()) == sorted(commits)
    assert repo.fsck(read_data=True).ok


def together(work: Sequence[partial[None]]) -> None:
    failures: list[BaseException] = []

    def run(one: partial[None]) -> None:
        try:
            one()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_gc_beside_pushes(repo: Repository, store: ReceivingStore, tmp_path: Path) -> None:
    stop = threading.Event()

    def collect() -> None:
        with Repository.open(tmp_path / "repo", who=WHO) as other:
            while not stop.wait(0.01):
                other.gc()

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        for number in range(15):
            packs, commit = a_model(BLOCK)
            deliver(store, packs)
            assert store.compare_and_swap(f"refs/heads/b{number}", None, line(commit))
    finally:
        stop.set()
        collector.join()
    assert repo.fsck(read_data=True).ok


@pytest.mark.parametrize(
    ("rounds", "seed"), [(12, 1), pytest.param(200, 2, marks=pytest.mark.slow)]
)
def test_killed_while_it_takes_in(tmp_path: Path, rounds: int, seed: int) -> None:
    """SIGKILL at any time: the branch is where it was or where it should be; the next one works."""
    with Repository.init(tmp_path / "repo", who=WHO) as repo:
        chance = random.Random(seed)
        before: ObjectId | None = None
        for _ in range(rounds):
            forge = Forge()
            commit = forge.model(noise(20 * BLOCK), parents=[before] if before else [])
            packs = forge.packs()
            child = in_child(partial(push_in_child, tmp_path / "repo", packs, before, commit))
            time.sleep(chance.uniform(0, 0.1))
            os.kill(child, signal.SIGKILL)
            finish(child)
            assert repo.refs.read(MAIN) in (before, commit)
            assert repo.fsck(read_data=True).ok
            with ReceivingStore(repo) as store:
                deliver(store, packs)
                if repo.refs.read(MAIN) == before:
                    assert store.compare_and_swap(MAIN, line(before), line(commit))
            before = commit
        assert repo.fsck(read_data=True).ok


def push_in_child(
    root: Path, packs: dict[PackId, bytes], before: ObjectId | None, commit: ObjectId
) -> None:
    with Repository.open(root, who=WHO) as repo, ReceivingStore(repo) as store:
        deliver(store, packs)
        store.compare_and_swap(MAIN, line(before), line(commit))
        signal.pause()


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
