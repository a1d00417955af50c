"""Checking data and making profiles, by processes, finds what threads find."""

import pytest

from mergepipe.executors.processes import ProcessExecutor
from tests.engine.merging import EXPERTS
from tests.executors.family import Killing, copied, family, leftovers
from tests.executors.incoming import SMALL_BYTES, damage, small_segments


@pytest.fixture
def repo(tmp_path, monkeypatch):
    with family(tmp_path) as repo:
        small_segments(monkeypatch, repo)
        yield repo


def checked(repo, executor):
    """What fsck finds in all data, and how often it was told how far it is."""
    with repo.on(executor):
        report = repo.fsck(read_data=True)
    return sorted((one.kind, one.id, one.detail) for one in report.problems)


def test_processes_check_all_data(repo):
    with ProcessExecutor(2) as executor:
        assert checked(repo, executor) == []
        killing = Killing(executor, {0, 3, "last"})
        assert checked(repo, killing) == []
        assert killing.killed
    assert not leftovers(repo)


def test_processes_find_the_damage_that_threads_find(repo, tmp_path):
    damage(repo, EXPERTS[0], "layer.30.w")
    damage(repo, EXPERTS[1], "layer.07.w", copy=True)
    damage(repo, "base", "layer.45.w")
    with copied(repo, tmp_path / "other") as other:
        found = checked(other, "processes:2")
        assert found == checked(repo, "threads")
        assert len(found) > 3


def test_processes_make_the_profile_that_threads_make(repo, tmp_path):
    with copied(repo, tmp_path / "other") as other:
        with repo.on("threads"):
            profile = repo.analyze(EXPERTS[0], EXPERTS[1])
        with ProcessExecutor(2) as executor, other.on(Killing(executor, {1})):
            assert other.analyze(EXPERTS[0], EXPERTS[1]) == profile
        assert other.profile_bytes >= repo.profile_bytes > SMALL_BYTES


def test_a_profile_is_made_of_the_copy_that_is_whole(repo, tmp_path):
    with repo.on("threads"):
        profile = repo.analyze(EXPERTS[0], EXPERTS[1])
    with copied(repo, tmp_path / "other") as other:
        other.storage.index.uncache(lambda key, value: key.startswith(b"p/"))
        damage(other, EXPERTS[1], "layer.07.w", copy=True)
        with other.on("processes:2"):
            assert other.analyze(EXPERTS[0], EXPERTS[1]) == profile
