"""Which encodings travel: always readable at the other side, never deeper than allowed."""

import random
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergepipe.dtypes import U8
from mergepipe.errors import MissingObject
from mergepipe.ids import BlockId, block_id
from mergepipe.packs.transaction import Transaction
from mergepipe.transfer.wire_choice import Choice, Chooser
from mergepipe.transfer.wire_packs import FreshGroup, Grouping, StoredGroup
from tests.packs.delta_codec import delta_block, open_storage, raw_block

RAWS = [random.Random(number).randbytes(200) for number in range(10)]
IDS = [block_id(raw) for raw in RAWS]


class Held:
    """Another side that holds certain blocks."""

    def __init__(self, blocks: set[BlockId]) -> None:
        self.blocks = blocks

    def holds(self, ids: Sequence[bytes]) -> list[bool]:
        return [identity in self.blocks for identity in ids]


def choose(
    root: Path,
    encodings: set[tuple[int, int | None]],
    candidates: list[int],
    held: set[int],
    max_chain: int,
    batch: int = 3,
) -> list[Choice]:
    storage = open_storage(root)
    try:
        for block, base in sorted(encodings, key=str):
            # One by one: a transaction keeps one encoding of a block only.
            with Transaction(storage) as transaction:
                raw = RAWS[block]
                transaction.add_block(
                    raw_block(raw) if base is None else delta_block(raw, RAWS[base])
                )
                transaction.publish()
        ids = [IDS[number] for number in candidates]
        there = {IDS[number] for number in held}
        chooser = Chooser(
            storage,
            Held(there),
            set(ids),
            {identity: identity in there for identity in ids},
            max_chain=max_chain,
        )
        found: list[Choice] = []
        for at in range(0, len(ids), batch):
            found += chooser.choose(ids[at : at + batch])
        return found
    finally:
        storage.close()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_other_side_can_always_read_what_travels(data: st.DataObject) -> None:
    count = len(RAWS)
    # Every block is readable here: alone, or over blocks of lower number; and by more ways yet.
    ways: set[tuple[int, int | None]] = {(0, None)}
    for block in range(1, count):
        ways.add((block, data.draw(st.one_of(st.none(), st.integers(0, block - 1)))))
    pairs = st.tuples(st.integers(0, count - 1), st.one_of(st.none(), st.integers(0, count - 1)))
    ways |= {(a, b) for a, b in data.draw(st.sets(pairs, max_size=12)) if a != b}
    candidates = data.draw(st.permutations(range(count)))[: data.draw(st.integers(1, count))]
    held = data.draw(st.sets(st.integers(0, count - 1)))
    max_chain = data.draw(st.integers(0, 3))
    with TemporaryDirectory() as folder:
        chosen = choose(Path(folder), ways, candidates, held, max_chain)
    assert [choice.block for choice in chosen] == [IDS[number] for number in candidates]
    depths: dict[BlockId, int] = {IDS[n]: 0 for n in held if n not in candidates}
    waiting = {choice.block: choice for choice in chosen}
    while waiting:
        ready = [c for c in waiting.values() if c.base is None or c.base in depths]
        assert ready, "a base that is not there, or a circle"
        for choice in ready:
            depths[choice.block] = 0 if choice.base is None else depths[choice.base] + 1
            del waiting[choice.block]
            assert choice.held == (choice.block in {IDS[n] for n in held})
            if choice.encoding is not None:
                assert choice.encoding.base == choice.base
    assert max(depths.values()) <= max_chain
    # What can travel as it is does: alone, or over what is there.
    for choice in chosen:
        number = IDS.index(choice.block)
        if (number, None) in ways:
            assert choice.encoding is not None


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_what_came_meanwhile_changes_no_choice(before: set[int], more: set[int]) -> None:
    ways = {(0, None), (1, 0), (2, 0), (2, 1), (3, 2), (4, 3), (4, None), (5, 1), (6, 5)}
    candidates = [1, 2, 4, 3, 6]
    foreign = {number for number in before if number not in candidates}
    with TemporaryDirectory() as folder:
        first = choose(Path(folder) / "a", ways, candidates, foreign, 2)
        came = foreign | {number for number in more if number in candidates}
        again = choose(Path(folder) / "b", ways, candidates, came, 2)
    assert [_way(choice) for choice in first] == [_way(choice) for choice in again]


def _way(choice: Choice) -> tuple[object, ...]:
    return (choice.block, choice.base, choice.encoding is None)


def test_the_fewest_bytes_travel(tmp_path: Path) -> None:
    """A delta over what is there rather than the whole; the whole where its base is not."""
    ways = {(0, None), (1, None), (1, 0)}
    delta_bytes = delta_block(RAWS[1], RAWS[0]).stored_bytes
    whole_bytes = raw_block(RAWS[1]).stored_bytes
    smaller = 0 if delta_bytes < whole_bytes else None
    over = choose(tmp_path / "a", ways, [1], {0}, 2)[0]
    assert over.base == (None if smaller is None else IDS[0])
    alone = choose(tmp_path / "b", ways, [1], set(), 2)[0]
    assert alone.base is None
    assert alone.encoding is not None


def test_a_block_that_is_not_here_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingObject, match=IDS[3].hex()):
        choose(tmp_path, {(0, None)}, [0, 3], set(), 2)


def test_groups_stay_when_some_of_their_blocks_came(tmp_path: Path) -> None:
    """What is held is left out of its group, and no other group changes."""
    storage = open_storage(tmp_path)
    with Transaction(storage) as transaction:
        for raw in RAWS:
            transaction.add_block(raw_block(raw))
        transaction.publish()

    def groups(held: set[BlockId]) -> list[StoredGroup]:
        chooser = Chooser(
            storage, Held(held), set(IDS), {each: each in held for each in IDS}, max_chain=2
        )
        grouping = Grouping(storage, chooser, pack_bytes=72 + 3 * (128 + 200 + 136))
        candidates = ((identity, 200, U8) for identity in IDS)
        found = list(grouping.run(candidates))
        assert not any(isinstance(group, FreshGroup) for group in found)
        return [group for group in found if isinstance(group, StoredGroup)]

    whole = groups(set())
    assert [len(group.encodings) for group in whole] == [3, 3, 3, 1]
    some = groups({IDS[1], *IDS[3:6]})
    assert [len(group.encodings) for group in some] == [2, 3, 1]
    assert [group.packs for group in some[1:]] == [group.packs for group in whole[2:]]
    assert groups(set(IDS)) == []
    storage.close()
