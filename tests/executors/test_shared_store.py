"""Merges of a lazy clone whose blocks go to its remote: the same, and none of it in the clone."""

import contextlib
import os

import pytest

from mergepipe.api import Repository
from mergepipe.api.cloning import clone
from mergepipe.errors import Locked
from mergepipe.executors.processes import ProcessExecutor
from mergepipe.transfer.credentials import Credentials
from mergepipe.transfer.push_refs import PushOptions
from tests.engine.merging import EXPERTS, WHO, random_model, write_model
from tests.executors.family import SHAPES, Killing, block_packs, copied, family, leftovers, merged

EVERYTHING = PushOptions(all_branches=True)


def as_path(repo, monkeypatch):
    """The repository itself, as a remote."""
    return contextlib.nullcontext(str(repo.directory))


@contextlib.contextmanager
def as_bucket(source, monkeypatch):
    """What it has, in a bucket of a real S3 server, with keys in the environment."""
    pytest.importorskip("moto")
    pytest.importorskip("obstore")
    from tests.bytestore import s3

    with s3.serving() as make:
        bucket = make()
        for name, value in bucket.environment().items():
            monkeypatch.setenv(name, value)
        url = f"s3://{bucket.name}/models/llama"
        with Repository.open(source.directory, who=WHO) as repo:
            repo.push(url, EVERYTHING, credentials=own(None))
        yield url


@contextlib.contextmanager
def lazy(url, path, blocks="remote"):
    """A lazy clone of it, whose merges write there."""
    clone(url, path, lazy=True, credentials=own(None), who=WHO)
    with Repository.open(path, who=WHO, credentials=own) as repo:
        for name in ("base", *EXPERTS):
            repo.branch(name, f"origin/{name}", force=name in repo.branches())
        repo.configure("merge.blocks", blocks)
        yield repo


def own(directory):
    """Who we are to remotes: as the environment says."""
    return Credentials(dict(os.environ))


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The family's folder, and what threads make of it on local files."""
    folder = tmp_path_factory.mktemp("family")
    with family(folder) as repo, copied(repo, folder / "merged") as other:
        made, _ = merged(other, "threads")
    return folder / "repo", made


@pytest.fixture
def origin(here, tmp_path):
    """A copy of the family's repository, that becomes a remote, and what is to come of it."""
    with Repository.open(here[0], who=WHO) as repo, copied(repo, tmp_path / "repo") as origin:
        pass
    return origin, here[1]


PLACES = {"path": as_path, "bucket": as_bucket}


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("on", ["threads", "processes:2"])
def test_blocks_go_to_the_remote_and_are_the_same(kind, on, origin, tmp_path, monkeypatch):
    source, threads = origin
    there = PLACES[kind](source, monkeypatch)
    with there as url, lazy(url, tmp_path / "clone") as repo:
        made, result = merged(repo, on)
        assert (made.snapshot, made.manifest, made.plan) == (
            threads.snapshot,
            threads.manifest,
            threads.plan,
        )
        assert (made.expert_bytes, made.base_bytes) == (threads.expert_bytes, threads.base_bytes)
        assert not block_packs(repo) and repo.store.received_bytes < 10_000
        assert repo.fsck(read_data=True).ok  # it knows of all packs there, before any fetch
        pushed = repo.push(
            "origin", PushOptions(refs=(result.branch,)), credentials=own(None)
        ).pushed
        assert pushed.blocks == 0
        assert repo.replay("HEAD").same
        assert not leftovers(repo)
    if kind == "path":
        with Repository.open(tmp_path / "repo", who=WHO) as origin:
            assert origin.fsck(read_data=True).ok
            assert set(threads.packs) <= set(block_packs(origin))
            assert not leftovers(origin)


@pytest.mark.parametrize("kind", PLACES)
def test_workers_that_are_killed_leave_nothing(kind, origin, tmp_path, monkeypatch):
    source, threads = origin
    there = PLACES[kind](source, monkeypatch)
    with there as url, lazy(url, tmp_path / "clone", "auto") as repo:
        with ProcessExecutor(2) as executor:
            killing = Killing(executor, {0, 2, "last"})
            made, result = merged(repo, killing)
        assert killing.killed and result.costs.attempts
        assert (made.snapshot, made.expert_bytes) == (threads.snapshot, threads.expert_bytes)
        assert not block_packs(repo) and not leftovers(repo)
    if kind == "path":
        with Repository.open(tmp_path / "repo", who=WHO) as origin:
            assert origin.fsck(read_data=True).ok
            assert set(threads.packs) <= set(block_packs(origin))
            with origin.transactions.begin():
                pass  # a worker that was slow to die is tidied up by whoever writes next
            assert not leftovers(origin)


def test_what_only_the_clone_has_is_done_by_the_coordinator(origin, tmp_path, monkeypatch):
    values = random_model(9, near=random_model(0, shapes=SHAPES), shapes=SHAPES, share=0.8)
    with as_path(origin[0], monkeypatch) as url, lazy(url, tmp_path / "clone", "auto") as repo:
        own_model = write_model(tmp_path / "own", values)
        repo.commit(own_model, branch="e1", base="base")
        _, result = merged(repo, "processes:2")
        assert result.costs.attempts
        assert repo.replay("HEAD").same and repo.fsck(read_data=True).ok


def test_gc_of_the_shared_store_waits_and_spares_what_is_not_pushed(origin, tmp_path, monkeypatch):
    with as_path(origin[0], monkeypatch) as url, lazy(url, tmp_path / "clone") as repo:

        class Collecting(Killing):
            """Somebody runs gc in the shared store while the merge is under way."""

            def _after(self, number):
                if number in self.at:
                    self.at.discard(number)
                    with (
                        monkeypatch.context() as impatient,
                        Repository.open(tmp_path / "repo", who=WHO) as origin,
                    ):
                        impatient.setenv("MP_LOCK_TIMEOUT", "0.05")
                        with pytest.raises(Locked):
                            origin.gc()
                        self.killed.append(number)

        with ProcessExecutor(1) as executor:
            collecting = Collecting(executor, {1})
            merged(repo, collecting)
        assert collecting.killed
        with Repository.open(tmp_path / "repo", who=WHO) as origin:
            assert origin.gc().kept_bytes
        assert repo.replay("HEAD").same and repo.fsck(read_data=True).ok
        assert repo.push("origin", credentials=own(None)).pushed.blocks == 0
