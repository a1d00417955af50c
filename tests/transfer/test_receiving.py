"""The receiving side: what others may see and change, and what a ref needs before it moves."""

import pytest

from mergepipe.api import Repository
from mergepipe.errors import MissingObject, RemoteRefused
from mergepipe.ids import block_id
from mergepipe.objects.records import Tensor
from mergepipe.packs.reader import pack_key
from mergepipe.transfer.receiving import ReceivingStore
from tests.transfer.pushes import MAIN, a_model, deliver

from .forging import BLOCK, Forge, line, noise, quarantined, send, visible


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


def test_the_old_value_decides(repo: Repository, store: ReceivingStore) -> None:
    (packs, first), (more, second) = a_model(), a_model()
    deliver(store, packs | more)
    assert not store.compare_and_swap(MAIN, line(second), line(first))
    assert store.compare_and_swap(MAIN, None, line(first))
    assert not store.compare_and_swap(MAIN, None, line(second))
    assert store.compare_and_swap(MAIN, line(first), line(second))
    assert not store.compare_and_swap(MAIN, line(first), None)
    assert repo.refs.read(MAIN) == second


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
