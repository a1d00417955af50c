"""gc where something is in its way: writers, damage, a full disk, a kill, refs made meanwhile."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mergepipe.api import Repository
from mergepipe.bytestore.local import LocalByteStore
from mergepipe.errors import Corruption, Locked, MissingObject, NoSpace
from mergepipe.packs.index import Index
from mergepipe.packs.reader import pack_ids, pack_key
from mergepipe.repository import gc_round, locks
from mergepipe.repository.gc import Collected
from tests.repository.collecting import content, forget, model, on_disk, packs_bytes, run, sparse

from .checkpoints import WHO, commit, new_repository


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with new_repository(tmp_path / "repo") as opened:
        yield opened


def test_it_waits_for_writers(repo: Repository) -> None:
    with (
        locks.acquire(repo.directory / "store.lock", shared=True, timeout_s=0),
        pytest.raises(Locked),
    ):
        run(repo)


def test_a_damaged_history_is_left_alone(repo: Repository, tmp_path: Path) -> None:
    commit(repo, model(tmp_path, "a"), "a")
    commit(repo, model(tmp_path, "b"), "b")
    place = repo.storage.ask(lambda view: view.object(repo.resolve("b")))
    assert place is not None
    pack = place.pack
    forget(repo, "a")
    repo.store.delete(pack_key(pack))
    before = sorted((repo.directory / "packs").iterdir())
    with pytest.raises(MissingObject):
        run(repo)
    assert sorted((repo.directory / "packs").iterdir()) == before
    (repo.directory / "refs" / "heads" / "b").write_bytes(b"nonsense")
    with pytest.raises(Corruption):
        run(repo)
    assert sorted((repo.directory / "packs").iterdir()) == before


def test_a_pack_it_cannot_read_stays(repo: Repository, tmp_path: Path) -> None:
    commit(repo, model(tmp_path, "a"), "a")
    commit(repo, model(tmp_path, "b"), "b")
    pack = max(pack_ids(repo.store), key=lambda one: repo.store.size(pack_key(one)) or 0)
    os.truncate(repo.directory / pack_key(pack), (repo.store.size(pack_key(pack)) or 0) - 10)
    repo.storage.rebuild()
    assert run(repo).unreadable == (pack,)
    for name in "ab":
        assert content(repo, name, tmp_path) == on_disk(tmp_path / name)


def test_a_full_disk_frees_the_dead_first(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sparse(repo, tmp_path)

    def full(store: LocalByteStore) -> None:
        raise NoSpace("full")

    with monkeypatch.context() as patch:
        patch.setattr(LocalByteStore, "create", full)
        done = run(repo)
    assert done.incomplete
    assert done.packs_removed >= 1
    assert done.freed_bytes > 70_000
    assert content(repo, "b", tmp_path) == on_disk(tmp_path / "b")
    assert not run(repo).incomplete
    assert content(repo, "b", tmp_path) == on_disk(tmp_path / "b")


STEPS: list[tuple[type, str]] = [
    (LocalByteStore, "delete"),
    (LocalByteStore, "publish"),
    (Index, "add_packs"),
    (Index, "drop_packs"),
]


@pytest.mark.parametrize("owner, name", STEPS)
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_step_it_can_be_run_again(
    tmp_path: Path, owner: type, name: str, after: bool
) -> None:
    with new_repository(tmp_path / "repo") as repo:
        sparse(repo, tmp_path)
    for call in range(1, 4):
        child = os.fork()
        if child == 0:
            _die_at(owner, name, call, after)
            with Repository.open(tmp_path / "repo") as repo:
                run(repo)
            os._exit(0)
        os.waitpid(child, 0)
        with Repository.open(tmp_path / "repo") as repo:
            assert content(repo, "b", tmp_path) == on_disk(tmp_path / "b")
    with Repository.open(tmp_path / "repo") as repo:
        run(repo)
        assert content(repo, "b", tmp_path) == on_disk(tmp_path / "b")
        assert packs_bytes(repo) < 60_000
        assert run(repo) == Collected(0, 0, 0, False)


def _die_at(owner: type, name: str, call: int, after: bool) -> None:
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def dying(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            os._exit(9)
        result = real(*arguments)
        if calls == call:
            os._exit(9)
        return result

    setattr(owner, name, dying)


def test_a_ref_made_meanwhile_saves_its_model(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = commit(repo, model(tmp_path, "b"), "b")
    commit(repo, model(tmp_path, "a"), "a")
    forget(repo, "b")
    planned = gc_round.Round.plan

    def plan_then_tag(self: gc_round.Round) -> None:
        planned(self)
        if repo.refs.read("refs/tags/v1") is None:
            repo.refs.update("refs/tags/v1", lost, expected=None, who=WHO, why="")

    monkeypatch.setattr(gc_round.Round, "plan", plan_then_tag)
    assert run(repo).freed_bytes == 0
    assert content(repo, "v1", tmp_path) == on_disk(tmp_path / "b")


def test_readers_go_on_beside_it(repo: Repository, tmp_path: Path) -> None:
    sparse(repo, tmp_path)
    failures: list[BaseException] = []
    stop = threading.Event()

    def reading() -> None:
        try:
            with Repository.open(tmp_path / "repo") as other:
                while not stop.is_set():
                    assert content(other, "b", tmp_path) == on_disk(tmp_path / "b")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=reading) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(4):
        commit(repo, model(tmp_path, f"n{number}"), "n")
        forget(repo, "n")
        run(repo)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
