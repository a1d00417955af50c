"""Fetches, clones and lazy reads over lines that break, and fetchers that are killed."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.api.cloning import clone
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import RemoteUnreachable
from mergepipe.ids import BlockId
from mergepipe.lazy.store import LazyByteStore
from mergepipe.packs.index import Index
from mergepipe.packs.storage import Storage
from mergepipe.repository import layout
from mergepipe.transfer.fetch import fetch
from tests.properties.trees import read_tree, scratch
from tests.repository.checkpoints import WHO

from .children import Child
from .fetches import Library, gives_up, library
from .limits import Tally, within_limit
from .places import HASTY, Patience
from .processes import fetch_in_child, how_long
from .proxy import Effect
from .recording import Failing
from .test_broken_pushes import KINDS, LONG

slow = pytest.mark.slow


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch() as made:
        yield made


def fetches(scheme: str, kinds: Sequence[Sequence[Effect]], folder: Path, runs: int) -> Tally:
    """Fetches over a line that breaks, each followed by one over a line that does not."""
    tally = Tally(f"fetch {scheme} {'; '.join('+'.join(effects) for effects in kinds)}")
    with library(scheme, folder, seed=runs) as there:
        assert there.proxy is not None
        for number in range(runs):
            start = int(there.chance.integers(len(there.starts)))
            with there.reader(start) as reader:
                there.proxy.arm(there.faults(kinds[number % len(kinds)], start))
                gave_up = gives_up(there, reader, HASTY[number // len(kinds) % len(HASTY)])
                struck = there.proxy.traffic.struck
                tally.note("runs", "struck" if struck else "not struck")
                tally.note("gave up" if gave_up else "completed")
                there.check(reader, start, done=not gave_up)
                there.finish(reader, start)
    tally.show()
    assert tally["struck"] >= runs // 2
    assert tally["gave up"] or scheme == "s3"  # whose library tries again as it likes
    return tally


def test_fetches(folder: Path) -> None:
    fetches("forked", list(KINDS.values()), folder, 10)


@slow
@pytest.mark.parametrize(("scheme", "kind", "runs"), LONG)
def test_many_fetches(scheme: str, kind: str, runs: int, folder: Path) -> None:
    fetches(scheme, [KINDS[kind]], folder, runs)


@pytest.mark.parametrize("runs", [4, pytest.param(500, marks=slow)])
def test_calls_that_fail(runs: int, folder: Path) -> None:
    tally = Tally("fetch file, a call fails")
    with library("file", folder, seed=runs) as there:
        for number in range(runs):
            start, after = int(there.chance.integers(len(there.starts))), bool(number % 2)
            with there.reader(start) as reader:
                at = int(there.chance.integers(12))
                store = Failing(there.place.connect(), at, after=after)
                try:
                    within_limit(lambda: there.fetch(reader, store=store))  # noqa: B023
                    tally.note("completed")
                except RemoteUnreachable:
                    tally.note("gave up")
                tally.note("runs", "struck" if store.struck else "not struck")
                there.check(reader, start, done=False)
                there.finish(reader, start)
    tally.show()
    assert tally["gave up"] >= tally["struck"] > runs // 3


@pytest.mark.parametrize(
    ("scheme", "runs"),
    [
        ("file", 4),
        *(
            pytest.param(*each, marks=slow)
            for each in [("file", 500), ("http", 500), ("s3", 20), ("ssh", 20)]
        ),
    ],
)
def test_killed_fetchers(scheme: str, runs: int, folder: Path) -> None:
    tally = Tally(f"fetch {scheme}, fetcher killed")
    with library(scheme, folder, seed=runs) as there:
        with there.reader(0) as reader:
            usual_s = how_long(Child(fetch_in_child, reader, there.place))
        for _ in range(runs):
            start = int(there.chance.integers(len(there.starts)))
            with there.reader(start) as reader:
                child = Child(fetch_in_child, reader, there.place)
                child.wait_until_it_begins()
                child.go()
                time.sleep(float(there.chance.uniform(0, usual_s)))
                child.kill()
                ended = child.finish()
                assert ended in ("killed", "done"), ended
                tally.note("runs", ended)
                there.check(reader, start, done=ended == "done")
                there.finish(reader, start)
    tally.show()
    assert tally["killed"]


@pytest.mark.parametrize(("scheme", "runs"), [("forked", 2), pytest.param("http", 500, marks=slow)])
def test_clones(scheme: str, runs: int, folder: Path) -> None:
    """A clone is whole, or there is none; by URL, with the timeouts that users have."""
    tally = Tally("clone http")
    effects = (Effect.CUT, Effect.LOST, Effect.REFUSED, Effect.GATEWAY)
    with library(scheme, folder, seed=runs) as there:
        assert there.proxy is not None
        url = f"http://127.0.0.1:{there.proxy.port}"
        clone(url, folder / "model", branch="main", who=WHO)
        files = read_tree(folder / "model")
        inside = folder / "clones"
        inside.mkdir()
        for number in range(runs):
            there.proxy.arm(
                [one for _ in range(1 + number % 4) for one in there.faults(effects, 0)]
            )
            target = inside / "one"
            try:
                within_limit(lambda: clone(url, target, branch="main", who=WHO))  # noqa: B023
                tally.note("completed")
            except RemoteUnreachable:
                tally.note("gave up")
                assert list(inside.iterdir()) == []
                there.proxy.arm()
                within_limit(lambda: clone(url, target, branch="main", who=WHO))  # noqa: B023
            tally.note("runs")
            assert read_tree(target) == files
            with Repository.open(target, who=WHO) as repo:
                assert repo.fsck(read_data=True).ok
            shutil.rmtree(target)
    tally.show()


@pytest.mark.parametrize(
    ("scheme", "runs"),
    [
        ("forked", 4),
        *(
            pytest.param(*each, marks=slow)
            for each in [("http", 500), ("file", 500), ("s3", 20), ("ssh", 20)]
        ),
    ],
)
def test_lazy_reads(scheme: str, runs: int, folder: Path) -> None:
    """What is read is right or RemoteUnreachable, and nothing comes twice."""
    tally = Tally(f"lazy reads {scheme}")
    effects = tuple(Effect) if scheme != "ssh" else (Effect.CUT, Effect.STALL)
    with library(scheme, folder, seed=runs) as there:
        with LazyClone(lazily_cloned(there, folder / "all"), there.place.connect) as repo:
            blocks = repo.storage.ask(lambda view: sorted({BlockId(at.id) for at in view.blocks()}))
            raws = dict(zip(blocks, map(bytes, repo.blocks.read(blocks)), strict=True))
            whole = repo.received_bytes
        if there.proxy is not None:
            there.usual[0] = there.proxy.traffic
        template = lazily_cloned(there, folder / "lazy")
        for number in range(runs):
            shutil.copytree(template, copy := folder / f"lazy-{number}")
            order = [blocks[at] for at in there.chance.permutation(len(blocks))]
            if there.proxy is not None:
                there.proxy.arm(there.faults(effects, 0))
            failing = int(there.chance.integers(30)) if scheme == "file" else None
            patience = HASTY[number % len(HASTY)]
            with LazyClone(copy, partial(_connect, there, patience, failing)) as repo:
                try:
                    within_limit(partial(read, repo, order, raws))
                    tally.note("completed")
                except RemoteUnreachable:
                    tally.note("gave up")
            received = repo.received_bytes  # closed: no thread is at it any more
            if there.proxy is not None:
                there.proxy.arm()
            with LazyClone(copy, there.place.connect) as repo:
                within_limit(partial(read, repo, order, raws))
                assert received + repo.received_bytes == whole, "records came twice"
                assert repo.fsck(read_data=True).ok
            tally.note("runs")
            shutil.rmtree(copy)
    tally.show()
    assert tally["gave up"] or scheme == "s3"


def _connect(there: Library, patience: Patience, failing: int | None) -> ByteStore:
    store = there.place.connect(patience)
    return store if failing is None else Failing(store, failing, after=bool(failing % 2))


class LazyClone(Repository):
    """A lazy clone whose remote is reached as the test likes."""

    def __init__(self, root: Path, connect: Callable[[], ByteStore]) -> None:
        self._connect = connect
        super().__init__(root / layout.DIRECTORY, who=WHO)

    def _open_storage(self, index: Index) -> Storage:
        store = LazyByteStore(self.local, self._connect, "origin")
        return Storage(store, index, promises=store)

    @property
    def received_bytes(self) -> int:
        """Bytes of records that came since it was opened."""
        assert isinstance(self.store, LazyByteStore)
        return self.store.received_bytes


def lazily_cloned(there: Library, target: Path) -> Path:
    """A lazy clone of all branches, over a line that does not break."""
    if there.proxy is not None:
        there.proxy.arm()
    Repository.init(target, who=WHO).close()
    with LazyClone(target, there.place.connect) as repo, there.place.connect() as store:
        fetch(repo, "origin", store)
    return target


def read(repo: Repository, blocks: Sequence[BlockId], raws: Mapping[BlockId, bytes]) -> None:
    """Read blocks, a few at a time, and compare."""
    for at in range(0, len(blocks), 7):
        some = blocks[at : at + 7]
        for block, raw in zip(some, repo.blocks.read(some), strict=True):
            assert raw == raws[block]
