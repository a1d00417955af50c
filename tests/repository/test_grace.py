"""What gc leaves alone for a while: what is young, was pruned lately, or is being read."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.errors import UsageError
from mergepipe.ids import ObjectId
from mergepipe.packs.format import Content
from mergepipe.packs.reader import pack_ids, pack_key, read_footer
from mergepipe.repository import gc_round, leases
from mergepipe.repository.durations import format_duration, parse_duration
from mergepipe.repository.reflog import Signature
from mergepipe.repository.retention import Retention

from .checkpoints import commit, new_repository, write_model
from .collecting import content, forget, model, on_disk, packs_bytes, sparse, weights

DAY_S = 86400


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with new_repository(tmp_path / "repo") as opened:
        yield opened


def age(repo: Repository, days: float, packs: set[bytes] | None = None) -> set[bytes]:
    """Make packs (all, if none are named) look as if written so long ago; returns which."""
    chosen = {bytes(pack) for pack in pack_ids(repo.store)} if packs is None else packs
    at = time.time() - days * DAY_S
    for pack in pack_ids(repo.store):
        if pack in chosen:
            os.utime(repo.directory / pack_key(pack), (at, at))
    return chosen


def back(repo: Repository, identity: ObjectId) -> None:
    repo.refs.update("refs/heads/back", identity, expected=None, who=repo.signature(), why="")


def test_what_is_young_stays_and_is_told(repo: Repository, tmp_path: Path) -> None:
    commit(repo, model(tmp_path, "a"), "a")
    lost = commit(repo, model(tmp_path, "b"), "b")
    forget(repo, "b")
    age(repo, 13)
    size = packs_bytes(repo)
    before = time.time()
    done = repo.gc()
    assert (done.freed_bytes, packs_bytes(repo)) == (0, size)
    assert done.kept_bytes > 70_000
    # Aged by 13 days of 14 just before: so old, and by what this machine took meanwhile.
    assert before - DAY_S / 2 < done.kept_until_s - DAY_S <= before + 1
    back(repo, lost)
    assert content(repo, "back", tmp_path) == on_disk(tmp_path / "b")
    assert repo.gc().kept_bytes == 0  # a ref needs it again
    forget(repo, "back")
    age(repo, 15)
    assert repo.gc().freed_bytes > 70_000


def test_the_length_is_a_setting_and_an_argument(repo: Repository, tmp_path: Path) -> None:
    commit(repo, model(tmp_path, "a"), "a")
    commit(repo, model(tmp_path, "b"), "b")
    forget(repo, "b")
    age(repo, 3)
    assert repo.gc(grace_s=4 * DAY_S).freed_bytes == 0
    assert repo.gc(grace_s=2 * DAY_S, dry_run=True).freed_bytes > 70_000
    repo.configure("gc.grace", "2 days")
    assert 'grace = "2 days"' in (repo.directory / "config.toml").read_text()
    assert repo.gc().freed_bytes > 70_000


def test_a_young_commit_keeps_what_it_leans_on(repo: Repository, tmp_path: Path) -> None:
    """Else what grace keeps could not be read."""
    base = weights()
    commit(repo, model(tmp_path, "a"), "a")
    commit(repo, write_model(tmp_path / "base", {"w": base}), "base")
    before = age(repo, 40)
    tuned = base.copy()
    tuned[::97] += 1e-3
    write_model(tmp_path / "tuned", {"w": tuned})
    young = repo.commit(tmp_path / "tuned", branch="tuned", base="base").commit
    assert repo.objects.commit(young).leans_on is not None
    for name in ("base", "tuned"):
        forget(repo, name)
    assert repo.gc().freed_bytes == 0
    back(repo, young)
    assert content(repo, "back", tmp_path) == on_disk(tmp_path / "tuned")
    forget(repo, "back")
    assert {bytes(pack) for pack in pack_ids(repo.store)} > before
    assert repo.gc(grace_s=0).freed_bytes > 70_000


def test_a_clock_that_was_wrong_deletes_nothing(repo: Repository, tmp_path: Path) -> None:
    commit(repo, model(tmp_path, "a"), "a")
    commit(repo, model(tmp_path, "b"), "b")
    forget(repo, "b")
    age(repo, -4000)
    assert repo.gc().freed_bytes == 0
    assert repo.gc(grace_s=0).freed_bytes > 70_000


def test_rewriting_makes_nothing_younger(repo: Repository, tmp_path: Path) -> None:
    sparse(repo, tmp_path)
    age(repo, 20)
    assert repo.gc().packs_rewritten
    times = [repo.local.modified(pack_key(pack)) or 0 for pack in pack_ids(repo.store)]
    assert max(times) < time.time() - 19 * DAY_S


def test_small_packs_are_not_joined_for_ever(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that hold what may go soon stay as they are, or it would never grow old."""
    monkeypatch.setattr(gc_round, "MANY_SMALL_PACKS", 2)
    for name in "abc":
        commit(repo, model(tmp_path, name), name)
    forget(repo, "c")
    repo.gc()
    age(repo, 20)
    assert repo.gc().freed_bytes > 70_000
    assert repo.gc().kept_bytes == 0


def test_what_was_pruned_comes_back_within_the_time(repo: Repository, tmp_path: Path) -> None:
    old = commit(repo, model(tmp_path, "old"), "main")
    commit(repo, model(tmp_path, "new"), "main")
    for name in repo.refs.names():
        assert repo.refs.reflog is not None
        repo.refs.reflog.remove(name)
    age(repo, 40)
    told = repo.prune(retention=Retention(last=1), grace_s=None, dry_run=True)
    assert (told.commits, told.collected.freed_bytes) == ((old,), 0)
    done = repo.prune(retention=Retention(last=1), grace_s=None)
    assert done.collected.freed_bytes == 0
    assert done.collected.kept_bytes > 70_000
    assert content(repo, old.hex(), tmp_path) == on_disk(tmp_path / "old")
    assert repo.gc(grace_s=0).freed_bytes > 70_000
    assert repo.log()


def test_rewritten_records_lie_in_the_order_of_the_newest_refs(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc_round, "SPARSE_SHARE", 1.01)  # everything
    # y is the newest, x the oldest.
    for name, when in (("x", 1), ("y", 3), ("z", 2)):
        repo.who = Signature("Ada <ada@example.org>", when, 0)
        commit(repo, model(tmp_path, name, weights(5000)), name)
    repo.gc(grace_s=0)
    [records] = [
        found
        for kind, found in (read_footer(repo.store, pack) for pack in pack_ids(repo.store))
        if kind is Content.BLOCKS
    ]
    expected = [
        block
        for name in "yzx"
        for tensor in repo.snapshot_of(name).tensor_ids()
        for block in repo.objects.tensor(tensor).block_ids()
    ]
    assert [header.id for header, _ in records] == expected


def test_a_lease_keeps_what_is_read_until_its_process_ends(
    repo: Repository, tmp_path: Path
) -> None:
    commit(repo, model(tmp_path, "a"), "a")
    read = commit(repo, model(tmp_path, "b"), "b")
    forget(repo, "b")
    program = (
        "import sys, time; from pathlib import Path; from mergepipe.repository import leases;"
        "held = leases.take(Path(sys.argv[1]), 'mp checkout', time.time(),"
        " [bytes.fromhex(sys.argv[2])]); print('held', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(repo.directory), read.hex()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None and child.stdout is not None
    with child:
        assert child.stdout.readline() == b"held\n"
        [lease] = leases.running(repo.directory, time.time())
        assert (lease.pid, lease.command) == (child.pid, "mp checkout")
        assert repo.gc(grace_s=0).freed_bytes == 0
        later = time.time() + leases.LONGEST_S + 1
        assert leases.running(repo.directory, later) == []  # a process that hangs holds nothing
        child.kill()
    assert leases.running(repo.directory, time.time()) == []
    assert repo.gc(grace_s=0).freed_bytes > 70_000
    assert list((repo.directory / "leases").iterdir()) == []


def test_gc_says_who_works(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MP_LOCK_TIMEOUT", "0.1")
    with Repository.open(tmp_path / "repo") as other:
        other.command = "mp merge"
        with other.writing(), pytest.raises(Exception, match=r"mp merge \(process \d+"):
            repo.gc()


@pytest.mark.parametrize("seen", ["nonsense", "{}", '{"version":1}'])
def test_a_damaged_lease_is_in_nobodys_way(repo: Repository, seen: str) -> None:
    folder = repo.directory / "leases"
    folder.mkdir(exist_ok=True)
    (folder / "1-x").write_text(seen)
    repo.gc()
    assert list(folder.iterdir()) == []


def test_lengths_of_time() -> None:
    for text, seconds in (
        ("now", 0),
        ("0", 0),
        ("5s", 5),
        ("2 weeks", 14 * DAY_S),
        ("2.weeks.ago", 14 * DAY_S),
        ("36h", 36 * 3600),
        ("1 Month", 30 * DAY_S),
    ):
        assert parse_duration(text) == seconds
    for text in ("", "5", "ms", "5 ms", "-1d", "1 fortnight"):
        with pytest.raises(UsageError):
            parse_duration(text)
    shown = (14 * DAY_S, 10 * DAY_S, 3600, 61, 0.5)
    told = ["2 weeks", "10 days", "1 hour", "1 minute", "less than a second"]
    assert [format_duration(each) for each in shown] == told
