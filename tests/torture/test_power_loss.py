"""A power cut after any system call of a command: the old state or the new one, never another.

The calls of a real run are recorded and played onto a disk that forgets what was not synced
(disk.py). Removing any one fsync must be noticed: else it, or this test, would be for nothing.
"""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from mergepipe.errors import MergepipeError
from tests.properties.trees import read_tree, scratch, write_tree
from tests.torture.disk import Disk, Survives, everything, nothing, some, store
from tests.torture.models import (
    commit_model,
    finish,
    in_child,
    model,
    new_repository,
    opened,
    problems,
    verify,
)
from tests.torture.syscalls import Call, Replay, record, require_strace

COMMIT = """
import os, sys
from tests.torture.models import opened
from pathlib import Path
with opened(Path(sys.argv[1])) as repo:
    repo.commit(sys.argv[2], branch=sys.argv[3], message="1")
    os.write(1, b"done")
"""
CHECKOUT = """
import os, sys
from tests.torture.models import opened
from pathlib import Path
with opened(Path(sys.argv[1])) as repo:
    repo.checkout("main", to=sys.argv[2])
    os.write(1, b"done")
"""
INIT = """
import os, sys
from tests.torture.models import BLOCK_BYTES, WHO
from mergepipe.api import Repository
Repository.init(sys.argv[1], block_size=BLOCK_BYTES, who=WHO)
os.write(1, b"done")
"""
Check = Callable[[Path, Path, bool], None]


def committed(branch: str, before: list[int], root: Path, work: Path, done: bool) -> None:
    """The branch is where it was or one further; with its log; and the next commit works."""
    ref = f"refs/heads/{branch}"
    repo_root = root / "repo"
    others = {} if branch == "main" else {"refs/heads/main": [0]}
    found = verify(repo_root, work)
    now = found.pop(ref, [])
    assert found == others
    assert now in ([1, *before], before)
    assert now == [1, *before] or not done
    with opened(repo_root) as repo:
        tip = repo.refs.read(ref)
        if now != before:
            assert repo.refs.reflog is not None
            entries = repo.refs.reflog.read(ref)
            assert entries and entries[0].new == tip, "a move without a line in its log"
            if branch == "main":
                logged = repo.refs.reflog.read("HEAD")
                assert logged and logged[0].new == tip, "a move without a line in HEAD's log"
        commit_model(repo, 2, work, branch)
    assert verify(repo_root, work)[ref] == [2, *now]
    assert problems(repo_root) == []


def checked_out(root: Path, work: Path, done: bool) -> None:
    """Each file is whole or not there; once it was said to be done, all are."""
    out = root / "out"
    found = read_tree(out) if out.exists() else {}
    found = {path: file for path, file in found.items() if ".mp-export-" not in path}
    expected = model(0)
    assert all(file == expected[path] for path, file in found.items())
    assert found == expected or not done


def initialised(root: Path, work: Path, done: bool) -> None:
    """A whole repository or none."""
    there = (root / "repo" / ".mergepipe").exists()
    assert there or not done
    if there:
        with opened(root / "repo") as repo:
            commit_model(repo, 0, work)
        assert verify(root / "repo", work) == {"refs/heads/main": [0]}


def states(
    before: Path, calls: list[Call], seeds: int, without: int | None = None
) -> Iterator[tuple[int, Disk, bool, Survives]]:
    """Each moment and each way to lose power in it; `without` a call that is left out."""
    replay = Replay(Disk(before))
    done = False
    for number, call in enumerate(calls):
        said = (
            call.name == "write" and call.arguments.startswith("1<") and b"done" in call.strings()
        )
        done = done or said
        if number == without:
            continue
        if replay.apply(call) or said:
            yield number, replay.disk, done, nothing
            if seeds:
                yield number, replay.disk, done, everything
            for seed in range(seeds):
                yield number, replay.disk, done, some(1000 * number + seed)
    assert done


def survey(before: Path, calls: list[Call], check: Check, seeds: int, without: int | None) -> None:
    """Check every state, a call left out or none. Raises what the check raises."""
    seen: set[str] = set()
    for number, disk, done, survives in states(before, calls, seeds, without):
        with scratch() as place:
            store(disk.top, place / "disk", survives)
            if (key := f"{done}{_fingerprint(place / 'disk')}") in seen:
                continue
            seen.add(key)
            (place / "work").mkdir()
            try:
                check(place / "disk", place / "work", done)
            except (AssertionError, MergepipeError) as error:
                raise AssertionError(f"after {calls[number].shown()}: {error!r}") from error


def _fingerprint(root: Path) -> str:
    return repr(
        [
            (str(p.relative_to(root)), p.is_file() and p.read_bytes())
            for p in sorted(root.rglob("*"))
        ]
    )


def expect_no_violation(before: Path, calls: list[Call], check: Check, seeds: int) -> None:
    # In a child: a torn index may end in a signal.
    child = in_child(partial(survey, before, calls, check, seeds, None))
    assert finish(child) == 0


def expect_violation_without(before: Path, calls: list[Call], check: Check, number: int) -> None:
    def missing() -> None:
        with pytest.raises(AssertionError):
            survey(before, calls, check, 0, number)

    assert finish(in_child(missing)) == 0, f"nobody misses {calls[number].shown()}"


def syncs(before: Path, calls: list[Call]) -> list[int]:
    """Calls that make something durable that was not; not the index's, which may be lost."""
    replay = Replay(Disk(before))
    found = []
    for number, call in enumerate(calls):
        if call.name in ("fsync", "fdatasync") and not call.sync_of("/index/"):
            held = replay.open.get(call.descriptor())
            if held is not None and held.entry.pending:
                found.append(number)
        replay.apply(call)
    return found


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A directory with a repository of one commit, and a copy that stays as it was."""
    require_strace()
    root = tmp_path / "disk"
    root.mkdir()
    new_repository(root / "repo")
    with opened(root / "repo") as repo:
        commit_model(repo, 0, tmp_path)
    write_tree(model(1), tmp_path / "source")
    return root


def traced(root: Path, script: str, *arguments: str | Path) -> tuple[Path, list[Call]]:
    """The calls of a script, and the directory as it was before, under the same path."""
    kept = root.with_name("kept")
    shutil.copytree(root, kept, symlinks=True)
    calls = record(script, *arguments, log=root.with_name("trace"))
    shutil.rmtree(root)
    kept.rename(root)
    return root, calls


def test_a_commit_survives_a_power_cut(disk: Path) -> None:
    before, calls = traced(disk, COMMIT, disk / "repo", disk.with_name("source"), "main")
    check = partial(committed, "main", [0])
    expect_no_violation(before, calls, check, seeds=0)  # more of them in the long form below
    needed = syncs(before, calls)
    assert len(needed) >= 6  # two packs, their folder, two logs, the ref and its folder
    for number in needed:
        expect_violation_without(before, calls, check, number)


@pytest.mark.slow
@pytest.mark.parametrize("branch", ["main", "other", "new/in/folders"])
def test_a_commit_survives_many_power_cuts(disk: Path, branch: str) -> None:
    before, calls = traced(disk, COMMIT, disk / "repo", disk.with_name("source"), branch)
    check = partial(committed, branch, [0] if branch == "main" else [])
    expect_no_violation(before, calls, check, seeds=8)
    for number in syncs(before, calls):
        expect_violation_without(before, calls, check, number)


@pytest.mark.slow
def test_a_checkout_survives_a_power_cut(disk: Path) -> None:
    before, calls = traced(disk, CHECKOUT, disk / "repo", disk / "out")
    expect_no_violation(before, calls, checked_out, seeds=4)
    for number in syncs(before, calls):
        # A folder is synced after each of its files, so a later one makes up for it.
        if calls[number].sync_of("/.mp-export-"):
            expect_violation_without(before, calls, checked_out, number)


@pytest.mark.slow
def test_init_survives_a_power_cut(tmp_path: Path) -> None:
    require_strace()
    root = tmp_path / "disk"
    (root / "repo").mkdir(parents=True)
    before, calls = traced(root, INIT, root / "repo")
    expect_no_violation(before, calls, initialised, seeds=4)
