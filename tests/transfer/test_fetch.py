"""Fetch: the same models on the other side, whatever happens on the way."""

import os
import random
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption, MissingObject, RevisionNotFound
from mergepipe.ids import block_id
from mergepipe.packs.reader import pack_ids, pack_key, read_exactly, read_footer
from mergepipe.packs.writer import PackWriter
from mergepipe.transfer.fetch import FetchOptions, fetch
from mergepipe.transfer.receiving import ReceivingStore
from tests.repository.checkpoints import WHO
from tests.torture.models import finish, in_child

from .forging import BLOCK, Forge, noise, quarantined, remote_of, visible
from .remotes import ORIGIN, Family, Interposed, same_models


@pytest.fixture
def line(family: Family) -> Iterator[ReceivingStore]:
    with ReceivingStore(family.repo) as store:
        yield store


def packs_bytes(repo: Repository) -> int:
    return sum(path.stat().st_size for path in (repo.directory / "packs").glob("*.pack"))


def bucket(repo: Repository) -> MemoryByteStore:
    """What a repository offers, where nobody computes."""
    store = MemoryByteStore()
    for prefix in ("packs/", "refs/heads/", "refs/tags/"):
        for key in repo.store.list(prefix):
            store.put(key, repo.store.get(key) or b"")
    store.put("HEAD", repo.store.get("HEAD") or b"")
    return store


@pytest.mark.parametrize("kind", ["repository", "bucket"])
def test_a_family(family: Family, here: Repository, tmp_path: Path, kind: str) -> None:
    family.tune("math")
    with ReceivingStore(family.repo) if kind == "repository" else bucket(family.repo) as store:
        first = fetch(here, "origin", store)
    assert {ref.name for ref in first.refs} == {ORIGIN + "main", ORIGIN + "math"}
    assert first.bytes_received <= 1.02 * packs_bytes(family.repo)
    assert here.refs.head().commit is None
    added = family.tune("code")
    with ReceivingStore(family.repo) if kind == "repository" else bucket(family.repo) as store:
        second = fetch(here, "origin", store)
        assert [ref.name for ref in second.refs] == [ORIGIN + "code"]
        assert second.bytes_received <= 1.02 * added + 1000
        assert (second.commits, second.packs_received) == (1, 2 + (family_is_layered(family)))
        third = fetch(here, "origin", store)
        assert (third.refs, third.bytes_received) == ((), 0)
    for name in ("main", "math", "code"):
        here.branch(name, f"origin/{name}")
    assert same_models(family.repo, here, tmp_path, "main", "math", "code")
    assert here.fsck(read_data=True).ok
    assert quarantined(here) == []


def family_is_layered(family: Family) -> bool:
    """Whether deltas are in two layers, so that coarse ones lie in packs of their own."""
    with family.repo.storage.view() as view:
        return any(at.header.layers > 1 for at in view.blocks())


def test_only_some_branches(family: Family, line: ByteStore, here: Repository) -> None:
    for name in ("math", "code"):
        family.tune(name)
    fetch(here, "origin", line, FetchOptions(("math",)))
    assert here.refs.names() == [ORIGIN + "math"]
    with pytest.raises(RevisionNotFound, match="nowhere"):
        fetch(here, "origin", line, FetchOptions(("nowhere",)))
    assert here.fsck(read_data=True).ok


def test_tags_on_what_is_fetched(family: Family, line: ByteStore, here: Repository) -> None:
    family.tune("math")
    family.tune("code")
    for name in ("main", "math", "code"):
        family.repo.tag(f"v-{name}", name)
    found = fetch(here, "origin", line, FetchOptions(("math",)))
    # Math was trained from main, whose commit comes with it.
    assert here.refs.names("refs/tags/") == ["refs/tags/v-main", "refs/tags/v-math"]
    assert found.kept == ()
    fetch(here, "origin", line, FetchOptions(("math",), tags=True))
    assert len(here.refs.names("refs/tags/")) == 3
    assert here.refs.names(ORIGIN) == [ORIGIN + "math"]
    family.repo.tag("v-main", "code", force=True)
    moved = fetch(here, "origin", line, FetchOptions(tags=True))
    assert moved.kept == ("refs/tags/v-main",)
    assert here.resolve("v-main") == family.repo.resolve("main")
    assert here.fsck(read_data=True).ok


def test_branches_that_go_away_or_move(family: Family, line: ByteStore, here: Repository) -> None:
    family.tune("math")
    fetch(here, "origin", line)
    family.repo.delete_branch("math", force=True)
    family.tune("math/deep")  # a folder where a branch was
    with pytest.raises(Exception, match="math"):
        fetch(here, "origin", line)
    pruned = fetch(here, "origin", line, FetchOptions(prune=True))
    assert [(ref.name, ref.new is None) for ref in pruned.refs] == [
        (ORIGIN + "math", True),
        (ORIGIN + "math/deep", False),
    ]
    family.repo.branch("main", "math/deep", force=True)
    moved = fetch(here, "origin", line)
    assert [ref.name for ref in moved.refs] == [ORIGIN + "main"]
    assert here.fsck(read_data=True).ok


class Cut(Interposed):
    """A line that breaks after so many bytes."""

    def __init__(self, inner: ByteStore, after: int = 1 << 40) -> None:
        super().__init__(inner)
        self.after = after
        self.read = 0

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        if self.read + len(out) > self.after:
            raise ConnectionResetError("the line broke")
        count = self.inner.read_into(key, offset, out)
        self.read += count
        return count


def test_cut_anywhere(tmp_path: Path) -> None:
    """Wherever it breaks, nothing is visible, and the next attempt goes on."""
    forge = Forge()
    base = noise(150 * BLOCK)
    first = forge.model(base)
    parts = [base[at : at + BLOCK] for at in range(0, len(base), BLOCK)]
    tuned = [bytes(a ^ (b & 1) for a, b in zip(part, noise(BLOCK), strict=True)) for part in parts]
    for raw, part in zip(tuned, parts, strict=True):
        forge.delta(raw, part)
    tensor = forge.tensor_of(b"".join(map(block_id, tuned)), len(base))
    commit = forge.commit(tensor, len(base), parents=[first])
    remote = remote_of(forge.packs(), {"main": commit})
    with Repository.init(tmp_path / "whole", who=WHO) as repo, Cut(remote) as counted:
        fetch(repo, "origin", counted, pack_bytes=100_000)
        whole = counted.read
    for number in range(8):
        with Repository.init(tmp_path / f"cut-{number}", who=WHO) as repo:
            with pytest.raises(ConnectionResetError):
                fetch(repo, "origin", Cut(remote, whole * number // 8), pack_bytes=100_000)
            assert visible(repo) == {}
            fetch(repo, "origin", remote, pack_bytes=100_000)
            assert repo.refs.read(ORIGIN + "main") == commit
            assert repo.fsck(read_data=True).ok
            assert quarantined(repo) == []


def test_finished_packs_are_not_fetched_again(here: Repository) -> None:
    forge = Forge()
    commit = forge.model(noise(8000 * BLOCK))  # 32 MiB, read in runs of 8
    remote = remote_of(forge.packs(), {"main": commit})
    cuts, read = 0, 0
    while True:
        cut = Cut(remote, 18 << 20)
        try:
            fetch(here, "origin", cut, pack_bytes=1 << 20)
            break
        except ConnectionResetError:
            cuts += 1
            assert cuts < 10
        finally:
            read += cut.read
    assert cuts
    assert read < 1.2 * (32 << 20) + cuts * (2 << 20)
    assert here.fsck(read_data=True).ok


def test_a_remote_that_collects_meanwhile(family: Family, here: Repository) -> None:
    """Its packs go and others come between the listing and the reading."""
    family.tune("math")
    family.tune("code")

    class Collecting(Interposed):
        done = False

        def read_into(self, key: str, offset: int, out: memoryview) -> int:
            # Blocks: neither a window of objects nor the end of a pack.
            if len(out) > 100_000 and len(out) != 1 << 20 and not self.done:
                self.done = True
                rewrite(family.repo)
            return self.inner.read_into(key, offset, out)

    with Collecting(ReceivingStore(family.repo)) as store:
        fetch(here, "origin", store, FetchOptions(("main", "math")))
        assert store.done
    assert here.fsck(read_data=True).ok


def rewrite(repo: Repository) -> None:
    """Every pack of a repository copied under another name, the records in another order."""
    for pack in pack_ids(repo.store):
        content, records = read_footer(repo.store, pack)
        writer = PackWriter(repo.store, content)
        for header, offset in reversed(records):
            data = read_exactly(repo.store, pack_key(pack), offset, header.stored_bytes)
            writer.add_copy(header, data)
        entry, value = writer.finish()
        value.sync()
        repo.store.publish([(value, pack_key(entry.id))])
        if entry.id != pack:
            repo.store.delete(pack_key(pack))
    repo.storage.refresh()


def test_damage_there_is_read_around_if_it_can_be(here: Repository) -> None:
    forge = Forge()
    raw = noise(20 * BLOCK)
    commit = forge.model(raw)
    whole = forge.packs()
    remote = remote_of(whole, {"main": commit})
    other = Forge()
    other.block(raw[:BLOCK])
    for pack, data in other.packs().items():
        remote.put(pack_key(pack), data)
    largest = max(whole, key=lambda pack: len(whole[pack]))
    harmed = bytearray(whole[largest])
    harmed[16 + 128 + 5] ^= 1  # in the first block's payload
    remote.put(pack_key(largest), bytes(harmed))
    fetch(here, "origin", remote)
    assert here.fsck(read_data=True).ok
    harmed[16 + 128 + BLOCK + 128 + 5] ^= 1  # and in the second's, which is there once
    remote.put(pack_key(largest), bytes(harmed))
    with (
        Repository.init(here.directory.parent / "other", who=WHO) as repo,
        pytest.raises(Corruption, match=block_id(raw[BLOCK : 2 * BLOCK]).hex()[:12]),
    ):
        fetch(repo, "origin", remote)


def test_a_remote_without_all_of_it(tmp_path: Path) -> None:
    forge = Forge()
    commit = forge.model(noise(3 * BLOCK))
    packs = forge.packs()
    for number, left_out in enumerate(packs):
        part = {pack: data for pack, data in packs.items() if pack != left_out}
        with Repository.init(tmp_path / f"{number}", who=WHO) as here:
            with pytest.raises(MissingObject):
                fetch(here, "origin", remote_of(part, {"main": commit}))
            assert visible(here) == {}
            fetch(here, "origin", remote_of(packs, {"main": commit}))
            assert here.fsck(read_data=True).ok


def test_killed_while_it_fetches(tmp_path: Path) -> None:
    forge = Forge()
    commit = forge.model(noise(3000 * BLOCK))
    remote = remote_of(forge.packs(), {"main": commit})
    chance = random.Random(4)
    with Repository.init(tmp_path / "repo", who=WHO) as repo:
        for _ in range(8):
            child = in_child(partial(fetch_in_child, tmp_path / "repo", remote))
            time.sleep(chance.uniform(0, 0.25))
            os.kill(child, signal.SIGKILL)
            finish(child)
            assert repo.refs.read(ORIGIN + "main") in (None, commit)
            assert repo.fsck(read_data=True).ok
        fetch(repo, "origin", remote)
        assert repo.refs.read(ORIGIN + "main") == commit
        assert repo.fsck(read_data=True).ok
        assert quarantined(repo) == []


def fetch_in_child(root: Path, remote: ByteStore) -> None:
    with Repository.open(root, who=WHO) as repo:
        fetch(repo, "origin", remote, pack_bytes=1 << 20)
        signal.pause()


def test_history_that_is_here_is_not_read(family: Family, here: Repository) -> None:
    """What a fetch reads grows with what is new, not with what there is."""
    for number in range(12):
        family.tune(f"old-{number}")
    with Cut(ReceivingStore(family.repo)) as store:
        fetch(here, "origin", store)
        whole = store.read
    added = family.tune("new")
    with Cut(ReceivingStore(family.repo)) as store:
        fetch(here, "origin", store)
        assert store.read < whole / 4
        assert store.read < 1.02 * added + (512 << 10)
