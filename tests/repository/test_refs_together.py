"""Refs that move together end where they would one at a time, logs and all, or none moves."""

import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mergepipe.bytestore import whole_disk
from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.errors import RefExists, RefMoved
from mergepipe.ids import ObjectId, digest
from mergepipe.repository.refs import ANY, RefStore
from tests.properties.trees import scratch

from .test_refs import MAIN, WHO, A, B, open_refs

NAMES = ("main", "a", "a/b", "b", "c/d", "c")
COMMITS = [ObjectId(digest(bytes([number]))) for number in range(4)]


def repository(folder: Path) -> RefStore:
    (folder / "HEAD").write_text(f"ref: {MAIN}\n")
    return open_refs(folder)


Step = tuple[str, ObjectId | None, bool]
steps = st.lists(
    st.tuples(
        st.sampled_from([f"refs/heads/{name}" for name in NAMES]),
        st.sampled_from([None, *COMMITS]),
        st.booleans(),
    ),
    max_size=12,
)


def do(refs: RefStore, step: Step) -> object:
    name, commit, keep_log = step
    try:
        if commit is None:
            return refs.delete(name, expected=ANY, who=WHO, keep_log=keep_log)
        return refs.update(name, commit, expected=ANY, who=WHO, why="test")
    except RefExists:
        return RefExists


def outcome(refs: RefStore) -> object:
    assert refs.reflog is not None
    return refs.list(), {name: refs.reflog.read(name) for name in refs.reflog.names()}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps)
def test_the_outcome_is_that_of_one_at_a_time(steps: list[Step]) -> None:
    with scratch() as place:
        (place / "one").mkdir()
        (place / "all").mkdir()
        one, together = repository(place / "one"), repository(place / "all")
        said = [do(one, step) for step in steps]
        with together.together():
            assert [do(together, step) for step in steps] == said
            assert together.list() == one.list()
            assert together.head() == one.head()
        assert outcome(together) == outcome(one)


def test_if_the_block_raises_none_moves(tmp_path: Path) -> None:
    refs = repository(tmp_path)
    refs.update(MAIN, A, expected=None, who=WHO, why="test")
    before = outcome(refs)
    with pytest.raises(RefMoved), refs.together():
        refs.update("refs/heads/a", A, expected=None, who=WHO, why="test")
        refs.delete(MAIN, expected=A, who=WHO)
        refs.update(MAIN, B, expected=A, who=WHO, why="test")
    assert outcome(refs) == before


def test_another_thread_sees_what_is_there(tmp_path: Path) -> None:
    refs = repository(tmp_path)
    seen: list[object] = []
    with refs.together():
        refs.update(MAIN, A, expected=None, who=WHO, why="test")
        reader = threading.Thread(target=lambda: seen.extend((refs.read(MAIN), refs.names())))
        reader.start()
        reader.join()
        assert refs.read(MAIN) == A
    assert seen == [None, []]


def test_head_moves_in_its_turn(tmp_path: Path) -> None:
    refs = repository(tmp_path)
    with refs.together():
        refs.update("refs/heads/a", A, expected=None, who=WHO, why="made")
        refs.set_head("refs/heads/a", who=WHO, why="switch")
        refs.update("refs/heads/a", B, expected=A, who=WHO, why="commit")
        refs.rename("refs/heads/a", "refs/heads/b", who=WHO, why="renamed")
    assert (refs.head().branch, refs.head().commit) == ("refs/heads/b", B)
    assert refs.reflog is not None
    assert [entry.new for entry in refs.reflog.read("HEAD")] == [B, B, A]


def test_a_store_that_swaps_one_at_a_time_will_do() -> None:
    store = MemoryByteStore()
    store.put("HEAD", b"ref: refs/heads/main\n")
    refs = RefStore(store)
    with refs.together():
        for name in ("a", "b"):
            refs.update(f"refs/heads/{name}", A, expected=None, who=WHO, why="test")
    assert refs.list() == {"refs/heads/a": A, "refs/heads/b": A}


def test_a_hundred_cost_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: calls that wait for the disk."""
    calls: list[int] = []
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        calls.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    monkeypatch.setattr(whole_disk, "sync_disk", calls.append)
    monkeypatch.setattr(whole_disk, "_is_known", lambda directory: True)
    refs = repository(tmp_path)
    with refs.together():
        for number in range(100):
            refs.update(f"refs/heads/{number}", A, expected=None, who=WHO, why="test")
    made = len(calls)
    with refs.together():
        for number in range(100):
            refs.delete(f"refs/heads/{number}", expected=A, who=WHO, keep_log=True)
    assert (made, len(calls) - made) <= (6, 4)
