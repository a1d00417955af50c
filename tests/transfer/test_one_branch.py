"""One branch of a hub is fetched and pushed without a look at all that the hub has."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from mergepipe.api import Repository, pushing
from mergepipe.bytestore.forwarding import ForwardingStore
from mergepipe.bytestore.http import HttpByteStore
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.bytestore.stdio import StdioByteStore
from mergepipe.ids import PackId
from mergepipe.packs.index import Index
from mergepipe.packs.reader import PREFIX, pack_ids
from mergepipe.repository.refnames import HEADS, REMOTES
from mergepipe.transfer.admission import Admission
from mergepipe.transfer.fetch import FetchOptions, fetch
from mergepipe.transfer.push_refs import PushOptions
from mergepipe.transfer.receiving import ReceivingStore
from mergepipe.transfer.remote_packs import RemoteStorage
from mergepipe.transfer.serving.http import Service
from mergepipe.transfer.serving.offer import Offer
from mergepipe.transfer.serving.stdio import serve_stdio
from tests.bytestore.transports import PipePeer, serving
from tests.repository.checkpoints import WHO

COUNT = 20
WAYS = ["path", "http", "stdio"]


class Watched(ReceivingStore):
    """Notes which folders are listed, and how many footers are asked for."""

    def __init__(self, home: Repository) -> None:
        super().__init__(home)
        self.listed: list[str] = []
        self.asked: list[PackId] = []

    def keys_after(self, prefix: str, after: str) -> Iterator[str]:
        self.listed.append(prefix)
        return super().keys_after(prefix, after)

    def items_after(self, prefix: str, after: str) -> Iterator[tuple[str, bytes]]:
        self.listed.append(prefix)
        return super().items_after(prefix, after)

    def footers(self, packs: Sequence[PackId]) -> list[bytes | None]:
        self.asked += packs
        return super().footers(packs)


@contextmanager
def reached(way: str, store: ByteStore) -> Iterator[ByteStore]:
    """A store as somebody else sees it."""
    if way == "path":
        yield store
    elif way == "http":
        with serving(Service(Offer(store))) as url, HttpByteStore(url) as client:
            yield client
    else:
        peers = (PipePeer(lambda stdin, stdout: serve_stdio(store, stdin, stdout)) for _ in "ab")
        with StdioByteStore(lambda: next(peers), "there") as client:
            yield client


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Repository]:
    """A repository with a small model on each of its branches."""
    with Repository.init(tmp_path / "hub", who=WHO) as repo:
        for number in range(COUNT):
            folder = tmp_path / f"model-{number}"
            folder.mkdir()
            (folder / "own.bin").write_bytes(bytes([number]) * 5000)
            repo.commit(folder, message=f"model {number}", branch=f"b{number:02}")
        yield repo


@pytest.mark.parametrize("way", WAYS)
def test_a_branch_comes_by_itself(way: str, hub: Repository, here: Repository) -> None:
    watched = Watched(hub)
    with reached(way, watched) as store:
        fetched = fetch(here, "hub", store, FetchOptions(("b07",)))
    assert [ref.name for ref in fetched.refs] == ["refs/remotes/hub/b07"]
    assert set(fetched.there.values) == {HEADS + "b07"}
    assert fetched.commits == fetched.blocks == 1
    assert not {"refs/", HEADS, PREFIX} & set(watched.listed)
    assert 0 < len(set(watched.asked)) <= 3
    assert here.fsck(read_data=True).ok


@pytest.mark.parametrize("way", WAYS)
def test_who_cannot_be_asked_is_read(way: str, hub: Repository, here: Repository) -> None:
    """A server of an earlier release."""
    with ReceivingStore(hub) as behind, reached(way, ForwardingStore(behind)) as store:
        for branch in ("b03", "b04"):
            assert fetch(here, "hub", store, FetchOptions((branch,))).commits == 1
    assert here.fsck(read_data=True).ok


def test_a_lazy_clone_of_a_branch_is_promised_its_packs_alone(
    hub: Repository, tmp_path: Path
) -> None:
    place = tmp_path / "lazy"
    Repository.clone(str(tmp_path / "hub"), place, branch="b05", lazy=True, who=WHO)
    with Repository.open(place, who=WHO) as lazy:
        assert len(lazy.storage.promises.promised()) == 1
        lazy.checkout("b05", to=tmp_path / "out")
    assert (tmp_path / "out" / "own.bin").read_bytes() == bytes([5]) * 5000


@pytest.mark.parametrize("way", WAYS)
def test_a_push_says_what_it_builds_on(
    way: str, hub: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a clone of one branch; all that it makes goes there in one admission."""
    place = tmp_path / "clone"
    Repository.clone(str(tmp_path / "hub"), place, branch="b05", who=WHO)
    looked_at: list[int] = []
    verify = Admission.verify

    def noted(self: Admission, tips: Sequence[object], known: Sequence[object]) -> None:
        looked_at.append(len(list(known)))
        verify(self, tips, known)  # type: ignore[arg-type]

    watched = Watched(hub)
    with Repository.open(place, who=WHO) as repo, reached(way, watched) as store:
        for number in range(3):
            (place / "own.bin").write_bytes(bytes([100 + number]) * 5000)
            repo.commit(message="mine", branch=f"mine{number}")
        monkeypatch.setattr("mergepipe.api.pushing.open_remote", lambda *_: ("origin", URL, store))
        monkeypatch.setattr(Admission, "verify", noted)
        pushed = repo.push(options=PushOptions(("mine0", "mine1", "mine2"))).pushed
    assert pushed.commits == 3 and looked_at == [1]
    assert not {"refs/", HEADS, PREFIX} & set(watched.listed)
    assert hub.fsck(read_data=True).ok


def test_of_very_many_branches_those_that_ours_were_begun_on_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "own"
    place.mkdir()
    with Repository.init(place, who=WHO) as repo:
        for branch, number in (("other", 0), ("main", 1), ("main", 2)):
            (place / "own.bin").write_bytes(bytes([number]) * 100)
            repo.commit(message="m", branch=branch)
        theirs = {name: repo.resolve("other") for name in "abc"} | {"z": repo.resolve("main~1")}
        for name, tip in theirs.items():
            repo.refs.update(f"{REMOTES}origin/{name}", tip, expected=None, who=WHO, why="")
        monkeypatch.setattr(pushing, "_MOST_NEAR", 4)
        assert pushing._near(repo, "origin") == tuple(HEADS + name for name in theirs)
        monkeypatch.setattr(pushing, "_MOST_NEAR", 3)
        assert pushing._near(repo, "origin") == (f"{HEADS}z",)


class URL:
    """Where it went, for messages."""

    shown = "there"


def test_packs_that_were_joined_meanwhile_are_found_again(hub: Repository, tmp_path: Path) -> None:
    tips = list(hub.refs.list(HEADS).values())
    index = Index(tmp_path / "index")
    with ReceivingStore(hub) as store:
        remote = RemoteStorage(store, index)
        try:
            remote.seek(tips[:2])
            before = remote.packs_of(tips[:2])
            assert len(before) == 2
            hub.gc(grace_s=0)
            assert not set(before) & set(pack_ids(store))
            assert remote.refresh()
            assert set(remote.packs_of(tips[:2])) <= set(pack_ids(store))
            assert not remote.refresh()
        finally:
            remote.close()
