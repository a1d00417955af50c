"""Pushing to repositories that check what they are sent: cuts, losses, races."""

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption, MissingObject, RefMoved
from mergepipe.packs.format import Content
from mergepipe.packs.reader import pack_ids, pack_key, read_footer
from mergepipe.transfer.push import push
from mergepipe.transfer.push_refs import PushOptions, wanted_refs
from mergepipe.transfer.receiving import ReceivingStore
from tests.repository.checkpoints import WHO

from .remotes import Family, HoldingLine, same_models, tuned


def test_a_family(family: Family, there: Repository, tmp_path: Path) -> None:
    family.tune("math")
    with ReceivingStore(there) as store:
        family.push(store, all_branches=True)
        added = family.tune("code")
        pushed = family.push(store, "code")
        assert pushed.bytes_sent <= 1.02 * added
        assert family.push(store, "code", "math").packs_sent == 0
    assert same_models(family.repo, there, tmp_path, "main", "math", "code")
    assert there.fsck(read_data=True).ok
    assert not [*(there.directory / "incoming").glob("*.pack")]


def test_a_push_that_was_cut_goes_on(family: Family, tmp_path: Path) -> None:
    for name in ("math", "code"):
        family.tune(name)
    small = family.source(pack_bytes=250_000)
    wanted = wanted_refs(PushOptions(all_branches=True), family.repo.refs, family.repo.objects, "")
    count, cut = 1, 0
    while cut < count:
        with (
            Repository.init(tmp_path / f"there-{cut}", who=WHO) as there,
            HoldingLine(ReceivingStore(there), breaks_after=cut) as line,
        ):
            with pytest.raises(ConnectionResetError):
                push(small, line, wanted)
            assert there.refs.list() == {}
            assert not [*(there.directory / "packs").iterdir()]
            line.breaks_after = None
            push(small, line, wanted)
            assert len(line.packs) == len(set(line.packs))
            count = len(line.packs)
            assert same_models(family.repo, there, tmp_path / str(cut), "main", "math", "code")
        cut += 3
    assert count > 6  # cuts fall between block packs, and before and after the objects


class Forgetful(HoldingLine):
    """Its gc ran between the answer and the swap: what it said it held is gone."""

    def __init__(self, inner: ByteStore, there: Repository, times: int = 1) -> None:
        super().__init__(inner)
        self.there = there
        self.times = times

    def compare_and_swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        if self.times:
            self.times -= 1
            self.there.gc(keep_reflog=False, grace_s=0)
        return super().compare_and_swap(key, old, new)


def test_what_the_other_side_lost_meanwhile_is_sent(
    family: Family, there: Repository, tmp_path: Path
) -> None:
    family.orphan("again", "main")
    with Forgetful(ReceivingStore(there), there, times=0) as store:
        family.push(store)
        # Nothing there needs main's blocks any more, but they are still held.
        there.refs.set_head("refs/heads/none", who=WHO, why="away")
        family.push(store, ":main")
        store.times = 1
        pushed = family.push(store, "again")
    assert pushed.packs_sent > 1
    assert same_models(family.repo, there, tmp_path, "again")
    assert there.fsck(read_data=True).ok


class Liar(HoldingLine):
    """Says that it holds everything."""

    def holds(self, ids: Sequence[bytes]) -> list[bool]:
        return [True] * len(ids)


def test_another_side_that_says_it_holds_all(family: Family, there: Repository) -> None:
    with Liar(ReceivingStore(there)) as store, pytest.raises(MissingObject):
        family.push(store)
    assert there.refs.list() == {}


def test_damage_here_is_told_apart(family: Family, there: Repository) -> None:
    """The other side finds it; the message says where it is."""
    for pack in pack_ids(family.repo.store):
        content, records = read_footer(family.repo.store, pack)
        if content is Content.BLOCKS:
            header, offset = records[-1]
            path = family.repo.directory / pack_key(pack)
            data = bytearray(path.read_bytes())
            data[offset + 128 + header.encoded_length // 2] ^= 4
            path.write_bytes(data)
    with (
        ReceivingStore(there) as store,
        pytest.raises(Corruption, match=f"{header.id.hex()} at {offset} is damaged") as caught,
    ):
        family.push(store)
    assert "mp fsck" in caught.value.hint
    assert there.refs.list() == {}


def test_two_pushers_race(family: Family, there: Repository, tmp_path: Path) -> None:
    """One of them wins, the other is told so; nothing of either is lost."""
    with ReceivingStore(there) as store:
        family.push(store)
    for name in ("one", "two"):
        family.repo.branch(name, "main")
        family.commit(name, {key: tuned(w) for key, w in family.base.items()}, "main")
    outcomes: dict[str, object] = {}
    gate = threading.Barrier(2)

    class Gated(HoldingLine):
        def compare_and_swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
            gate.wait()
            return super().compare_and_swap(key, old, new)

    def run(name: str) -> None:
        with ReceivingStore(there) as store:
            try:
                outcomes[name] = family.push(Gated(store), f"{name}:main")
            except RefMoved as error:
                outcomes[name] = error

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lost = [name for name, outcome in outcomes.items() if isinstance(outcome, RefMoved)]
    assert len(lost) == 1
    won = ({"one", "two"} - set(lost)).pop()
    assert there.resolve("main") == family.repo.resolve(won)
    error = outcomes[lost[0]]
    assert isinstance(error, RefMoved)
    assert family.repo.resolve(won).hex()[:12] in error.message
    assert family.repo.resolve("main").hex()[:12] in error.message
    assert there.fsck(read_data=True).ok
