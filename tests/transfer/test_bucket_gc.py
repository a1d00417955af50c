"""gc of a bucket on a real S3 server: what goes, when, and who waits for whom."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("moto", reason="pip install 'mergepipe[test]'")

from mergepipe.api import Repository, remotes
from mergepipe.api.cloning import clone
from mergepipe.bytestore import bucket_turns
from mergepipe.bytestore.bucket_turns import COLLECTING, LEASES, Collecting, Writing
from mergepipe.errors import Locked, RemoteUnreachable, UsageError
from mergepipe.packs.reader import pack_ids
from mergepipe.transfer.bucket_gc import UNNEEDED
from mergepipe.transfer.credentials import Credentials
from mergepipe.transfer.push_refs import PushOptions
from tests.bytestore.s3 import Bucket, serving
from tests.engine.merging import WHO, random_model, repository, write_model

DAY_S = 86_400


@pytest.fixture(scope="module")
def make_bucket() -> Iterator[Callable[[], Bucket]]:
    with serving() as make:
        yield make


@pytest.fixture
def bucket(make_bucket: Callable[[], Bucket]) -> Bucket:
    return make_bucket()


@pytest.fixture
def pushed(tmp_path: Path, bucket: Bucket) -> Iterator[Repository]:
    """A base and two of its fine-tunes, all of it in the bucket `origin`."""
    base = random_model(0)
    with repository(tmp_path / "repo", block_size=4096, codec="auto") as repo:
        repo.commit(write_model(tmp_path / "base", base), branch="base", message="base")
        for seed, name in enumerate(("kept", "gone"), 1):
            files = write_model(tmp_path / name, random_model(seed, near=base))
            repo.commit(files, branch=name, base="base", message=name)
            push(repo, bucket, "base", name)
        yield repo


def url(bucket: Bucket) -> str:
    return f"s3://{bucket.name}/models/llama"


def credentials(bucket: Bucket) -> Credentials:
    return Credentials(bucket.environment())


def push(repo: Repository, bucket: Bucket, *refs: str, delete: bool = False) -> None:
    if "origin" not in repo.config.remote:
        remotes.add(repo, "origin", url(bucket))
    options = PushOptions(refs=refs, delete=delete)
    repo.push("origin", options, credentials=credentials(bucket))


def collect(repo: Repository, bucket: Bucket, grace_s: float, *, dry_run: bool = False):
    return repo.gc_bucket(
        "origin", grace_s=grace_s, dry_run=dry_run, credentials=credentials(bucket)
    )


def test_what_a_ref_needs_stays_and_the_rest_goes_after_its_grace(pushed, bucket, tmp_path):
    with bucket.store() as store:
        before = set(pack_ids(store))
        assert collect(pushed, bucket, 0).packs_removed == 0
        push(pushed, bucket, "gone", delete=True)
        told = collect(pushed, bucket, DAY_S, dry_run=True)
        assert told.dry_run and told.packs_removed == 0 and told.kept_bytes > 0
        assert not store.get(UNNEEDED)
        noted = collect(pushed, bucket, DAY_S)
        assert noted.packs_removed == 0 and noted.kept_bytes == told.kept_bytes
        assert abs(noted.kept_until_s - time.time() - DAY_S) < DAY_S / 2
        assert set(pack_ids(store)) == before
        while not (done := collect(pushed, bucket, 1e-3)).packs_removed:
            pass  # until the clock of the bucket, of whole seconds, has moved on
        assert done.packs_removed == len(before - set(pack_ids(store)))
        assert done.freed_bytes == noted.kept_bytes
        assert not store.get(UNNEEDED)
    clone(url(bucket), tmp_path / "clone", credentials=credentials(bucket), who=WHO)
    with Repository.open(tmp_path / "clone", who=WHO) as repo:
        assert repo.fsck(read_data=True).ok
        assert repo.resolve("origin/kept") == pushed.resolve("kept")


def test_what_comes_to_be_needed_meanwhile_is_not_removed(pushed, bucket, tmp_path):
    push(pushed, bucket, "gone", delete=True)
    assert collect(pushed, bucket, DAY_S).kept_bytes > 0
    push(pushed, bucket, "gone")  # nothing is sent: all of it is there
    with bucket.store() as store:
        assert store.get(UNNEEDED)
        assert collect(pushed, bucket, 0).packs_removed == 0
        assert not store.get(UNNEEDED)


def test_what_went_is_sent_again_by_the_next_push(pushed, bucket, tmp_path):
    push(pushed, bucket, "gone", delete=True)
    assert collect(pushed, bucket, 0).packs_removed > 0
    push(pushed, bucket, "gone")
    clone(url(bucket), tmp_path / "clone", credentials=credentials(bucket), who=WHO)
    with Repository.open(tmp_path / "clone", who=WHO) as repo:
        assert repo.fsck(read_data=True).ok
        assert repo.resolve("origin/gone") == pushed.resolve("gone")


def test_writers_and_gc_wait_for_each_other(pushed, bucket):
    with bucket.store() as store:
        with Writing(store, "merge"):
            with pytest.raises(Locked, match=r"somebody writes to .*: merge"):
                collect(pushed, bucket, 0)
            with Writing(store, "push"):
                pass  # of these there may be many
        collect(pushed, bucket, 0)
        with Collecting(store, "gc"):
            with pytest.raises(Locked, match="gc is at work"):
                push(pushed, bucket, "kept")
            with pytest.raises(Locked, match="another gc"):
                collect(pushed, bucket, 0)
        push(pushed, bucket, "kept")
        assert not store.dated(LEASES) and store.get(COLLECTING) is None


def test_who_died_stops_nobody_for_long(pushed, bucket, monkeypatch):
    with bucket.store() as store:
        store.put(f"{LEASES}{'0' * 32}", b'{"mark":"","pid":1,"host":"h","command":"merge"}')
        with pytest.raises(Locked, match=r"merge \(process 1 on h\)"):
            collect(pushed, bucket, 0)
        monkeypatch.setattr(bucket_turns, "VOID_AFTER_S", -60.0)
        store.put(COLLECTING, b"of one that was killed")
        push(pushed, bucket, "kept")
        with Collecting(store, "gc"):
            assert not store.dated(LEASES)


def test_a_writer_that_stood_still_names_nothing(bucket):
    with bucket.store() as store, Writing(store, "push") as turn:
        turn.check()
        turn._renewed_s -= bucket_turns.VOID_AFTER_S
        with pytest.raises(RemoteUnreachable, match="could not be told"):
            turn.check()


def test_only_a_bucket_is_collected_from_afar(tmp_path):
    with repository(tmp_path / "repo") as repo:
        remotes.add(repo, "there", str(tmp_path / "there"))
        with pytest.raises(UsageError, match="no bucket"):
            repo.gc_bucket("there")
