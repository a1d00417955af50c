"""A power cut while many small files are made durable by one call: refs, logs, a checkout.

As test_power_loss.py, on the way that is taken for many: here already for three.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.properties.trees import read_tree
from tests.torture.disk import Disk
from tests.torture.models import finish, in_child, opened
from tests.torture.syscalls import Call, Replay
from tests.torture.test_power_loss import Check, disk, expect_no_violation, survey, traced

__all__ = ["disk"]

BRANCHES = ("refs/heads/a", "refs/heads/b/c", "refs/heads/d", "refs/heads/e/f")
MOVE = """
import os, sys
from mergepipe.bytestore import whole_disk
from tests.torture.models import opened, WHO
from pathlib import Path
whole_disk.FEWEST = 3
whole_disk._is_known = lambda directory: True
with opened(Path(sys.argv[1])) as repo:
    with repo.refs.together():
        for name in sys.argv[2:]:
            repo.refs.update(name, repo.resolve("main"), expected=None, who=WHO, why="made")
        repo.refs.delete("refs/heads/gone", expected=repo.resolve("main"), who=WHO, keep_log=True)
    os.write(1, b"done")
"""


def moved(root: Path, work: Path, done: bool) -> None:
    """Each branch is there or not, and never without a line in its log; all are once it is done."""
    with opened(root / "repo") as repo:
        tip = repo.resolve("main")
        there = repo.refs.list()
        assert set(there.values()) == {tip}
        assert repo.refs.reflog is not None
        for name in BRANCHES:
            if name in there:
                assert [entry.new for entry in repo.refs.reflog.read(name)] == [tip]
        if done:
            assert set(there) == {"refs/heads/main", *BRANCHES}
        if "refs/heads/gone" not in there:
            assert repo.refs.reflog.read("refs/heads/gone")[0].new is None


def whole_syncs(before: Path, calls: list[Call]) -> Iterator[int]:
    """Calls for the whole disk that make something durable there."""
    replay = Replay(Disk(before))
    for number, call in enumerate(calls):
        if call.name == "syncfs" and call.descriptor() in replay.open:
            yield number
        replay.apply(call)


def expect_violation_without(before: Path, calls: list[Call], check: Check, number: int) -> None:
    """What the next call for the whole disk makes up for is missed by what survives by chance."""

    def missing() -> None:
        with pytest.raises(AssertionError):
            survey(before, calls, check, 6, number)

    assert finish(in_child(missing)) == 0, f"nobody misses {calls[number].shown()}"


@pytest.fixture
def branched(disk: Path) -> Path:
    with opened(disk / "repo") as repo:
        repo.branch("gone", "main")
    return disk


def test_refs_that_move_together_survive_a_power_cut(branched: Path) -> None:
    before, calls = traced(branched, MOVE, branched / "repo", *BRANCHES)
    expect_no_violation(before, calls, moved, seeds=0)


@pytest.mark.slow
def test_no_call_for_the_disk_of_refs_is_for_nothing(branched: Path) -> None:
    before, calls = traced(branched, MOVE, branched / "repo", *BRANCHES)
    expect_no_violation(before, calls, moved, seeds=4)
    needed = list(whole_syncs(before, calls))
    assert len(needed) == 3  # the logs; the values; the names
    for number in needed[1:]:  # the second makes up for the first in time
        expect_violation_without(before, calls, moved, number)


CHECKOUT = """
import os, sys
from mergepipe.bytestore import whole_disk
from tests.torture.models import opened
from pathlib import Path
whole_disk.FEWEST = 3
whole_disk._is_known = lambda directory: True
with opened(Path(sys.argv[1])) as repo:
    repo.checkout("small", to=sys.argv[2])
    os.write(1, b"done")
"""


def small(number: int) -> bytes:
    return bytes([number]) * (number + 1)


PATHS = ("a/0", "a/1", "b/2", "c/d/3", "4")


def checked_out(root: Path, work: Path, done: bool) -> None:
    """Each file is whole or not there; once it was said to be done, all are."""
    out = root / "out"
    found = {path: data for path, (data, _) in read_tree(out).items()} if out.exists() else {}
    found = {path: data for path, data in found.items() if ".mp-export-" not in path}
    expected = {path: small(number) for number, path in enumerate(PATHS)}
    assert all(data == expected[path] for path, data in found.items())
    assert found == expected or not done


@pytest.fixture
def checkout(disk: Path, tmp_path: Path) -> tuple[Path, list[Call]]:
    for number, path in enumerate(PATHS):
        file = tmp_path / "small" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(small(number))
    with opened(disk / "repo") as repo:
        repo.commit(tmp_path / "small", branch="small", message="small files")
    return traced(disk, CHECKOUT, disk / "repo", disk / "out")


def test_files_that_are_checked_out_together_survive_a_power_cut(
    checkout: tuple[Path, list[Call]],
) -> None:
    before, calls = checkout
    expect_no_violation(before, calls, checked_out, seeds=0)


@pytest.mark.slow
def test_no_call_for_the_disk_of_files_is_for_nothing(checkout: tuple[Path, list[Call]]) -> None:
    before, calls = checkout
    expect_no_violation(before, calls, checked_out, seeds=4)
    needed = list(whole_syncs(before, calls))
    assert len(needed) == 2  # bytes, then names
    for number in needed:
        expect_violation_without(before, calls, checked_out, number)
