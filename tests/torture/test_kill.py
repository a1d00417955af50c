"""SIGKILL at any moment of a commit: the old tip or the new one, and the next command works."""

import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from tests.torture.models import (
    commit_model,
    finish,
    in_child,
    new_repository,
    opened,
    problems,
    unfinished,
    verify,
)


def rounds(root: Path, scratch: Path, count: int, seed: int) -> tuple[int, int]:
    """Kill a process that commits without end, `count` times; commits acknowledged, tips ahead."""
    rng = random.Random(seed)
    acknowledged: list[int] = []
    ahead = 0
    for number in range(count):
        reader, writer = os.pipe()
        child = in_child(partial(commit_forever, root, scratch, 1000 * number, writer))
        os.close(writer)
        os.read(reader, 1)  # it has begun
        said = os.read(reader, 1) if number % 4 == 3 else b""  # and committed, in some rounds
        time.sleep(rng.uniform(0, 0.12))
        os.kill(child, signal.SIGKILL)
        assert finish(child) == -signal.SIGKILL
        with os.fdopen(reader) as pipe:
            # The last line may be torn, and then nobody was told of that commit.
            told = [int(line) for line in (said.decode() + pipe.read()).split("\n")[:-1]]
        acknowledged += told
        found = verify(root, scratch).get("refs/heads/main", [])[::-1]
        # At most the commit that was under way is there without having been acknowledged.
        assert found[: len(acknowledged)] == acknowledged
        assert len(found) <= len(acknowledged) + 1
        ahead += len(found) - len(acknowledged)
        acknowledged = found
        assert problems(root) == []
    with opened(root) as repo:
        commit_model(repo, 10**6, scratch)
    assert unfinished(root) == []
    return len(acknowledged), ahead


def commit_forever(root: Path, scratch: Path, first: int, pipe: int) -> None:
    with opened(root) as repo:
        os.write(pipe, b" ")
        for number in range(first, first + 1000):
            commit_model(repo, number, scratch)
            os.write(pipe, f"{number}\n".encode())


def test_killed_commits_leave_the_old_tip_or_the_new_one(tmp_path: Path) -> None:
    new_repository(tmp_path / "repo")
    (tmp_path / "scratch").mkdir()
    commits, _ = rounds(tmp_path / "repo", tmp_path / "scratch", 10, seed=1)
    assert commits


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_killed_commits_many_times(tmp_path: Path, seed: int) -> None:
    new_repository(tmp_path / "repo")
    (tmp_path / "scratch").mkdir()
    rounds(tmp_path / "repo", tmp_path / "scratch", 40, seed)
