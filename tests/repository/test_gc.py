"""gc: what is needed stays readable, what is not goes, and packs become fewer."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mergepipe.api import Repository
from mergepipe.checkpoints.assembly import plan_file
from mergepipe.ids import ObjectId, block_id
from mergepipe.objects.encoding import encode
from mergepipe.objects.merging import Manifest
from mergepipe.objects.records import Commit
from mergepipe.packs.reader import pack_ids, pack_key, read_footer
from mergepipe.packs.transaction import Transaction
from mergepipe.packs.writer import PackWriter
from mergepipe.repository import gc_round
from mergepipe.repository.gc import Collected
from mergepipe.repository.refs import ANY
from tests.packs.delta_codec import delta_block, raw_block, store_blocks
from tests.repository.collecting import content, forget, model, on_disk, packs_bytes, run, weights

from .checkpoints import WHO, commit, new_repository, write_model


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with new_repository(tmp_path / "repo") as opened:
        yield opened


def test_nothing_goes_that_is_needed(repo: Repository, tmp_path: Path) -> None:
    for name in ("a", "b"):
        commit(repo, model(tmp_path, name), name)
    before = sorted((repo.directory / "packs").iterdir())
    assert run(repo) == Collected(0, 0, 0, False)
    assert sorted((repo.directory / "packs").iterdir()) == before


def test_a_forgotten_model_goes(repo: Repository, tmp_path: Path) -> None:
    for name in ("a", "b"):
        commit(repo, model(tmp_path, name), name)
    forget(repo, "b")
    size = packs_bytes(repo)
    told = run(repo, dry_run=True)
    assert packs_bytes(repo) == size
    done = run(repo)
    assert told == Collected(done.freed_bytes, done.packs_removed, 0, True)
    assert done.packs_removed >= 2
    assert packs_bytes(repo) == size - done.freed_bytes
    assert done.freed_bytes > 70_000
    assert content(repo, "a", tmp_path) == on_disk(tmp_path / "a")
    with repo.storage.view() as view:
        assert set(view.packs()) == set(pack_ids(repo.store))
    commit(repo, tmp_path / "b", "b")
    assert content(repo, "b", tmp_path) == on_disk(tmp_path / "b")


def test_sparse_packs_are_rewritten_in_order(repo: Repository, tmp_path: Path) -> None:
    shared = weights(6000)
    commit(repo, write_model(tmp_path / "a", {"w": shared, "x": weights(50_000)}), "a")
    commit(repo, write_model(tmp_path / "b", {"v": shared}), "b")
    forget(repo, "a")
    told = run(repo, dry_run=True)
    done = run(repo)
    assert done.packs_rewritten >= 1
    assert abs(told.freed_bytes - done.freed_bytes) < 20_000
    assert packs_bytes(repo) < 60_000
    assert content(repo, "b", tmp_path) == on_disk(tmp_path / "b")
    files = repo.objects.snapshot(repo.model_of("b")[1].snapshot).files
    order = [part.block for file in files for part in plan_file(file, repo.objects).parts]
    packs: dict[bytes, list[Any]] = {}
    for at in sorted(_locations(repo), key=lambda at: at.offset):
        packs.setdefault(at.pack, []).append(at.id)
    assert sum(map(len, packs.values())) == len(set(order))
    for blocks in packs.values():
        assert blocks == [block for block in dict.fromkeys(order) if block in set(blocks)]
    assert run(repo).freed_bytes == 0


def _locations(repo: Repository) -> list[Any]:
    with repo.storage.view() as view:
        return list(view.blocks())


def test_mostly_live_packs_stay_and_their_dead_are_no_base(
    repo: Repository, tmp_path: Path
) -> None:
    base, target = os.urandom(5000), os.urandom(5000)
    keep = weights(20_000)
    commit(repo, model(tmp_path, "a", keep), "a")
    # A dead delta beside live blocks, its base in a pack that goes.
    store_blocks(repo.storage, raw_block(base))
    live = [block.tobytes() for block in np.split(weights(8192), 8)]
    with Transaction(repo.storage) as transaction:
        transaction.add_block(delta_block(target, base))
        for raw in live:
            transaction.add_block(raw_block(raw))
        transaction.publish()
    assert repo.storage.ask(lambda view: view.has_block(block_id(target)))
    write_model(tmp_path / "b", {"v": np.frombuffer(b"".join(live), np.float32)})
    commit(repo, tmp_path / "b", "b")
    run(repo)
    assert not repo.storage.ask(lambda view: view.has_block(block_id(target)))
    write_model(tmp_path / "c", {"c": np.frombuffer(target[:4096], np.uint8)})
    commit(repo, tmp_path / "c", "c")
    for name in "abc":
        assert content(repo, name, tmp_path) == on_disk(tmp_path / name)


def test_bases_and_other_encodings_of_live_blocks_stay(repo: Repository, tmp_path: Path) -> None:
    base = weights(1024).tobytes()
    tuned = bytes(byte ^ (number % 7 == 0) for number, byte in enumerate(base))
    # Only a delta is stored: committing finds the block and stores nothing for it.
    store_blocks(repo.storage, raw_block(base))
    store_blocks(repo.storage, delta_block(tuned, base))
    write_model(tmp_path / "t", {"w": np.frombuffer(tuned, np.float32)})
    commit(repo, tmp_path / "t", "t")
    run(repo)
    assert content(repo, "t", tmp_path) == on_disk(tmp_path / "t")
    [read] = repo.blocks.read([block_id(base)])
    assert read == base
    # Once the base is a model too, both ways to store the expert stay (one is read coarsely).
    write_model(tmp_path / "b", {"v": np.frombuffer(base, np.float32)})
    commit(repo, tmp_path / "b", "b")
    store_blocks(repo.storage, raw_block(tuned))
    run(repo)
    assert len(repo.storage.ask(lambda view: view.block(block_id(tuned)))) == 3


def test_copies_of_a_record_go_but_for_a_whole_one(repo: Repository, tmp_path: Path) -> None:
    commit(repo, model(tmp_path, "a"), "a")
    [first] = [
        pack for pack in pack_ids(repo.store) if read_footer(repo.store, pack)[0].name == "BLOCKS"
    ]
    # The same records again, in another pack, and the first copy of one damaged.
    with repo.storage.view() as view:
        records = sorted(view.blocks(), key=lambda at: at.offset)
    writer = PackWriter(repo.store, read_footer(repo.store, first)[0])
    for header, offset in read_footer(repo.store, first)[1][::-1]:
        data = bytearray(header.stored_bytes)
        repo.store.read_into(pack_key(first), offset, memoryview(data))
        writer.add_copy(header, data)
    entry, value = writer.finish()
    value.sync()
    repo.store.publish([(value, pack_key(entry.id))])
    path = repo.directory / pack_key(first)
    damaged = bytearray(path.read_bytes())
    damaged[records[3].offset + 200] ^= 1
    path.write_bytes(damaged)
    repo.storage.refresh()
    run(repo)
    assert content(repo, "a", tmp_path) == on_disk(tmp_path / "a")
    # One record of the first pack is replaced, and the index knows its damaged copy no more; the
    # rest of its copies are gone.
    assert len(_locations(repo)) == len(records)


def test_many_small_object_packs_become_one(repo: Repository, tmp_path: Path) -> None:
    w = weights(1000)
    for number in range(gc_round.MANY_SMALL_PACKS + 3):
        w[number] += 1
        commit(repo, model(tmp_path, "a", w), "a")
    ids = [identity for identity, _ in repo.log("a")]
    done = run(repo)
    assert done.packs_rewritten >= gc_round.MANY_SMALL_PACKS
    contents = [read_footer(repo.store, pack)[0].name for pack in pack_ids(repo.store)]
    assert contents.count("OBJECTS") == 1
    assert [identity for identity, _ in repo.log("a")] == ids
    assert content(repo, "a", tmp_path) == on_disk(tmp_path / "a")
    assert run(repo) == Collected(0, 0, 0, False)


def test_one_small_pack_is_not_joined_to_itself(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(repo, model(tmp_path, "a"), "a")
    monkeypatch.setattr(gc_round, "MANY_SMALL_PACKS", 1)
    run(repo)
    assert run(repo) == Collected(0, 0, 0, False)
    assert content(repo, "a", tmp_path) == on_disk(tmp_path / "a")


@pytest.mark.parametrize("holder", ["reflog", "worktree", "extra", "manifest", "base", "detached"])
def test_everything_that_holds_on(repo: Repository, tmp_path: Path, holder: str) -> None:
    held = commit(repo, model(tmp_path, "held"), "held")
    snapshot = repo.objects.commit(held).snapshot
    commit(repo, model(tmp_path, "a"), "main")
    options: dict[str, Any] = {"reflog": False}
    if holder == "reflog":
        repo.refs.update("refs/heads/main", held, expected=ANY, who=WHO, why="there")
        repo.reset("main@{1}")
        options = {}
    elif holder == "worktree":
        repo.store.put("worktree", b'{"version":1,"snapshot":"%s"}' % snapshot.hex().encode())
    elif holder == "extra":
        options["extra_roots"] = [held]
    elif holder == "detached":
        repo.refs.set_head(held, who=WHO, why="detached")
    else:
        tip = repo.resolve("main")
        now = repo.objects.commit(tip)
        with Transaction(repo.storage) as transaction:
            manifest = Manifest(snapshot, "ties", 0, snapshot, None, (snapshot,), snapshot, ())
            identity = transaction.add_object(encode(manifest))
            base = held if holder == "base" else None
            note = None if holder == "base" else identity
            record = Commit(now.snapshot, (tip,), base, "a", 0, 0, "", None, note)
            new = transaction.add_object(encode(record))
            transaction.publish()
        repo.refs.update("refs/heads/main", new, expected=tip, who=WHO, why="merge")
    forget(repo, "held")
    run(repo, **options)
    assert repo.objects.has(snapshot)
    repo.refs.update("refs/heads/back", _commit_of(repo, snapshot), expected=None, who=WHO, why="")
    assert content(repo, "back", tmp_path) == on_disk(tmp_path / "held")
    if holder == "reflog":
        forget(repo, "back")
        run(repo, reflog=False)
        assert not repo.objects.has(snapshot)
        run(repo)  # the log still names what is gone


def _commit_of(repo: Repository, snapshot: ObjectId) -> ObjectId:
    with Transaction(repo.storage) as transaction:
        identity = transaction.add_object(encode(Commit(snapshot, (), None, "a", 0, 0, "")))
        transaction.publish()
    return identity


def test_a_note_of_a_run_holds_nothing(repo: Repository, tmp_path: Path) -> None:
    held = commit(repo, model(tmp_path, "held"), "held")
    snapshot = repo.objects.commit(held).snapshot
    commit(repo, model(tmp_path, "a"), "main")
    repo.store.put("runs/x.json", b'{"experts": ["%s"]}' % snapshot.hex().encode())
    forget(repo, "held")
    run(repo, reflog=False)
    assert not repo.objects.has(snapshot)
