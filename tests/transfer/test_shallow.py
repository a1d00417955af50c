"""Shallow clones: the newest commits, without what lies behind them, on every kind of remote."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from mergepipe.api import Repository
from mergepipe.errors import Diverged, MergepipeError, RevisionNotFound, UsageError
from mergepipe.ids import ObjectId
from mergepipe.repository.absent import KEY, change_absent, read_absent
from mergepipe.repository.gc import Collected
from mergepipe.repository.problems import NoteKind
from mergepipe.transfer.fetch import FetchOptions, fetch
from mergepipe.transfer.horizon import Reach
from mergepipe.transfer.push_refs import Move, PushOptions
from mergepipe.transfer.receiving import ReceivingStore
from tests.repository.checkpoints import WHO

from .remotes import Family, clone_of, same_models
from .test_fetch import bucket

EXPERTS = ("code", "math")


def a_day(family: Family) -> ObjectId:
    """Both experts are trained on, and merged into what is served; returns that commit."""
    for name in EXPERTS:
        known = f"refs/heads/{name}" in family.repo.refs.list()
        family.tune(name, None if known else "main")  # type: ignore[arg-type]
    plan = family.repo.plan(base="main", experts=EXPERTS, method="linear")
    return family.repo.merge(plan, branch="prod").commit


@pytest.fixture
def days(family: Family) -> Family:
    """Three days: main, code, math, and prod of three merges."""
    for _ in range(3):
        a_day(family)
    return family


@pytest.fixture
def served(days: Family, tmp_path: Path) -> Iterator[Repository]:
    with clone_of(days, tmp_path, branch="prod", depth=1) as repo:
        yield repo


def messages(repo: Repository, revision: str = "HEAD") -> int:
    return len(list(repo.log(revision)))


def deepened(repo: Repository, reach: Reach) -> None:
    repo.fetch(options=FetchOptions(("prod",), reach=reach))


def is_whole(repo: Repository) -> bool:
    report = repo.fsck(read_data=True)
    return report.ok and not any(note.kind is NoteKind.SHALLOW for note in report.notes)


def test_only_what_is_served(days: Family, served: Repository, tmp_path: Path) -> None:
    tip = served.resolve("prod")
    assert (messages(served), messages(days.repo, "prod")) == (1, 10)
    assert served.objects.commit(tip).parents == ()
    named = set(days.repo.objects.commit(tip).parents)
    assert set(served.objects.absent_of(tip)) == named - {days.repo.resolve("main")}
    assert same_models(days.repo, served, tmp_path, "prod")
    commits = [each for each in days.repo.log() if served.objects.has(each[0])]
    assert [each.message for _, each in commits] == ["main"]  # the base, and no expert
    report = served.fsck(read_data=True)
    assert report.ok
    assert [note.kind for note in report.notes] == [NoteKind.SHALLOW]
    assert isinstance(served.gc(grace_s=0), Collected)
    assert served.fsck(read_data=True).ok
    assert same_models(days.repo, served, tmp_path / "again", "prod")
    with pytest.raises(RevisionNotFound, match="history ends") as caught:
        served.resolve("prod~1")
    assert "--unshallow" in caught.value.hint
    with pytest.raises(MergepipeError, match="models are not here") as missing:
        served.replay("prod")
    assert "--unshallow" in missing.value.hint
    assert not served.storage.lacking


def test_from_where_nobody_computes(days: Family, here: Repository, tmp_path: Path) -> None:
    options = FetchOptions(("prod",), reach=Reach(2))
    with bucket(days.repo) as store:
        fetch(here, "origin", store, options)
    here.branch("prod", "origin/prod")
    assert [each for each, _ in here.log("prod", first_parent=True)] == [
        each for each, _ in days.repo.log("prod", first_parent=True)
    ][:2]
    assert here.fsck(read_data=True).ok
    assert same_models(days.repo, here, tmp_path, "prod", "prod~1")


@pytest.mark.parametrize(
    "steps",
    [
        (Reach(2), Reach(whole=True)),
        (Reach(deepen=1), Reach(deepen=1), Reach(whole=True)),
        (Reach(1), Reach(99)),
    ],
)
def test_history_comes_later(
    days: Family, served: Repository, tmp_path: Path, steps: tuple[Reach, ...]
) -> None:
    before = messages(served)
    for reach in steps:
        deepened(served, reach)
        assert served.fsck(read_data=True).ok
        after = messages(served)
        assert after > before or reach == Reach(1)
        before = after
    assert messages(served) == messages(days.repo, "prod")
    assert read_absent(served.store) == frozenset()
    assert is_whole(served)
    assert same_models(days.repo, served, tmp_path, "prod", "prod~2", "prod^2")


def test_less_deep_takes_nothing_away(served: Repository) -> None:
    deepened(served, Reach(3))
    before = messages(served)
    deepened(served, Reach(1))
    assert messages(served) == before


def test_the_next_days_come_alone(days: Family, served: Repository, tmp_path: Path) -> None:
    for _ in range(2):
        a_day(days)
    pulled = served.pull()
    assert pulled.new == days.repo.resolve("prod")
    assert len(list(served.log("prod", first_parent=True))) == 3
    assert messages(served) == 4  # and the base: no expert with all that it descends from
    assert same_models(days.repo, served, tmp_path, "prod", "prod~1")
    assert served.status() == ()
    served.gc(grace_s=0)
    assert served.fsck(read_data=True).ok


def test_a_branch_from_elsewhere_comes_as_deep(days: Family, served: Repository) -> None:
    days.repo.branch("other", "code")
    served.fetch(options=FetchOptions(("other",)))
    assert messages(served, "origin/other") == 1
    assert served.fsck(read_data=True).ok


def test_a_single_deep_fetch_parts_histories(days: Family, served: Repository) -> None:
    for _ in range(2):
        a_day(days)
    deepened(served, Reach(1))
    with pytest.raises(Diverged) as caught:
        served.pull()
    assert "--unshallow" in caught.value.hint
    deepened(served, Reach(whole=True))
    assert served.pull().new == days.repo.resolve("prod")
    assert served.config.remote["origin"].depth == 0
    assert is_whole(served)


def test_back_to_where_it_came_from(days: Family, served: Repository, tmp_path: Path) -> None:
    mine = served.commit(days.write("mine", days.base), branch="prod", message="mine").commit
    pushed = served.push(None, PushOptions(("prod",))).pushed
    assert [each.move for each in pushed.refs] == [Move.FORWARD]
    assert pushed.commits == 1
    assert days.repo.resolve("prod") == mine
    assert is_whole(days.repo)
    assert same_models(served, days.repo, tmp_path, "prod")


def test_to_where_its_history_is_not(served: Repository, there: Repository, tmp_path: Path) -> None:
    with pytest.raises(MergepipeError, match="not in this shallow clone") as caught:
        served.push(str(tmp_path / "there"), PushOptions(("prod",)))
    assert "--unshallow" in caught.value.hint
    assert "--release" in caught.value.hint
    assert there.refs.list() == {}
    served.push(str(tmp_path / "there"), PushOptions(("prod",), release=True))
    assert is_whole(there)
    deepened(served, Reach(whole=True))
    served.push(str(tmp_path / "there"), PushOptions(("prod:history",)))
    assert messages(there, "history") == messages(served)


def test_a_clone_of_a_shallow_clone(served: Repository, tmp_path: Path) -> None:
    Repository.clone(str(tmp_path / "clone"), tmp_path / "second", who=WHO)
    with Repository.open(tmp_path / "second", who=WHO) as second:
        assert read_absent(second.store) == read_absent(served.store)
        assert messages(second) == 1
        assert second.fsck(read_data=True).ok
        deepened(served, Reach(whole=True))
        second.fetch(options=FetchOptions(reach=Reach(whole=True)))
        assert messages(second) == messages(served)
        assert is_whole(second)


def test_what_is_pushed_to_a_shallow_repository(
    days: Family, served: Repository, tmp_path: Path
) -> None:
    a_day(days)
    days.repo.push(str(tmp_path / "clone"), PushOptions(("prod:next",)))
    assert served.resolve("next") == days.repo.resolve("prod")
    assert served.fsck(read_data=True).ok
    days.repo.push(str(tmp_path / "clone"), PushOptions(("code",)))
    served.gc(grace_s=0)
    assert served.fsck(read_data=True).ok
    assert same_models(days.repo, served, tmp_path, "code")


def test_many_lines_and_lazily(days: Family, tmp_path: Path) -> None:
    with clone_of(days, tmp_path, depth=1, lazy=True) as repo:
        names = {name.removeprefix("refs/remotes/origin/") for name in repo.refs.list()}
        assert names >= {"main", "prod", *EXPERTS}
        # Experts that are here do not count as parents behind the day before, which is not.
        assert messages(repo, "origin/prod") == 1
        assert messages(repo, "origin/code") == 1
        assert repo.fsck().ok
        plan = repo.plan(base="main", experts=["origin/code", "origin/math"], method="linear")
        assert repo.merge(plan, branch="mine").commit
        assert repo.fsck().ok


def test_the_same_clone_again(days: Family, tmp_path: Path) -> None:
    place = tmp_path / "clone"
    for _ in range(2):
        cloned = Repository.clone(str(days.folder / "here"), place, branch="prod", depth=1, who=WHO)
    assert cloned.stood
    with pytest.raises(UsageError):
        Repository.clone(str(days.folder / "here"), place, branch="prod", who=WHO)


def test_a_reach_is_one_thing() -> None:
    for fields in ({"limit": 0}, {"limit": 1, "deepen": 1}, {"deepen": 1, "whole": True}):
        with pytest.raises(UsageError):
            Reach(**fields)  # type: ignore[arg-type]
    assert replace(Reach(2), limit=None) == Reach()


def test_what_is_absent_is_forgotten_with_who_named_it(served: Repository) -> None:
    for name in list(served.refs.list()):
        if name != "refs/heads/prod":
            served.refs.delete(name, expected=served.refs.read(name), who=WHO, why="test")
    stranger = ObjectId(b"\7" * 32)
    with served.refs.locked():
        change_absent(served.store, gone=[stranger])
    served.gc(grace_s=0)
    assert stranger not in read_absent(served.store)
    assert len(read_absent(served.store)) == 3


def test_a_damaged_line_is_found(days: Family, served: Repository) -> None:
    path = served.directory / KEY
    path.write_text("nonsense\n" + "".join(path.read_text().splitlines(keepends=True)[1:]))
    problems = served.fsck().problems
    assert {problem.id for problem in problems} >= {KEY}
    served.fsck(repair=True)
    served.fetch(heal=True)
    assert served.fsck(read_data=True).ok
    with ReceivingStore(served) as store:
        # What the damaged line named comes; if it was the tip of all the others, no line is left.
        assert store.get(KEY) == (path.read_bytes() if path.exists() else None)
