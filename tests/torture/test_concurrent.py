"""Several processes on one branch, readers alongside: nobody's acknowledged commit is lost."""

from functools import partial
from pathlib import Path

import pytest

from mergepipe.ids import ObjectId
from tests.properties.trees import read_tree
from tests.torture.models import (
    commit_model,
    finish,
    in_child,
    model,
    new_repository,
    opened,
    problems,
    unfinished,
    verify,
)


def commit_some(root: Path, scratch: Path, numbers: range) -> None:
    """Commits in a process of its own; notes each one that was acknowledged."""
    with opened(root) as repo, (scratch / f"told-{numbers.start}").open("w") as told:
        for number in numbers:
            commit_model(repo, number, scratch)
            told.write(f"{number}\n")
            told.flush()


def read_until(root: Path, scratch: Path, stop: Path, name: str) -> None:
    """Reads the newest commits over and over: each whole, and history only ever grows."""
    with opened(root) as repo:
        before: list[ObjectId] = []
        while not stop.exists():
            if repo.refs.list():
                log = list(repo.log("main"))
                ids = [identity for identity, _ in log]
                assert ids[len(ids) - len(before) :] == before
                before = ids
                identity, commit = log[0]
                out = scratch / f"read-{name}-{len(ids)}"
                repo.checkout(identity.hex(), to=out, force=True)
                assert read_tree(out) == model(int(commit.message))


def check_until(root: Path, stop: Path) -> None:
    """Checks all data over and over: what is under way is no damage."""
    with opened(root) as repo:
        while True:
            last = stop.exists()
            report = repo.fsck(read_data=True)
            assert report.ok, report.problems
            if last:
                return


def together(tmp_path: Path, writers: int, each: int, readers: int) -> None:
    root, scratch, stop = tmp_path / "repo", tmp_path / "scratch", tmp_path / "stop"
    new_repository(root)
    scratch.mkdir()
    numbers = [range(1000 * writer, 1000 * writer + each) for writer in range(writers)]
    reading = [
        in_child(partial(read_until, root, scratch, stop, str(reader))) for reader in range(readers)
    ]
    checking = in_child(partial(check_until, root, stop))
    writing = [in_child(partial(commit_some, root, scratch, some)) for some in numbers]
    codes = [finish(child) for child in writing]
    stop.touch()
    assert [finish(child) for child in reading] == [0] * readers
    assert finish(checking) == 0
    assert codes == [0] * writers
    told = {
        int(n) for some in numbers for n in (scratch / f"told-{some.start}").read_text().split()
    }
    assert told == {number for some in numbers for number in some}
    found = verify(root, scratch)["refs/heads/main"]
    assert len(found) == len(set(found))
    assert set(found) == told
    assert problems(root) == []
    assert unfinished(root) == []
    for some in numbers:  # each process's own commits stand in the order it made them
        assert [number for number in reversed(found) if number in some] == list(some)


def test_four_processes_commit_to_one_branch(tmp_path: Path) -> None:
    together(tmp_path, writers=4, each=4, readers=1)


@pytest.mark.slow
def test_eight_processes_commit_to_one_branch(tmp_path: Path) -> None:
    together(tmp_path, writers=8, each=40, readers=3)
