"""The table of blocks that history reaches."""

from mergepipe.ids import BlockId, ObjectId, digest
from mergepipe.repository.block_uses import BlockUses
from mergepipe.repository.problems import Owner

ZEROS = BlockId(bytes([7]) * 20 + bytes(12))
ONE, TWO = (BlockId(digest(name)) for name in (b"one", b"two"))
HERE, THERE = Owner(None, "here"), Owner(None, "there")
TENSORS = [ObjectId(digest(name)) for name in (b"a", b"b")]


def test_each_block_once_with_its_length_and_first_user() -> None:
    uses = BlockUses()
    uses.add(HERE, TENSORS[0], ONE + ZEROS + ONE, 100, 300)
    uses.add(THERE, TENSORS[1], TWO + ZEROS, 100, 200)
    assert list(uses.settle()) == []
    [(start, ids)] = uses.batches(10)
    assert start == 0
    assert ids == sorted([ONE, TWO, ZEROS])
    assert uses.total_bytes() == 300
    owners = {uses.id(row): uses.owner(row) for row in range(len(uses))}
    assert owners == {ONE: HERE, ZEROS: HERE, TWO: THERE}
    assert [start for start, _ in uses.batches(2)] == [0, 2]


def test_a_block_cannot_have_two_lengths() -> None:
    uses = BlockUses()
    uses.add(HERE, TENSORS[0], ONE + TWO, 100, 160)
    uses.add(THERE, TENSORS[1], TWO, 100, 100)
    assert list(uses.settle()) == [(THERE, TENSORS[1], TWO, 100, 60)]
    assert {uses.id(row): uses.length(row) for row in range(2)} == {ONE: 100, TWO: 60}


def test_nothing() -> None:
    uses = BlockUses()
    uses.add(HERE, TENSORS[0], b"", 100, 0)
    assert list(uses.settle()) == []
    assert (len(uses), uses.total_bytes(), list(uses.batches(5))) == (0, 0, [])
