"""SIGKILL at any moment of a merge: the branch as it was or complete, and the next merge works."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial

import pytest

from mergepipe.api import Repository
from mergepipe.engine.transactions import MergeRequest
from mergepipe.objects.merging import Manifest
from tests.engine.merging import EXPERTS, WHO, Recipe, engine_of, plan_by_hand, three_experts
from tests.torture.models import finish, in_child, problems, unfinished

# What a process does to the names of files; between two of these nothing is seen from outside.
_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
BRANCH = "refs/heads/merged"


def merge(root, plan):
    with Repository.open(root, who=WHO) as repo:
        return engine_of(repo).execute(plan, MergeRequest(branch=BRANCH), reuse=False)


def merge_until(root, plan, number):
    """Merge, and die by SIGKILL right before the `number`-th change of a name."""
    seen = 0

    def watch(event, _):
        nonlocal seen
        if event in _EVENTS:
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    merge(root, plan)


def check(root, plan, before, wanted):
    """The branch is where it was, or at a whole merge; returns where."""
    with Repository.open(root, who=WHO) as repo:
        tip = repo.refs.read(BRANCH)
        if tip != before:
            assert tip is not None
            commit = repo.objects.commit(tip)
            assert commit.snapshot == wanted
            assert (before in commit.parents) == (before is not None)
            assert commit.manifest is not None
            assert repo.objects.load(commit.manifest, Manifest).output == wanted
    assert problems(root) == []
    return tip


@pytest.fixture
def ready(tmp_path):
    """A repository, a plan, and the snapshot it leads to (made by another repository's merge)."""
    repo = three_experts(tmp_path, block_size=8192)
    plan = plan_by_hand(repo, Recipe("ties", "base", EXPERTS, {"density": 0.5}))
    repo.close()
    other = three_experts(tmp_path / "other", block_size=8192)
    wanted = engine_of(other).execute(plan).snapshot
    other.close()
    return tmp_path / "repo", plan, wanted


def test_killed_at_every_change_of_a_name(ready):
    root, plan, wanted = ready
    tip = None
    ends = []
    number, step = 1, 1
    while True:
        child = in_child(partial(merge_until, root, plan, number))
        code = finish(child)
        tip = check(root, plan, tip, wanted)
        ends.append(tip)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        number += step
    assert number > 20  # there are that many names to be killed at
    assert ends[0] is None  # the first kills come before anything is published
    assert merge(root, plan).snapshot == wanted
    assert unfinished(root) == []


def rounds(ready, count, seed):
    root, plan, wanted = ready
    rng = random.Random(seed)
    tip = None
    for number in range(count):
        reader, writer = os.pipe()
        child = in_child(partial(forever, lambda: merge(root, plan), writer))
        os.close(writer)
        if number % 4 == 3:
            os.read(reader, 1)  # not before it has merged once, however slow the machine
        time.sleep(rng.uniform(0, 0.3))
        os.kill(child, signal.SIGKILL)
        assert finish(child) == -signal.SIGKILL
        os.close(reader)
        with Repository.open(root, who=WHO) as repo:
            found = repo.refs.read(BRANCH)
            if found != tip:
                assert found is not None
                assert repo.objects.commit(found).snapshot == wanted
            tip = found
        assert problems(root) == []
    assert merge(root, plan).snapshot == wanted
    assert unfinished(root) == []
    return tip


def forever(work: Callable[[], object], done: int) -> None:
    while True:
        work()
        os.write(done, b".")


def test_killed_at_random_times(ready):
    assert rounds(ready, 12, seed=3) is not None


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_at_random_times_often(ready, seed):
    rounds(ready, 60, seed)
