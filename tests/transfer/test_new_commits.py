"""What commits need: complete, in publish order, less what is known; and what is refused."""

import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from mergepipe.api import Repository
from mergepipe.errors import Corruption, MissingObject
from mergepipe.ids import ObjectId, object_id
from mergepipe.objects.encoding import decode, encode, unchecked
from mergepipe.objects.grid import blocks_of
from mergepipe.objects.merging import Manifest, Profile
from mergepipe.objects.records import (
    Blob,
    Commit,
    FileEntry,
    Record,
    Safetensors,
    Snapshot,
    Tensor,
    TensorEntry,
)
from mergepipe.repository.closure import Needed
from mergepipe.transfer.new_commits import commits_between, known_objects, objects_of
from tests.repository.checkpoints import commit, new_repository, write_model


class Shelf:
    """Objects in a dict. Ids may be given, which no honest store allows: for cycles."""

    def __init__(self) -> None:
        self.objects: dict[ObjectId, bytes] = {}
        self.reads = 0

    def put(self, record: Record, identity: bytes | None = None) -> ObjectId:
        canonical = encode(record)
        key = ObjectId(identity) if identity is not None else object_id(canonical)
        self.objects[key] = canonical
        return key

    def canonical(self, identity: ObjectId) -> bytes:
        self.reads += 1
        try:
            return self.objects[identity]
        except KeyError:
            raise MissingObject(f"object {identity.hex()} is in no pack") from None

    def present(self, candidates: Iterable[ObjectId]) -> list[ObjectId]:
        return [one for one in candidates if one in self.objects]

    def tensor(self, content: bytes, block_bytes: int = 4) -> ObjectId:
        blocks = [content[at : at + block_bytes] for at in range(0, len(content), block_bytes)]
        ids = b"".join(object_id(block) for block in blocks)
        return self.put(Tensor("U8", (len(content),), block_bytes, ids))

    def snapshot(self, content: bytes, path: str = "a.bin") -> ObjectId:
        return self.put(
            Snapshot((FileEntry(path, False, len(content), Blob(self.tensor(content))),))
        )

    def commit(
        self,
        snapshot: ObjectId,
        *parents: ObjectId,
        base: ObjectId | None = None,
        time: int = 0,
        identity: bytes | None = None,
        **more: ObjectId,
    ) -> ObjectId:
        return self.put(Commit(snapshot, parents, base, "a", time, 0, "m", **more), identity)


def ids(found: Iterable[Needed]) -> list[ObjectId]:
    return [each.id for each in found]


def closure(shelf: Shelf, *tips: ObjectId, known: Iterable[ObjectId] = ()) -> list[Needed]:
    new = commits_between(shelf, tips, known)
    return list(objects_of(shelf, new.commits, known_objects(shelf, new.boundary)))


def test_what_an_object_needs_comes_before_it() -> None:
    shelf = Shelf()
    base = shelf.commit(shelf.snapshot(b"base"), time=1)
    side = shelf.commit(shelf.snapshot(b"side"), base, time=2)
    merge = shelf.commit(shelf.snapshot(b"merge"), base, side, base=base, time=3)
    found = closure(shelf, merge)
    assert sorted(ids(found)) == sorted(shelf.objects)
    place = {each.id: number for number, each in enumerate(found)}
    for each in found:
        if each.kind == "commit":
            named = [other for other in place if each.canonical.find(other) >= 0]
            assert named
            assert all(place[other] < place[each.id] for other in named)
    assert [each.kind for each in found[:3]] == ["tensor", "snapshot", "commit"]


def test_known_history_is_left_out_with_what_it_brings() -> None:
    shelf = Shelf()
    first = shelf.commit(shelf.snapshot(b"same"), time=1)
    second = shelf.commit(shelf.snapshot(b"same"), first, time=2)  # the same snapshot again
    third = shelf.commit(shelf.snapshot(b"other"), second, time=3)
    assert ids(closure(shelf, second, known=[first])) == [second]
    assert [each.kind for each in closure(shelf, third, known=[second])] == [
        "tensor",
        "snapshot",
        "commit",
    ]
    assert closure(shelf, first, known=[third]) == []


def test_a_base_is_history_too() -> None:
    shelf = Shelf()
    base = shelf.commit(shelf.snapshot(b"base"), time=1)
    tip = shelf.commit(shelf.snapshot(b"tip"), base=base, time=2)
    assert commits_between(shelf, [tip], []).commits == (base, tip)
    assert commits_between(shelf, [tip], [base]) == commits_between(shelf, [tip], [base, base])
    assert commits_between(shelf, [tip], [base]).boundary == (base,)


def test_history_that_only_the_other_side_has_tells_nothing() -> None:
    shelf = Shelf()
    tip = shelf.commit(shelf.snapshot(b"tip"))
    stranger = ObjectId(bytes([7]) * 32)
    assert commits_between(shelf, [tip], [stranger]).commits == (tip,)


def test_wrong_clocks_cost_at_most_a_few_commits() -> None:
    """Known commits with times from the future and the past: nothing new is left out."""
    shelf = Shelf()
    times = [5, 900, 3, 800, 1, 700]
    line: list[ObjectId] = []
    for number, when in enumerate(times):
        line.append(shelf.commit(shelf.snapshot(b"%d" % number), *line[-1:], time=when))
    new = shelf.commit(shelf.snapshot(b"new"), line[2], time=-5)
    found = commits_between(shelf, [new], [line[-1]])
    assert found.commits == (new,)
    assert found.boundary == (line[2],)


def test_where_histories_meet_the_walk_ends() -> None:
    shelf = Shelf()
    snapshot = shelf.snapshot(b"x")
    line: list[ObjectId] = []
    for number in range(1000):
        line.append(shelf.commit(snapshot, *line[-1:], time=number))
    shelf.reads = 0
    assert len(commits_between(shelf, [line[-1]], [line[-3]]).commits) == 2
    assert shelf.reads < 50


def test_ten_thousand_commits() -> None:
    shelf = Shelf()
    line: list[ObjectId] = []
    for number in range(10_000):
        snapshot = shelf.snapshot(b"model %d" % (number // 100))
        line.append(shelf.commit(snapshot, *line[-1:], time=number))
    shelf.reads = 0
    tracemalloc.start()
    found = sum(1 for _ in objects_of(shelf, commits_between(shelf, [line[-1]], []).commits, {}))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == len(shelf.objects)
    assert peak < 24 << 20
    assert shelf.reads < 25_000  # a line of 10,000 is walked, not climbed again for each


def test_a_profile_and_all_that_a_manifest_names_come_along() -> None:
    shelf = Shelf()
    expert = shelf.snapshot(b"expert")
    base = shelf.snapshot(b"base")
    profile = shelf.put(Profile(expert, base, ()))
    gone = ObjectId(bytes([9]) * 32)
    manifest = shelf.put(Manifest(gone, "ties", 0, base, base, (expert,), gone, ()))
    tip = shelf.commit(shelf.snapshot(b"merged"), profile=profile, manifest=manifest)
    found = ids(closure(shelf, tip))
    assert {expert, base, profile, manifest} <= set(found)
    assert gone not in found


def test_missing_objects_are_named_with_what_needs_them() -> None:
    shelf = Shelf()
    gone = ObjectId(bytes([9]) * 32)
    lost = shelf.commit(gone)
    orphan = shelf.commit(shelf.snapshot(b"x"), gone)
    for tip in (lost, orphan):
        with pytest.raises(MissingObject, match=rf"{gone.hex()}.*{tip.hex()[:12]} needs it"):
            closure(shelf, tip)


def test_objects_of_the_wrong_kind_are_refused() -> None:
    shelf = Shelf()
    tensor = shelf.tensor(b"abcd")
    tip = shelf.commit(tensor)
    with pytest.raises(Corruption, match="is a tensor, not a snapshot"):
        closure(shelf, tip)
    good = shelf.commit(shelf.snapshot(b"abcd"))
    with pytest.raises(Corruption, match="is a tensor, not a snapshot"):
        closure(shelf, shelf.commit(tensor, good), known=[good])  # known as a tensor
    with pytest.raises(Corruption, match="tensor 1"):
        closure(shelf, shelf.commit(shelf.snapshot(b"x"), tensor))
    with pytest.raises(Corruption, match="not a manifest"):
        closure(shelf, shelf.commit(shelf.snapshot(b"x"), manifest=tensor))


def test_cycles_are_refused() -> None:
    shelf = Shelf()
    one, two = (ObjectId(bytes([n]) * 32) for n in (1, 2))
    snapshot = shelf.snapshot(b"x")
    shelf.commit(snapshot, two, identity=one)
    shelf.commit(snapshot, one, identity=two)
    with pytest.raises(Corruption, match="its own ancestors"):
        commits_between(shelf, [one], [])
    with pytest.raises(Corruption, match="part of what it needs"):
        list(objects_of(shelf, [one], {}))


def test_files_have_to_add_up() -> None:
    shelf = Shelf()
    header, weights = shelf.tensor(b"head"), shelf.tensor(b"weights!")
    content = Safetensors(header, (TensorEntry("w", weights),))
    fine = shelf.put(Snapshot((FileEntry("m.safetensors", False, 12, content),)))
    assert len(closure(shelf, shelf.commit(fine))) == 4
    short = shelf.put(Snapshot((FileEntry("m.safetensors", False, 11, content),)))
    with pytest.raises(Corruption, match=r"of 11 bytes has 12 bytes"):
        closure(shelf, shelf.commit(short))
    parent = shelf.commit(fine)
    with pytest.raises(Corruption, match=r"of 11 bytes has 12 bytes"):
        closure(shelf, shelf.commit(short, parent), known=[parent])


def test_a_file_twice_is_refused() -> None:
    shelf = Shelf()
    file = FileEntry("a", False, 4, Blob(shelf.tensor(b"abcd")))
    with pytest.raises(Corruption, match="twice"):
        closure(shelf, shelf.commit(shelf.put(Snapshot((file, file)))))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (Tensor("U8", (9,), 4, bytes(64)), "2 blocks for 9 bytes"),
        (Tensor("U8", (1 << 60,), 1, bytes(32)), "1 blocks for"),
        (Tensor("U8", (4,), 4, bytes(33)), "has 33 bytes"),
        (Tensor("Q7", (4,), 4, bytes(32)), "unknown dtype"),
        (Tensor("U8", (1,) * 65, 4, bytes(32)), "length <= 64"),
    ],
)
def test_blocks_have_to_make_the_tensor(tensor: Tensor, message: str) -> None:
    canonical = unchecked(tensor)
    with pytest.raises(Corruption, match=message):
        blocks_of(decode(canonical, Tensor, "it"), "it")


def test_blocks_of_a_tensor(tmp_path: Path) -> None:
    with new_repository(tmp_path / "repo") as repo:
        tip = commit(repo, write_model(tmp_path / "m", {"w": np.arange(3000.0)}), "main")
        records = [each.record for each in _of(repo, tip)]
        tensors = [record for record in records if isinstance(record, Tensor)]
        lengths = [[use.length for use in blocks_of(tensor, "it")] for tensor in tensors]
    assert lengths[-1] == [4096] * 5 + [24000 - 5 * 4096]


def _of(repo: Repository, tip: ObjectId) -> list[Needed]:
    return list(objects_of(repo.objects, commits_between(repo.objects, [tip], []).commits, {}))
