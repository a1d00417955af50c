"""A push into a repository whose packs were changed behind its back: healed, never leaned on."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.packs import wholeness
from mergepipe.packs.reader import pack_ids, pack_key
from mergepipe.packs.wholeness import changed_packs, check_changed
from mergepipe.transfer.push_refs import PushOptions
from tests.repository.checkpoints import commit, new_repository, write_model
from tests.repository.collecting import content, on_disk, weights


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Repository]:
    """A repository with a model; `good` is a clone of it."""
    with new_repository(tmp_path / "there") as repo:
        commit(repo, write_model(tmp_path / "a", {"w": weights()}, config_json="{}"), "main")
        Repository.clone(str(tmp_path / "there"), tmp_path / "good")
        yield repo


def damage(repo: Repository) -> None:
    """Flip bytes in the middle of the largest pack, as somebody else would."""
    pack = max(pack_ids(repo.store), key=lambda one: repo.store.size(pack_key(one)) or 0)
    path = repo.directory / pack_key(pack)
    data = bytearray(path.read_bytes())
    for at in (len(data) // 3, len(data) // 2):
        data[at] ^= 0xFF
    path.write_bytes(data)


def test_what_was_written_here_is_not_read_again(there: Repository) -> None:
    assert changed_packs(there.storage) == set()
    there.storage.rebuild()  # forgets it
    changed = changed_packs(there.storage)
    assert changed == set(pack_ids(there.store))
    snapshot = there.snapshot_of("main")
    blocks = [b for t in snapshot.tensor_ids() for b in there.objects.tensor(t).block_ids()]
    assert not check_changed(there.storage, lambda: blocks)
    assert len(changed_packs(there.storage)) == 1  # the pack of objects, which none asked for
    assert there.fsck(read_data=True).ok
    assert changed_packs(there.storage) == set()


def test_a_push_of_the_same_commit_mends(there: Repository, tmp_path: Path) -> None:
    damage(there)
    with Repository.open(tmp_path / "good") as good:
        good.push(str(tmp_path / "there"), PushOptions(refs=("main:pushed",)))
    assert content(there, "pushed", tmp_path) == on_disk(tmp_path / "a")
    with Repository.open(tmp_path / "there") as again:
        assert content(again, "main", tmp_path) == on_disk(tmp_path / "a")


def test_a_push_that_shares_blocks_mends(there: Repository, tmp_path: Path) -> None:
    damage(there)
    with Repository.open(tmp_path / "good", who="Ada <ada@example.org>") as good:
        write_model(tmp_path / "b", {"v": weights()})
        (tmp_path / "b/copy.safetensors").write_bytes(
            (tmp_path / "a/model.safetensors").read_bytes()
        )
        good.commit(tmp_path / "b", branch="b")
        good.push(str(tmp_path / "there"), PushOptions(refs=("b",)))
    assert content(there, "b", tmp_path) == on_disk(tmp_path / "b")


def test_a_state_is_size_time_and_file(there: Repository) -> None:
    [pack, *_] = pack_ids(there.store)
    path = there.directory / pack_key(pack)
    assert isinstance(wholeness.changed_packs(there.storage), set)
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert changed_packs(there.storage) == {pack}
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
    copy.rename(path)
    assert changed_packs(there.storage) == {pack}
