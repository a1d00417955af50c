"""Sets of ids as sorted arrays."""

import numpy as np

from mergepipe.ids import BlockId, digest
from mergepipe.packs.id_arrays import (
    NO_IDS,
    OrderedIds,
    among,
    batches,
    sorted_ids,
    union,
    whole,
    without,
)

ZEROS = BlockId(bytes([7]) * 20 + bytes(12))
ONE, TWO, THREE = (BlockId(digest(name)) for name in (b"one", b"two", b"three"))


def test_ids_are_whole_again() -> None:
    ids = sorted_ids([TWO, ZEROS, ONE, TWO])
    expected = sorted([ONE, TWO, ZEROS])
    assert [whole(each) for each in ids] == expected
    assert list(batches(ids, 2)) == [expected[:2], expected[2:]]
    assert list(batches(NO_IDS, 2)) == []


def test_sets_of_ids() -> None:
    one, both = sorted_ids([ONE, ZEROS]), sorted_ids([ONE, TWO, ZEROS])
    assert among(both, one).tolist() == [whole(each) in (ONE, ZEROS) for each in both]
    assert [whole(each) for each in without(both, one)] == [TWO]
    assert union(one, sorted_ids([TWO])).tolist() == both.tolist()
    for empty in (without(NO_IDS, one), without(one, one), union(NO_IDS, NO_IDS)):
        assert len(empty) == 0
    assert union(one, NO_IDS).tolist() == union(NO_IDS, one).tolist() == one.tolist()


def test_the_first_place_of_each_counts_however_many_come() -> None:
    ordered = OrderedIds()
    ordered.add(TWO + ZEROS + TWO)
    assert [whole(each) for each in ordered.ids] == sorted([TWO, ZEROS])
    ordered.add(ONE + ZEROS)
    asked = np.frombuffer(ZEROS + THREE + ONE + TWO, ordered.ids.dtype)
    assert ordered.places(asked).tolist() == [1, 5, 3, 0]
    many = [digest(b"%d" % number) for number in range(1000)]
    for _ in range(200):  # more than are kept before they are sorted in
        ordered.add(b"".join(many))
    assert len(ordered.ids) == 1003
    assert ordered.places(np.frombuffer(many[10] + ONE, ordered.ids.dtype)).tolist() == [15, 3]
    assert OrderedIds().places(asked).tolist() == [0, 0, 0, 0]
