"""Packs are listed again when some came or went, or the index did, and not otherwise."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.packs import keeping
from mergepipe.packs.reader import pack_ids, pack_key
from tests.repository.checkpoints import WHO


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    model = tmp_path / "model"
    model.mkdir()
    (model / "own.bin").write_bytes(b"x" * 5000)
    with Repository.init(tmp_path / "repo", who=WHO) as opened:
        opened.commit(model, message="m")
        yield opened


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many packs each listing had."""
    counts: list[int] = []

    def noted(store: object) -> object:
        found = pack_ids(store)  # type: ignore[arg-type]
        counts.append(len(found))
        return found

    monkeypatch.setattr(keeping, "pack_ids", noted)
    return counts


def age(repo: Repository, seconds: int) -> None:
    """Let the folder of packs have changed so long ago."""
    folder = repo.directory / "packs"
    then = folder.stat().st_mtime_ns - seconds * 10**9
    os.utime(folder, ns=(then, then))


def test_what_did_not_change_is_not_listed(repo: Repository, listings: list[int]) -> None:
    storage = repo.storage
    storage.refresh()
    storage.refresh()
    assert len(listings) == 2  # it changed a moment ago, and may change again in the same tick
    age(repo, 60)
    for _ in range(3):
        assert not storage.refresh()
    assert len(listings) == 3
    pack = pack_ids(repo.store)[0]
    path = repo.directory / pack_key(pack)
    aside = path.with_name("aside")
    path.rename(aside)
    age(repo, 50)
    assert storage.refresh() and len(listings) == 4
    aside.rename(path)
    age(repo, 40)
    assert storage.refresh() and not storage.refresh()
    assert len(listings) == 6
    storage.index.reset()
    assert storage.refresh() and len(listings) == 7
