"""fsck: all damage to what history needs is found, named, and where possible put right."""

import os
import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from mergepipe.api import Repository
from mergepipe.errors import Locked, MergepipeError
from mergepipe.executors.threads import ThreadExecutor
from mergepipe.executors.workforce import Workforce
from mergepipe.ids import ObjectId, PackId, block_id
from mergepipe.objects.encoding import encode
from mergepipe.objects.records import Blob, Commit, FileEntry, Snapshot, Tensor
from mergepipe.packs.reader import pack_ids, pack_key, read_footer
from mergepipe.packs.transaction import Transaction
from mergepipe.repository import locks
from mergepipe.repository.fsck import fsck
from mergepipe.repository.problems import NoteKind, ProblemKind, Report
from tests.packs.delta_codec import delta_block, flip, raw_block, store_blocks

from .checkpoints import WHO, commit, new_repository, write_model

CHANCE = np.random.default_rng(9)


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with new_repository(tmp_path / "repo") as opened:
        for name in ("a", "b"):
            w = CHANCE.normal(size=(40, 200)).astype(np.float32)
            commit(opened, write_model(tmp_path / name, {name: w}, config_json=name), name)
        yield opened


def check(repo: Repository, **options: Any) -> Report:
    return fsck(
        repo.storage,
        repo.objects,
        repo.refs,
        repo.directory / "store.lock",
        lock_timeout_s=0.2,
        workforce=Workforce(ThreadExecutor(2)),
        **options,
    )


def kinds(report: Report) -> list[str]:
    return [problem.kind.value for problem in report.problems]


def pack_of(repo: Repository, content: str, branch: str = "b") -> PackId:
    """The last pack with the blocks or objects of a branch."""
    tip = repo.objects.commit(repo.resolve(branch))
    if content == "OBJECTS":
        return repo.storage.ask(lambda view: view.object(tip.snapshot)).pack  # type: ignore[union-attr]
    _, entry = next(repo.objects.snapshot(tip.snapshot).named_tensors())
    block = repo.objects.tensor(entry.tensor).block_ids()[0]
    return repo.blocks.resolve([block])[block].layers[0].pack


def readable(repo: Repository, tmp_path: Path, branch: str) -> bool:
    out = tmp_path / f"out-{os.urandom(4).hex()}"
    try:
        repo.checkout(branch, to=out)
    except MergepipeError:
        return False
    return all(
        path.read_bytes() == (out / path.name).read_bytes()
        for path in (tmp_path / branch).iterdir()
    )


def test_a_healthy_repository(repo: Repository, tmp_path: Path) -> None:
    assert check(repo) == Report((), unread_bytes=check(repo).unread_bytes)
    assert check(repo).unread_bytes > 0
    assert check(repo, read_data=True) == Report(())
    assert check(repo, repair=WHO, read_data=True) == Report(())
    with new_repository(tmp_path / "empty") as empty:
        assert check(empty, read_data=True).ok


def test_orphans_and_strays_are_no_problem(repo: Repository) -> None:
    store_blocks(repo.storage, raw_block(b"orphan" * 100))
    (repo.directory / "packs" / "readme").write_bytes(b"hello")
    report = check(repo, read_data=True)
    assert report.ok
    assert sorted(note.kind for note in report.notes) == [NoteKind.ORPHAN, NoteKind.STRAY]


@pytest.mark.parametrize("content", [b"", b"nonsense\n", b"\xff" * 65, b"1" * 64])
def test_damaged_refs_come_back_from_their_logs(
    repo: Repository, tmp_path: Path, content: bytes
) -> None:
    tip = repo.resolve("b")
    (repo.directory / "refs" / "heads" / "b").write_bytes(content)
    report = check(repo)
    assert kinds(report) == ["ref"]
    assert report.problems[0].id == "refs/heads/b"
    repaired = check(repo, repair=WHO)
    assert repaired.ok
    assert len(repaired.repaired) == 1
    assert repo.resolve("b") == tip
    assert readable(repo, tmp_path, "b")


@pytest.mark.parametrize("content", [b"", b"ref: ../../x\n", b"ref: refs/heads/a b", b"2" * 64])
def test_a_damaged_head(repo: Repository, content: bytes) -> None:
    repo.switch("b")
    (repo.directory / "HEAD").write_bytes(content)
    assert kinds(check(repo)) == ["head"]
    assert check(repo, repair=WHO).ok
    assert repo.refs.head().branch == "refs/heads/b"


def test_a_missing_head_and_a_log_line(repo: Repository) -> None:
    (repo.directory / "HEAD").unlink()
    with (repo.directory / "logs" / "refs" / "heads" / "a").open("ab") as log:
        log.write(b"nonsense\n")
    assert sorted(kinds(check(repo))) == ["head", "reflog"]


def test_a_ref_to_something_else_than_a_commit(repo: Repository) -> None:
    snapshot = repo.objects.commit(repo.resolve("a")).snapshot
    (repo.directory / "refs" / "heads" / "x").write_text(snapshot.hex() + "\n")
    report = check(repo)
    assert kinds(report) == ["ref"]
    assert "snapshot" in report.problems[0].detail


@pytest.mark.parametrize("content", ["BLOCKS", "OBJECTS"])
def test_a_lost_pack_is_named_by_what_needs_it(repo: Repository, content: str) -> None:
    pack = pack_of(repo, content)
    (repo.directory / pack_key(pack)).unlink()
    report = check(repo, read_data=True)
    assert not report.ok
    if content == "BLOCKS":
        assert set(kinds(report)) == {"missing_block"}
        assert "tensor 'b' in 'model.safetensors'" in "".join(p.detail for p in report.problems)
    else:
        assert set(kinds(report)) <= {"missing_object", "ref"}
    assert not check(repo, repair=WHO).ok


def test_a_damaged_frame_is_rescued(repo: Repository, tmp_path: Path) -> None:
    for content, place in (("BLOCKS", -1), ("OBJECTS", -20), ("BLOCKS", 0), ("OBJECTS", -60)):
        path = repo.directory / pack_key(pack_of(repo, content))
        before = len(pack_ids(repo.store))
        flip(path, place if place >= 0 else path.stat().st_size + place)
        damaged = path.read_bytes()
        assert kinds(check(repo)) == ["pack"]
        assert kinds(check(repo)) == ["pack"]  # looking changes nothing
        report = check(repo, repair=WHO, read_data=True)
        assert report.ok
        assert "moved it to quarantine" in "".join(report.repaired)
        assert len(pack_ids(repo.store)) == before
        kept = list((repo.directory / "quarantine").iterdir())
        assert damaged in [one.read_bytes() for one in kept]
        assert readable(repo, tmp_path, "a") and readable(repo, tmp_path, "b")


def test_a_truncated_pack_keeps_what_is_whole(repo: Repository, tmp_path: Path) -> None:
    pack = pack_of(repo, "BLOCKS")
    records = read_footer(repo.store, pack)[1]
    os.truncate(repo.directory / pack_key(pack), records[-1][1] + 200)
    report = check(repo, repair=WHO, read_data=True)
    assert kinds(report) == ["missing_block"]
    assert report.problems[0].id == records[-1][0].id.hex()
    assert readable(repo, tmp_path, "a")
    commit(repo, tmp_path / "b", "again")  # committing the model again brings the block back
    assert check(repo, read_data=True).ok
    assert readable(repo, tmp_path, "b")


def test_bit_rot_is_found_by_reading(repo: Repository) -> None:
    pack = pack_of(repo, "BLOCKS")
    header, offset = next(
        (header, offset)
        for header, offset in read_footer(repo.store, pack)[1]
        if header.encoded_length > 1000
    )
    flip(repo.directory / pack_key(pack), offset + 128 + 77)
    assert check(repo).ok
    report = check(repo, read_data=True)
    assert sorted(kinds(report)) == ["missing_block", "record"]
    assert {problem.id for problem in report.problems} == {header.id.hex()}


def test_every_flipped_bit_in_packs_is_found(repo: Repository) -> None:
    chance = random.Random(4)
    for pack in pack_ids(repo.store):
        path = repo.directory / pack_key(pack)
        healthy = path.read_bytes()
        for _ in range(25):
            flip(path, chance.randrange(len(healthy)), 1 << chance.randrange(8))
            assert not check(repo, read_data=True).ok
            path.write_bytes(healthy)
            repo.storage.rebuild()
    assert check(repo, read_data=True).ok


def with_index(repo: Repository, change: Callable[[lmdb.Transaction, Any], None]) -> None:
    environment = repo.storage.index._environment
    with environment.write() as transaction:
        change(transaction, environment.tables)


def test_a_wrong_index_is_found_and_rebuilt(repo: Repository, tmp_path: Path) -> None:
    def shift(transaction: lmdb.Transaction, tables: Any) -> None:
        items = list(transaction.cursor(tables.blocks))
        for key, value in items[:3]:
            transaction.delete(key, value, db=tables.blocks)
        key, value = items[5]
        value = bytes(value)
        transaction.put(key, value[:4] + b"\1" + value[5:], db=tables.blocks)

    with_index(repo, shift)
    assert "index" in kinds(check(repo))
    with_index(repo, shift)  # again: whoever misses a record has the index rebuilt
    repaired = check(repo, repair=WHO, read_data=True)
    assert repaired.ok
    assert repaired.repaired == ("rebuilt the index from the packs",)
    assert readable(repo, tmp_path, "b")


def test_an_index_that_makes_no_sense(repo: Repository) -> None:
    def cut(transaction: lmdb.Transaction, tables: Any) -> None:
        for key, value in list(transaction.cursor(tables.packs)):
            transaction.put(key, value[:-3], db=tables.packs)

    with_index(repo, cut)
    check(repo)  # whoever asks the index first repairs it
    assert check(repo).ok


def publish(repo: Repository, *records: Any) -> list[ObjectId]:
    with Transaction(repo.storage) as transaction:
        ids = [transaction.add_object(encode(record)) for record in records]
        transaction.publish()
    return ids


def branch_to(repo: Repository, files: tuple[FileEntry, ...]) -> None:
    [snapshot] = publish(repo, Snapshot(files))
    [tip] = publish(repo, Commit(snapshot, (), None, "a", 0, 0, ""))
    repo.refs.update("refs/heads/x", tip, expected=None, who=WHO, why="")


def test_tensors_that_cannot_be(repo: Repository) -> None:
    raw = b"0123456789" * 100
    [block] = store_blocks(repo.storage, raw_block(raw))
    ids = publish(
        repo,
        Tensor("U8", (1001,), 4096, block),  # the block is shorter
        Tensor("F99", (4,), 4096, block),
        Tensor("U8", (10_000,), 4096, block),  # too few blocks
        Tensor("U8", (1000,), 4096, block[:31]),
    )
    branch_to(repo, tuple(FileEntry(f"f{n}", False, 1, Blob(one)) for n, one in enumerate(ids)))
    report = check(repo)
    found = {problem.id: problem.kind for problem in report.problems}
    assert found.pop(block.hex()) is ProblemKind.BLOCK
    assert found == {
        ids[1].hex(): ProblemKind.TENSOR,
        ids[2].hex(): ProblemKind.TENSOR,
        ids[3].hex(): ProblemKind.OBJECT,
    }


def test_a_snapshot_with_a_file_twice(repo: Repository) -> None:
    [tensor] = publish(repo, Tensor("U8", (0,), 4096, b""))
    entry = FileEntry("a", False, 0, Blob(tensor))
    branch_to(repo, (entry, entry))
    assert kinds(check(repo)) == ["object"]


def test_a_snapshot_with_a_path_that_leads_out(repo: Repository) -> None:
    [tensor] = publish(repo, Tensor("U8", (0,), 4096, b""))
    branch_to(repo, (FileEntry("../a", False, 0, Blob(tensor)),))
    [problem] = check(repo).problems
    assert problem.kind is ProblemKind.OBJECT
    assert "../a" in problem.detail


def test_chains(repo: Repository) -> None:
    raws = [random.Random(1).randbytes(1000)]
    for number in range(4):
        raws.append(raws[-1][:-1] + bytes([number]))
    store_blocks(repo.storage, raw_block(raws[0]))
    for base, raw in pairwise(raws):
        store_blocks(repo.storage, delta_block(raw, base))
    [tensor] = publish(repo, Tensor("U8", (1000,), 4096, block_id(raws[-1])))
    branch_to(repo, (FileEntry("a", False, 1000, Blob(tensor)),))
    report = check(repo, max_chain=2, read_data=True)
    assert report.ok
    assert [(note.kind, note.id) for note in report.notes] == [
        (NoteKind.CHAIN, block_id(raws[-1]).hex())
    ]
    assert check(repo, max_chain=4).notes == ()


def test_cycles_and_lost_bases(repo: Repository) -> None:
    a, b, c = (random.Random(number).randbytes(1000) for number in range(3))
    store_blocks(repo.storage, delta_block(a, b), delta_block(b, a))
    store_blocks(repo.storage, delta_block(c, random.Random(9).randbytes(1000)))
    tensors = publish(repo, *(Tensor("U8", (1000,), 4096, block_id(raw)) for raw in (a, c)))
    branch_to(repo, tuple(FileEntry(str(n), False, 1000, Blob(t)) for n, t in enumerate(tensors)))
    found = {problem.id: problem.kind.value for problem in check(repo).problems}
    assert found == {block_id(a).hex(): "block", block_id(c).hex(): "missing_block"}


def test_it_keeps_gc_out(repo: Repository) -> None:
    lock = repo.directory / "store.lock"
    with locks.acquire(lock, timeout_s=0), pytest.raises(Locked):
        check(repo)
    with locks.acquire(lock, shared=True, timeout_s=0):
        assert check(repo).ok
        with pytest.raises(Locked):
            check(repo, repair=WHO)
