"""Pushing to stores where nobody computes: what travels, what moves, what is refused."""

from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption, RefMoved, RevisionNotFound, UsageError
from mergepipe.packs.format import Content, RecordKind
from mergepipe.packs.reader import pack_ids, pack_key, read_footer
from mergepipe.repository.layout import initialise
from mergepipe.transfer.push import push
from mergepipe.transfer.push_refs import Move, PushOptions, Wanted, wanted_refs
from tests.repository.checkpoints import WHO

from .remotes import Family, Interposed, Line, copied, same_models, tuned


@pytest.fixture
def store() -> MemoryByteStore:
    return MemoryByteStore()


def packs_of(store: ByteStore) -> dict[str, int]:
    return {key: store.size(key) or 0 for key in store.list("packs/")}


def test_all_that_was_pushed_reads_there(
    family: Family, store: MemoryByteStore, tmp_path: Path
) -> None:
    for name in ("math", "code"):
        family.tune(name)
    family.repo.tag("v1")
    pushed = family.push(store, all_branches=True, tags=True)
    assert {ref.name: ref.move for ref in pushed.refs} == {
        "refs/heads/code": Move.CREATED,
        "refs/heads/main": Move.CREATED,
        "refs/heads/math": Move.CREATED,
        "refs/tags/v1": Move.CREATED,
    }
    assert pushed.bytes_sent == sum(packs_of(store).values())
    assert pushed.packs_sent == len(packs_of(store))
    with copied(store, tmp_path / "there") as there:
        assert same_models(family.repo, there, tmp_path, "main", "math", "code", "v1")
        assert there.fsck(read_data=True).ok


def test_a_repository_on_this_machine(family: Family, tmp_path: Path) -> None:
    directory = initialise(tmp_path / "there")
    with LocalByteStore(directory) as store:
        family.push(store)
        family.tune("math")
        family.push(store, "math")
    with Repository.open(tmp_path / "there", who=WHO) as there:
        assert same_models(family.repo, there, tmp_path, "main", "math")
        assert there.fsck(read_data=True).ok


def test_an_index_that_lost_an_id_makes_no_conflict(family: Family, store: MemoryByteStore) -> None:
    """Pages of the index have no checksums: a key may be gone, and its pack still listed."""
    family.push(store)
    tip = family.repo.resolve("main")
    family.tune("main")
    environment = family.repo.storage.index._environment
    with environment.write() as transaction:
        assert transaction.delete(tip, db=environment.tables.objects)
    assert not family.repo.objects.has(tip)
    [pushed] = family.push(store).refs
    assert pushed.move is Move.FORWARD


def test_one_more_fine_tune_sends_what_it_added(family: Family, store: MemoryByteStore) -> None:
    family.push(store)
    for name in ("math", "code"):
        added = family.tune(name)
        pushed = family.push(store, name)
        assert pushed.bytes_sent <= 1.02 * added
        assert pushed.commits == 1


def test_pushing_again_sends_nothing(family: Family, store: MemoryByteStore) -> None:
    family.push(store)
    before = packs_of(store)
    again = family.push(store)
    assert (again.packs_sent, again.bytes_sent) == (0, 0)
    assert [ref.move for ref in again.refs] == [Move.UNCHANGED]
    assert family.push(store, "main:other").packs_sent == 0
    assert packs_of(store) == before


def test_blocks_that_came_by_other_history_do_not_travel(
    family: Family, store: MemoryByteStore
) -> None:
    family.push(store)
    family.orphan("unrelated", "main")
    pushed = family.push(store, "unrelated")
    assert (pushed.commits, pushed.objects, pushed.blocks) == (1, 1, 0)
    assert pushed.packs_sent == 1


def test_coarse_layers_travel_in_packs_of_their_own(family: Family, store: MemoryByteStore) -> None:
    family.push(store)
    family.tune("math")
    family.push(store, "math")
    kinds = set()
    for pack in pack_ids(store):
        content, records = read_footer(store, pack)
        coarse = {header.layer + 1 < header.layers for header, _ in records}
        assert len(coarse) == 1
        assert {header.kind for header, _ in records} == {
            RecordKind.OBJECT if content is Content.OBJECTS else RecordKind.BLOCK
        }
        kinds.add((content, *coarse))
    assert kinds == {
        (Content.BLOCKS, False),
        (Content.BLOCKS, True),
        (Content.OBJECTS, False),
    }


def test_the_same_need_makes_the_same_packs(family: Family, tmp_path: Path) -> None:
    family.tune("math")
    stores = [MemoryByteStore(), MemoryByteStore()]
    for store in stores:
        family.push(store, "math")
    assert packs_of(stores[0]) == packs_of(stores[1])


def test_a_push_that_was_cut_sends_no_finished_pack_twice(family: Family, tmp_path: Path) -> None:
    for name in ("math", "code", "law"):
        family.tune(name)
    small = family.source(pack_bytes=250_000)
    asked = PushOptions(all_branches=True)
    wanted = wanted_refs(asked, family.repo.refs, family.repo.objects, "")
    whole = Line(MemoryByteStore())
    push(small, whole, wanted)
    assert len(whole.packs) > 12
    for cut in range(len(whole.packs)):
        line = Line(MemoryByteStore(), breaks_after=cut)
        with pytest.raises(ConnectionResetError):
            push(small, line, wanted)
        assert line.values("refs/") == {}
        line.breaks_after = None
        push(small, line, wanted)
        assert len(line.packs) == len(set(line.packs))
        # What was complete there is left out of packs: never more bytes than at once.
        assert set(packs_of(line)) == set(packs_of(whole))
    with copied(line.inner, tmp_path / "there") as there:
        assert same_models(family.repo, there, tmp_path, "main", "math", "code", "law")


def test_blocks_whose_base_stays_here_are_encoded_anew(
    family: Family, store: MemoryByteStore, tmp_path: Path
) -> None:
    """`draft` leans on main's blocks, but its history does not bring main."""
    family.tune("draft")
    family.orphan("lone", "draft")
    pushed = family.push(store, "lone")
    assert pushed.commits == 1
    with copied(store, tmp_path / "there") as there:
        assert same_models(family.repo, there, tmp_path, "lone")
        assert there.fsck(read_data=True).ok
    again = MemoryByteStore()
    family.push(again, "lone")
    assert packs_of(again) == packs_of(store)


def test_blocks_encoded_anew_lean_on_what_is_there(
    family: Family, store: MemoryByteStore, tmp_path: Path
) -> None:
    """main <- draft <- final: draft stays here, main is there."""
    family.push(store, "main")
    family.tune("draft")
    final = {key: tuned(w) for key, w in family.base.items()}
    family.commit("final", final, "draft")
    family.orphan("lone", "final")
    pushed = family.push(store, "lone")
    assert pushed.bytes_sent < 0.8 * pushed.raw_bytes
    with copied(store, tmp_path / "there") as there:
        assert same_models(family.repo, there, tmp_path, "lone")
        report = there.fsck(read_data=True)
        assert report.ok
        assert not report.notes


def test_what_is_not_a_fast_forward_is_refused(family: Family, store: MemoryByteStore) -> None:
    family.push(store)
    old = family.repo.resolve("main")
    family.commit("other", {"w": family.base["layer.0"]})
    with pytest.raises(RefMoved, match="does not descend") as caught:
        family.push(store, "other:main")
    assert caught.value.exit_code == 14
    assert "fetch" in caught.value.hint
    assert "--force" in caught.value.hint
    forced = family.push(store, "+other:main")
    assert forced.refs[0].move is Move.FORCED
    assert forced.refs[0].old == old
    assert family.push(store, "main", force=True).refs[0].move is Move.FORCED
    assert family.push(store, "main").refs[0].move is Move.UNCHANGED


def test_nothing_is_sent_where_one_ref_is_refused(family: Family, store: MemoryByteStore) -> None:
    family.push(store)
    family.commit("other", {"w": family.base["layer.0"]})
    before = packs_of(store)
    with pytest.raises(RefMoved, match="branch 'main'"):
        family.push(store, "other:main", "other")
    assert packs_of(store) == before
    assert set(store.values("refs/")) == {"refs/heads/main"}


def test_history_that_is_not_here_is_no_fast_forward(
    family: Family, store: MemoryByteStore
) -> None:
    store.put("refs/heads/main", b"7" * 64 + b"\n")
    with pytest.raises(RefMoved) as caught:
        family.push(store)
    assert "mp fetch" in caught.value.hint


def test_tags_do_not_move(family: Family, store: MemoryByteStore) -> None:
    family.repo.tag("v1")
    family.push(store, "v1")
    family.tune("main")
    family.repo.tag("v1", "main", force=True)
    with pytest.raises(RefMoved, match="tags do not move"):
        family.push(store, "v1")
    assert family.push(store, "v1", force=True).refs[0].move is Move.FORCED


def test_deleting(family: Family, store: MemoryByteStore) -> None:
    family.tune("math")
    family.repo.tag("v1")
    family.push(store, "main", "math", "v1")
    gone = family.push(store, "math", "v1", delete=True)
    assert [(ref.name, ref.new, ref.move) for ref in gone.refs] == [
        ("refs/heads/math", None, Move.DELETED),
        ("refs/tags/v1", None, Move.DELETED),
    ]
    assert set(store.values("refs/")) == {"refs/heads/main"}
    with pytest.raises(RevisionNotFound, match="the remote has no branch 'math'"):
        family.push(store, ":math")


def test_leases(family: Family, store: MemoryByteStore) -> None:
    family.push(store)
    seen = family.repo.resolve("main")
    family.repo.refs.update("refs/remotes/origin/main", seen, expected=None, who=WHO, why="push")
    family.commit("other", {"w": family.base["layer.0"]})
    family.commit("third", {"w": family.base["layer.1"]})
    # Nobody moved it since: forced.
    moved = family.push(store, "other:main", remote="origin", lease_all=True)
    assert moved.refs[0].move is Move.FORCED
    # refs/remotes/ was not told: refused, and so with the old value named.
    for leases in ((), (f"main:{seen.hex()}",)):
        with pytest.raises(RefMoved, match="as you last saw it"):
            family.push(store, "third:main", remote="origin", lease_all=not leases, leases=leases)
    other = family.repo.resolve("other").hex()
    assert family.push(store, "third:main", leases=(f"main:{other}",)).refs[0].move is Move.FORCED
    with pytest.raises(RefMoved, match="not at no commit"):
        family.push(store, "other:main", leases=("main:",), force=True)
    with pytest.raises(UsageError, match="nothing here says"):
        family.push(store, "other:main", leases=("main",))
    with pytest.raises(UsageError, match="not pushed"):
        family.push(store, "third", leases=("main:",))


def test_what_may_be_named(family: Family, store: MemoryByteStore) -> None:
    family.tune("main")
    assert family.push(store, "main~1:old").refs[0].name == "refs/heads/old"
    assert family.push(store, "HEAD").refs[0].name == "refs/heads/main"
    assert family.push(store, "main:refs/tags/v2").refs[0].name == "refs/tags/v2"
    for asked, message in (
        (("main~1",), "no branch or tag"),
        (("nothing",), "nothing"),
        ((":",), "not a ref"),
        (("main:refs/remotes/x/y",), "branches and tags only"),
        (("main:x", "main~1:x"), "two places"),
    ):
        with pytest.raises((UsageError, RevisionNotFound), match=message):
            family.push(store, *asked)
    family.repo.refs.set_head(family.repo.resolve("main"), who=WHO, why="detached")
    with pytest.raises(UsageError, match="HEAD is on no branch"):
        family.push(store)


class Rival(Interposed):
    """Another pusher moves the ref right before our swap."""

    def __init__(self, inner: ByteStore, value: bytes) -> None:
        super().__init__(inner)
        self.value = value

    def compare_and_swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        self.inner.put(key, self.value)
        return super().compare_and_swap(key, old, new)


def test_another_pusher_was_faster(family: Family, store: MemoryByteStore) -> None:
    family.push(store)
    old = family.repo.resolve("main").hex()
    family.tune("main")
    with pytest.raises(RefMoved, match=f"from {old[:12]} to {'7' * 12} meanwhile") as caught:
        family.push(Rival(store, b"7" * 64 + b"\n"))
    assert "mp fetch" in caught.value.hint
    assert store.get("refs/heads/main") == b"7" * 64 + b"\n"


def test_another_pusher_pushed_the_same(family: Family, store: MemoryByteStore) -> None:
    value = family.repo.resolve("main").hex().encode() + b"\n"
    assert family.push(Rival(store, value)).refs[0].new == family.repo.resolve("main")


def test_refs_that_moved_are_told_before_one_fails(family: Family, store: MemoryByteStore) -> None:
    class Half(Interposed):
        def compare_and_swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
            if key.endswith("main"):
                raise ConnectionResetError
            return super().compare_and_swap(key, old, new)

    family.tune("math")
    told: list[str] = []
    wanted = [Wanted(f"refs/heads/{name}", family.repo.resolve(name)) for name in ("main", "math")]
    with pytest.raises(ConnectionResetError):
        push(family.source(), Half(store), wanted, moved=lambda ref: told.append(ref.name))
    assert told == ["refs/heads/math"]  # it needs main's commit, so it is first


def test_an_empty_bucket_gets_a_head(family: Family, store: MemoryByteStore) -> None:
    family.tune("math")
    family.push(store, "math")
    assert store.get("HEAD") == b"ref: refs/heads/math\n"
    family.push(store, "main")
    assert store.get("HEAD") == b"ref: refs/heads/math\n"


def test_packs_stay_within_their_size(family: Family) -> None:
    wanted = wanted_refs(PushOptions(), family.repo.refs, family.repo.objects, "")
    store = MemoryByteStore()
    push(family.source(pack_bytes=300_000), store, wanted)
    sizes = packs_of(store)
    assert len(sizes) > 3
    assert max(sizes.values()) <= 300_000


def test_what_is_damaged_here_does_not_travel(family: Family, store: MemoryByteStore) -> None:
    for pack in pack_ids(family.repo.store):
        content, records = read_footer(family.repo.store, pack)
        if content is Content.BLOCKS:
            header, offset = records[-1]
            path = family.repo.directory / pack_key(pack)
            data = bytearray(path.read_bytes())
            data[offset + 128 + header.encoded_length // 2] ^= 4
            path.write_bytes(data)
    with pytest.raises(Corruption, match="damaged"):
        family.push(store)
    assert store.values("refs/") == {}
