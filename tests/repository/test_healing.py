"""Damage heals from wherever a good copy is, is clean in the next fsck, and the bytes are equal."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mergepipe.api import Repository
from mergepipe.errors import Corruption, MissingObject
from mergepipe.ids import PackId
from mergepipe.packs.format import Content
from mergepipe.packs.reader import pack_ids, pack_key, read_footer
from mergepipe.repository.problems import NoteKind, ProblemKind
from tests.packs.delta_codec import flip

from .checkpoints import commit, new_repository, write_model

SHAPE = (200, 512)


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    """Two models, of which the second leans on the first."""
    rng = np.random.default_rng(3)
    base = rng.normal(size=SHAPE).astype(np.float32)
    tuned = base + 1e-4 * rng.normal(size=SHAPE).astype(np.float32)
    with new_repository(tmp_path / "repo", codec="small") as opened:
        commit(opened, write_model(tmp_path / "base", {"w": base}, config_json="{}"), "base")
        folder = write_model(tmp_path / "tuned", {"w": tuned.astype(np.float32)}, config_json="{}")
        opened.commit(folder, message="tuned", branch="tuned", base="base")
        yield opened


def clone(repo: Repository, to: Path, **options: Any) -> None:
    Repository.clone(str(repo.directory.parent), to, checkout=False, **options)


def records(repo: Repository) -> list[tuple[Path, int, int]]:
    """File, offset and length of every record."""
    packs = pack_ids(repo.store)
    return [
        (repo.directory / pack_key(pack), offset, header.stored_bytes)
        for pack in packs
        for header, offset in read_footer(repo.store, pack)[1]
    ]


def block_packs(repo: Repository) -> list[PackId]:
    return [
        pack for pack in pack_ids(repo.store) if read_footer(repo.store, pack)[0] is Content.BLOCKS
    ]


def damage(repo: Repository, share: float = 1.0, seed: int = 0) -> int:
    """Flip a bit in a share of the records, one at least; returns in how many."""
    rng = random.Random(seed)
    found = records(repo)
    hurt = rng.sample(found, max(1, round(share * len(found))))
    for path, offset, length in hurt:
        flip(path, offset + rng.randrange(length))
    return len(hurt)


def same(repo: Repository, tmp_path: Path, *models: str) -> None:
    for model in models:
        out = tmp_path / "out" / model / str(len(list(tmp_path.glob("out/*"))))
        repo.checkout(model, to=out)
        for path in (tmp_path / model).iterdir():
            assert (out / path.name).read_bytes() == path.read_bytes()


def is_clean(repo: Repository) -> bool:
    return repo.fsck().ok and repo.fsck(read_data=True).ok


@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_a_share_of_all_records_comes_back_from_a_remote_by_one_command(
    repo: Repository, tmp_path: Path, share: float
) -> None:
    clone(repo, tmp_path / "good")
    repo.configure("remote.good.url", str(tmp_path / "good"))
    assert damage(repo, share)
    assert not repo.fsck(read_data=True).ok
    report = repo.fsck(repair=True)
    assert report.ok, report.problems
    assert any("good" in line for line in report.repaired)
    assert is_clean(repo)
    same(repo, tmp_path, "base", "tuned")


def test_fetch_heals_what_is_known_and_with_heal_what_is_not(
    repo: Repository, tmp_path: Path
) -> None:
    clone(repo, tmp_path / "good")
    repo.configure("remote.good.url", str(tmp_path / "good"))
    damage(repo, 0.2)
    assert repo.fetch("good", heal=True).healed
    assert is_clean(repo)
    damage(repo, 0.2, seed=1)
    assert not repo.fetch("good").healed  # nobody looked
    assert not repo.fsck(read_data=True).ok
    assert repo.fetch("good").healed
    assert is_clean(repo)
    same(repo, tmp_path, "base", "tuned")


def test_a_pack_that_was_taken_away_comes_back(repo: Repository, tmp_path: Path) -> None:
    clone(repo, tmp_path / "good")
    repo.configure("remote.good.url", str(tmp_path / "good"))
    for pack in pack_ids(repo.store):
        (repo.directory / pack_key(pack)).unlink()
    with Repository.open(tmp_path / "repo") as again:
        with pytest.raises(MissingObject):
            again.checkout("base", to=tmp_path / "lost")
        again.fetch("good")
        assert is_clean(again)
        same(again, tmp_path, "base", "tuned")


@pytest.mark.parametrize("known", [True, False])
def test_a_commit_of_the_same_files_leans_on_nothing_damaged(
    repo: Repository, tmp_path: Path, known: bool
) -> None:
    for pack in block_packs(repo):
        for header, offset in read_footer(repo.store, pack)[1]:
            flip(repo.directory / pack_key(pack), offset + header.stored_bytes - 1)
    if known:
        assert not repo.fsck(read_data=True).ok
    commit(repo, tmp_path / "base", "again")
    same(repo, tmp_path, "base")
    commit(repo, tmp_path / "tuned", "more")
    same(repo, tmp_path, "base", "tuned")
    assert is_clean(repo)


def test_the_files_of_the_worktree_are_used(repo: Repository, tmp_path: Path) -> None:
    repo.checkout("base")
    repo.delete_branch("tuned", force=True)
    repo.gc(keep_reflog=False, grace_s=0)
    damage(repo)
    # Of the objects, all but the commit can be made again; that one is no file's.
    repo.configure("remote.good.url", str(tmp_path / "gone"))
    report = repo.fsck(repair=True)
    assert {problem.kind for problem in report.problems} <= {
        ProblemKind.REF,
        ProblemKind.MISSING_OBJECT,
    }
    assert [note.id for note in report.notes if note.kind is NoteKind.ASKED] == ["good"]


def test_blocks_come_back_from_the_worktree(repo: Repository, tmp_path: Path) -> None:
    repo.checkout("base")
    repo.delete_branch("tuned", force=True)
    repo.gc(keep_reflog=False, grace_s=0)
    for pack in block_packs(repo):
        (repo.directory / pack_key(pack)).unlink()
    report = repo.fsck(repair=True)
    assert report.ok
    assert any("files" in line for line in report.repaired)
    same(repo, tmp_path, "base")


def test_a_lazy_clone_asks_its_source(repo: Repository, tmp_path: Path) -> None:
    clone(repo, tmp_path / "lazy", lazy=True)
    with Repository.open(tmp_path / "lazy") as lazy:
        for promise in (lazy.directory / "promised").iterdir():
            promise.unlink()
        assert not lazy.fsck().ok
        assert lazy.fsck(repair=True).ok
        lazy.checkout("origin/tuned", to=tmp_path / "out")
        expected = (tmp_path / "tuned/model.safetensors").read_bytes()
        assert (tmp_path / "out/model.safetensors").read_bytes() == expected


def test_damage_is_told_until_it_is_mended(repo: Repository, tmp_path: Path) -> None:
    damage(repo)
    with pytest.raises(Corruption):
        repo.checkout("base", to=tmp_path / "out")
    assert not repo.fsck().ok  # though this reads no data: it is known
    assert repo.fsck().unread_bytes > 0
    report = repo.fsck(repair=True)
    assert not report.ok
    assert any(note.kind is NoteKind.ASKED for note in report.notes)
