"""The coordinator of a merge dies by SIGKILL, and the same merge goes on from what was done."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mergepipe.failpoints import VARIABLE
from tests.executors.family import block_packs, copied, family, leftovers, merged, runs_left

ROOT = Path(__file__).parents[2]
# A finished segment gives three files their names: a pack of each lane, and a note. There are six
# segments, and the last one, which is less than a whole one, is not kept.
DEATHS = {"before the first": 1, "in the middle": 8, "at the last": 15}


@pytest.fixture
def repo(tmp_path):
    with family(tmp_path) as repo:
        yield repo


def killed(repo, executor, point):
    """A merge in another process, which dies at a failpoint."""
    worker = [sys.executable, "-m", "tests.executors.coordinator"]
    done = subprocess.run(
        [*worker, str(repo.directory.parent), executor],
        env={**os.environ, VARIABLE: f"{point}=kill"},
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("at", DEATHS.values(), ids=DEATHS)
def test_the_same_merge_goes_on_from_what_was_done(repo, tmp_path, at):
    other = copied(repo, tmp_path / "other")
    threads, _ = merged(repo, "threads")
    before = block_packs(other)
    killed(other, "processes:2", f"file.move@{at}")
    assert block_packs(other) == before
    assert not other.refs.read("refs/heads/main")
    processes, result = merged(other, "processes:2")
    assert processes == threads
    assert result.costs.resumed == (at - 1) // 3
    assert other.fsck(read_data=True).ok
    assert not leftovers(other) and not runs_left(other)


def test_what_threads_had_done_goes_on_with_others(repo, tmp_path):
    other = copied(repo, tmp_path / "other")
    threads, _ = merged(repo, "threads")
    killed(other, "threads", "file.move@7")
    processes, result = merged(other, "processes:1")
    assert processes == threads and result.costs.resumed == 2
    assert not leftovers(other) and not runs_left(other)


def test_what_is_damaged_or_of_another_merge_is_done_again(repo, tmp_path):
    other = copied(repo, tmp_path / "other")
    threads, _ = merged(repo, "threads")
    killed(other, "threads", "file.move@13")
    packs = sorted((other.directory / "unfinished").glob("*/*.pack"))
    notes = sorted((other.directory / "unfinished").glob("*/0*"))
    assert len(packs) == 8 and len(notes) == 4
    flip(packs[0], 2000)
    flip(notes[1], 50)
    notes[2].rename(notes[3])  # of another segment
    again, result = merged(other, "threads")
    assert again.snapshot == threads.snapshot and again.packs == threads.packs
    assert result.costs.resumed <= 1
    assert other.fsck(read_data=True).ok
    assert not leftovers(other) and not runs_left(other)


def test_gc_removes_what_nobody_went_on_with(repo):
    killed(repo, "threads", "file.move@5")
    assert len(runs_left(repo)) == 5  # three packs, a note, and who held it
    repo.gc()
    assert len(runs_left(repo)) == 5  # it is young
    freed = repo.gc(grace_s=0).freed_bytes
    assert freed > 0 and not runs_left(repo)


def test_a_merge_that_fails_leaves_nothing(repo, monkeypatch):
    from mergepipe.errors import NoSpace

    monkeypatch.setenv(VARIABLE, "file.sync@3=ENOSPC")
    with pytest.raises(NoSpace):
        merged(repo, "processes:1")
    assert not leftovers(repo) and not runs_left(repo)


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
