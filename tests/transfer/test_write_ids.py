"""Moves of refs that are told twice: a reply was lost, and each still happens once."""

import os

import pytest

from mergepipe.api import Repository
from mergepipe.errors import RemoteRefused
from mergepipe.ids import ObjectId
from mergepipe.repository.reflog import ReflogEntry
from mergepipe.transfer.receiving import ReceivingStore
from tests.repository.checkpoints import WHO
from tests.transfer.pushes import MAIN, a_model, deliver

from .forging import line


def lines(repo: Repository, ref: str = MAIN) -> int:
    assert repo.refs.reflog is not None
    return len(repo.refs.reflog.read(ref))


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
