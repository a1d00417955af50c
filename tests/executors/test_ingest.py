"""Commits made by processes are those that threads make, whatever happens to the processes."""

import os

import pytest

from mergepipe.checkpoints import layout
from mergepipe.errors import SourceChanged
from mergepipe.executors.processes import ProcessExecutor
from tests.engine.merging import EXPERTS, repository
from tests.executors.family import Killing, block_packs, copied, leftovers
from tests.executors.incoming import committed, damage, incoming, small_segments

NEW = "model.safetensors"


@pytest.fixture
def files(tmp_path):
    return incoming(tmp_path)


@pytest.fixture
def repos(files, monkeypatch):
    """Two empty repositories that hand out work in small segments."""
    one, other = (repository(files / name, block_size=4096, codec="auto") for name in "ab")
    small_segments(monkeypatch, one)
    monkeypatch.setattr(layout, "PIECE_BYTES", 64 << 10)
    with one, other:
        yield one, other


def test_processes_commit_what_threads_commit(repos, files):
    one, other = repos
    threads = committed(one, files, "threads")
    with ProcessExecutor(2) as executor:
        assert committed(other, files, executor) == threads
        assert len(executor.pids) == 2
    assert block_packs(one) == block_packs(other)
    assert len(block_packs(one)) > 16
    assert other.fsck(read_data=True).ok
    assert not leftovers(one) and not leftovers(other)


def test_workers_that_are_killed_change_nothing(repos, files):
    one, other = repos
    threads = committed(one, files, "threads")
    with ProcessExecutor(2) as executor:
        killing = Killing(executor, {0, 1, "last"})
        assert committed(other, files, killing) == threads
        assert killing.killed
    assert block_packs(one) == block_packs(other)
    assert not leftovers(other)


def test_a_base_that_is_damaged_is_not_leaned_on(repos, files, tmp_path):
    one = repos[0]
    with one.on("threads"):
        one.commit(files / "base", branch="base", message="base")
    damage(one, "base", "layer.30.w")
    with copied(one, tmp_path / "other") as other:
        made = []
        for repo, executor in ((one, "threads"), (other, "processes:2")):
            with repo.on(executor):
                made.append(repo.commit(files / EXPERTS[0], branch="code", base="base"))
        assert made[0].snapshot == made[1].snapshot
        out = tmp_path / "out"
        other.checkout("code", to=out)
        assert (out / NEW).read_bytes() == (files / EXPERTS[0] / NEW).read_bytes()


def test_a_file_that_changes_meanwhile_ends_the_commit(repos, files):
    repo = repos[0]

    class Touching(Killing):
        def _after(self, number):
            if number == 1:
                os.utime(files / "base" / NEW, ns=(1, 1))

    with (
        ProcessExecutor(1) as executor,
        repo.on(Touching(executor, set())),
        pytest.raises(SourceChanged, match="modification time"),
    ):
        repo.commit(files / "base", branch="base", message="base")
    assert not repo.refs.list()
    assert not leftovers(repo)
