"""Clones and pushes that end before their time: the next goes on, and nothing else is left."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.bytestore.protocol import Buffer, ByteWriter
from mergepipe.bytestore.unfinished import building
from mergepipe.errors import RemoteUnreachable, RevisionNotFound, UsageError
from mergepipe.progress import Silent
from mergepipe.transfer import clone as cloning
from mergepipe.transfer.push import push
from mergepipe.transfer.push_refs import PushOptions, wanted_refs
from mergepipe.transfer.receiving import ReceivingStore
from mergepipe.transfer.source import Source
from tests.properties.trees import read_tree
from tests.repository.checkpoints import WHO
from tests.torture.models import finish, in_child, problems

BLOCK = 64 << 10
BLOCKS = 40


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Repository]:
    with Repository.init(tmp_path / "origin", block_size=BLOCK, who=WHO) as repo:
        model = tmp_path / "model"
        model.mkdir()
        (model / "noise.bin").write_bytes(random.Random(3).randbytes(BLOCKS * BLOCK))
        repo.commit(model, message="noise")
        yield repo


class CutAfter(Silent):
    """Progress of work that is ended once `blocks` of it have passed."""

    def __init__(self, phase: str, blocks: int, end: Callable[[], None]) -> None:
        self.phase, self.left, self.end = phase, blocks * BLOCK, end
        self.counting = False

    def start(self, what: str, total_bytes: int) -> None:
        self.counting = what == self.phase

    def advance(self, raw_bytes: int, stored_bytes: int = 0) -> None:
        self.left -= raw_bytes if self.counting else 0
        if self.left <= 0:
            self.end()


class Cut(ReceivingStore):
    """A line that ends once half of the models' bytes have passed."""

    def __init__(self, home: Repository, end: Callable[[], None]) -> None:
        super().__init__(home)
        self.left, self.end = BLOCKS * BLOCK // 2, end

    def create(self) -> ByteWriter:
        writer = super().create()
        write = writer.write

        def write_slowly(*chunks: Buffer) -> None:
            for chunk in chunks:
                for at in range(0, len(chunk), 1000):
                    write(memoryview(chunk)[at : at + 1000])
                    self.left -= 1000
                    if self.left <= 0:
                        self.end()

        writer.write = write_slowly  # type: ignore[method-assign]
        return writer


def source_of(repo: Repository) -> Source:
    return Source(repo.storage, repo.objects, repo.blocks)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupted() -> None:
    raise KeyboardInterrupt


def unreachable() -> None:
    raise RemoteUnreachable("the line is cut")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("end", [killed, interrupted, unreachable])
@pytest.mark.parametrize("phase", ["fetch", "checkout"])
@pytest.mark.parametrize("empty_directory", [False, True])
def test_a_clone_goes_on_where_it_was(
    origin: Repository, tmp_path: Path, end: Callable[[], None], phase: str, empty_directory: bool
) -> None:
    url, target = str(tmp_path / "origin"), tmp_path / "clones" / "c"
    target.parent.mkdir()
    if empty_directory:
        target.mkdir()

    def clone_a_part() -> None:
        with pytest.raises((KeyboardInterrupt, RemoteUnreachable)):
            progress = CutAfter(phase, 20, end)
            Repository.clone(url, target, who=WHO, progress=progress)

    assert finish(in_child(clone_a_part)) == (-signal.SIGKILL if end is killed else 0)
    assert target.is_dir() == empty_directory
    result = Repository.clone(url, target, who=WHO)
    # What is read ahead of the cut may be lost.
    assert result.fetch.fetched.blocks <= (BLOCKS - 16 if phase == "fetch" else 0)
    assert names(target.parent) == ["c"]
    assert names(target) == [".mergepipe", "noise.bin"]
    assert read_tree(target) == read_tree(tmp_path / "model")
    assert problems(target) == []


def test_a_failed_clone_of_nothing_leaves_nothing(origin: Repository, tmp_path: Path) -> None:
    with pytest.raises(RevisionNotFound):
        Repository.clone(
            str(tmp_path / "origin"), tmp_path / "clones" / "c", branch="none", who=WHO
        )
    assert not (tmp_path / "clones").exists()


def test_another_clone_is_not_gone_on_with(origin: Repository, tmp_path: Path) -> None:
    with Repository.init(tmp_path / "other", who=WHO) as other:
        other.commit(tmp_path / "model", message="the same, cut otherwise")
    with pytest.raises(KeyboardInterrupt):
        Repository.clone(
            str(tmp_path / "other"),
            tmp_path / "c",
            who=WHO,
            progress=CutAfter("checkout", 1, interrupted),
        )
    result = Repository.clone(str(tmp_path / "origin"), tmp_path / "c", who=WHO)
    assert result.fetch.fetched.blocks == BLOCKS
    assert not [name for name in names(tmp_path) if name.startswith(".c.")]
    assert names(tmp_path / "c" / ".mergepipe" / "incoming") in ([], ["index", "index.lock"])


def test_many_clone_to_one_place(origin: Repository, tmp_path: Path) -> None:
    url, target = str(tmp_path / "origin"), tmp_path / "clones" / "c"

    def clone() -> None:
        Repository.clone(url, target, who=WHO)

    children = [in_child(clone) for _ in range(6)]
    assert [finish(child) for child in children] == [0] * 6
    assert names(target.parent) == ["c"]
    assert read_tree(target) == read_tree(tmp_path / "model")
    assert Repository.clone(url, target, who=WHO).stood
    with Repository.open(target, who=WHO) as here:
        here.switch("other", create=True)
    with pytest.raises(UsageError, match="is there and not empty"):
        Repository.clone(url, target, who=WHO)


def test_a_move_into_a_directory_is_finished(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    with building(target, ".out.merge-") as made:
        for name in ("a", "b"):
            (made.path / name).write_text(name)
        (made.path / ".whole").touch()
        (made.path / "a").rename(target / "a")  # and then it was killed
        made.kept = True
    with pytest.raises(UsageError), cloning.whole_or_nothing(target, "merge"):
        pass
    assert names(target) == ["a", "b"]


@pytest.mark.parametrize("end", [killed, interrupted])
def test_a_push_goes_on_inside_a_pack(
    origin: Repository, tmp_path: Path, end: Callable[[], None]
) -> None:
    with Repository.init(tmp_path / "remote", block_size=BLOCK, who=WHO) as remote:
        wanted = wanted_refs(PushOptions(("main",)), origin.refs, origin.objects, "")

        def push_a_part() -> None:
            with pytest.raises(KeyboardInterrupt), Cut(remote, end) as line:
                push(source_of(origin), line, wanted)

        assert finish(in_child(push_a_part)) == (-signal.SIGKILL if end is killed else 0)
        with ReceivingStore(remote) as line:
            pushed = push(source_of(origin), line, wanted)
        assert pushed.blocks + pushed.blocks_held == BLOCKS
        assert BLOCKS // 4 < pushed.blocks_held < BLOCKS
        assert remote.refs.list() == {"refs/heads/main": origin.resolve("main")}
    assert problems(tmp_path / "remote") == []
