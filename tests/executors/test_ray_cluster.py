"""Actors of a real Ray make what threads make, whatever happens to them."""

import os

import pytest

from mergepipe.checkpoints import layout
from mergepipe.errors import MergepipeError
from mergepipe.executors import ray_cluster
from mergepipe.executors.ray_cluster import RayExecutor
from tests.engine.merging import EXPERTS, repository
from tests.executors.family import Killing, block_packs, copied, family, leftovers, merged
from tests.executors.incoming import committed, incoming, small_segments
from tests.executors.ray_sessions import small_ray

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster():
    """One small Ray for all tests here."""
    with small_ray(num_cpus=2):
        yield


def test_actors_make_the_ids_and_packs_that_threads_make(cluster, tmp_path):
    repo = family(tmp_path)
    other, killed = copied(repo, tmp_path / "other"), copied(repo, tmp_path / "killed")
    threads, _ = merged(repo, "threads")
    with RayExecutor("", 2) as executor:
        actors, result = merged(other, executor)
        assert actors == threads and result.costs.attempts == ()
        pids = executor.pids
        again, _ = merged(other, executor)
        assert executor.pids == pids  # who was started once goes on: nothing is waited for
        assert again.snapshot == threads.snapshot and not again.packs
        killing = Killing(executor, {0, 2, "last"})
        survived, result = merged(killed, killing)
        assert killing.killed and survived == threads and result.costs.attempts
        assert killed.fsck(read_data=True).ok
    for one in (repo, other, killed):
        assert not leftovers(one)


def test_actors_commit_check_and_profile_as_threads_do(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "PIECE_BYTES", 64 << 10)
    models = incoming(tmp_path)
    one, other = (repository(tmp_path / name, block_size=4096, codec="auto") for name in "ab")
    small_segments(monkeypatch, one)
    with one, other, RayExecutor("", 2) as executor:
        threads = committed(one, models, "threads")
        assert committed(other, models, executor) == threads
        assert block_packs(one) == block_packs(other)
        with other.on(executor):
            assert other.fsck(read_data=True).ok
            profile = other.analyze(EXPERTS[0], EXPERTS[1])
        assert one.analyze(EXPERTS[0], EXPERTS[1]) == profile
        assert not leftovers(one) and not leftovers(other)


def test_what_is_set_for_a_ray_of_our_own_is_set_for_it_alone(monkeypatch):
    name, other = list(ray_cluster._QUIET)[:2]
    monkeypatch.setenv(name, "7")
    monkeypatch.delenv(other, raising=False)
    before = dict(os.environ)
    with ray_cluster._quiet():
        assert os.environ[name] == "7"  # the user's
        assert os.environ[other] == ray_cluster._QUIET[other]
    assert dict(os.environ) == before


def test_a_repository_that_workers_do_not_see_is_refused(cluster, tmp_path, monkeypatch):
    from mergepipe.executors.places import FilesPlace

    with family(tmp_path) as repo, RayExecutor("", 1) as executor:
        elsewhere = FilesPlace(str(tmp_path / "elsewhere"), "tmp/none")
        monkeypatch.setattr(type(repo), "place", lambda self, writes: elsewhere)
        with pytest.raises(MergepipeError, match="does not see the repository"):
            merged(repo, executor)


@pytest.mark.slow
def test_a_node_that_is_removed_changes_nothing(tmp_path):
    """Two nodes of a worker each; one goes while it works."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.shutdown()
    head = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    try:
        second = nodes.add_node(num_cpus=1, object_store_memory=100 << 20)
        ray.init(address=nodes.address, log_to_driver=False)
        repo = family(tmp_path)
        other = copied(repo, tmp_path / "other")
        threads, _ = merged(repo, "threads")

        class Removing(Killing):
            def _after(self, number):
                if number in self.at:
                    self.at.discard(number)
                    nodes.remove_node(second, allow_graceful=False)

        with RayExecutor("", 2) as executor:
            survived, _ = merged(other, Removing(executor, {1}))
        assert survived == threads
        assert other.fsck(read_data=True).ok
    finally:
        ray.shutdown()
        nodes.shutdown()
