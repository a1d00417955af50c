"""Promised packs when the other side changes, and work of one's own on top of them."""

from pathlib import Path

import numpy as np
import pytest

from mergepipe.api import Repository
from mergepipe.bytestore.local import LocalByteStore
from mergepipe.errors import MissingObject
from mergepipe.lazy.promised_pack import PROMISED
from mergepipe.packs.format import Content
from mergepipe.packs.reader import pack_key, read_footer
from tests.lazy.clones import Clone, block_packs, clone_of_two_models, files
from tests.repository.checkpoints import WHO, bf16, commit, write_model


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return clone_of_two_models(tmp_path)


def test_packs_that_the_remote_joined_are_found_again(clone: Clone, tmp_path: Path) -> None:
    """Its gc rewrote them: new names, other places; what came before is kept."""
    with clone.opened() as repository:
        repository.tensor("tuned", "t0")
        came = clone.remote.bytes
        rewrite_packs(clone.origin)
        clone.remote.forget_files()
        clone.remote.reads.clear()
        repository.checkout("tuned", to=tmp_path / "out")
        repository.checkout("main", to=tmp_path / "base")
        assert repository.fsck(read_data=True).ok
        frames = sum(length for _, _, length in clone.remote.reads if length <= 65536)
        assert clone.remote.bytes < repository.usage().stored_bytes - came + frames
    assert files(tmp_path / "out") == files(tmp_path / "tuned")
    assert files(tmp_path / "base") == files(tmp_path / "main")


def test_what_the_remote_dropped_and_we_hold_survives(clone: Clone, tmp_path: Path) -> None:
    with clone.opened() as repository:
        repository.checkout("main", to=tmp_path / "one")
        held = repository.tensor("tuned", "t0")
        with Repository(clone.origin, who=WHO) as origin:
            origin.delete_branch("tuned", force=True)
            assert origin.gc(keep_reflog=False, grace_s=0).packs_removed
        clone.remote.forget_files()
        for _ in range(2):
            again = repository.tensor("tuned", "t0")
            assert bool((again == held).all())
            with pytest.raises(MissingObject):
                repository.tensor("tuned", "t5")
        repository.checkout("main", to=tmp_path / "two")
    assert files(tmp_path / "two") == files(tmp_path / "main")


def test_gc_and_fsck_leave_promises_alone(clone: Clone, tmp_path: Path) -> None:
    with clone.opened() as repository:
        repository.tensor("tuned", "t4")
        came = clone.remote.bytes
        before = sorted(repository.store.list(PROMISED))
        usage = repository.usage()
        assert usage.promised_bytes > 0
        assert usage.packs_bytes + usage.promised_bytes > usage.stored_bytes
        report = repository.fsck(read_data=True)
        assert report.ok
        assert [note.kind.value for note in report.notes] == ["promised"]
        repository.delete_branch("tuned", force=True)
        found = repository.gc(keep_reflog=False, grace_s=0)
        assert found.packs_rewritten == 0
        assert sorted(repository.store.list(PROMISED)) == before
        assert repository.fsck(read_data=True).ok
        repository.storage.rebuild()
        assert clone.remote.bytes == came
        repository.checkout("main", to=tmp_path / "out")
    assert files(tmp_path / "out") == files(tmp_path / "main")


def test_work_on_top_of_promises_is_our_own(clone: Clone, tmp_path: Path) -> None:
    """A commit that shares and leans on promised blocks; gc keeps it, the remote is not written."""
    random = np.random.default_rng(2)
    before = sorted(path.name for path in clone.origin.rglob("*.pack"))
    with clone.opened() as repository:
        repository.checkout("tuned", to=tmp_path / "out")
        base = {f"t{n}": bf16(random.standard_normal((64, 256))) for n in range(2)}
        commit(repository, write_model(tmp_path / "mine", base), "mine", "tuned")
        assert repository.gc(grace_s=0).packs_removed == 0
        repository.checkout("mine", to=tmp_path / "back")
        assert repository.fsck(read_data=True).ok
    assert files(tmp_path / "back") == files(tmp_path / "mine")
    assert sorted(path.name for path in clone.origin.rglob("*.pack")) == before


def rewrite_packs(directory: Path) -> None:
    """What a gc may do: every record in another pack than before."""
    from mergepipe.packs.reader import read_exactly
    from mergepipe.packs.writer import PackWriter

    with LocalByteStore(directory) as store:
        packs = block_packs(store)
        writer = PackWriter(store, Content.BLOCKS)
        for pack in reversed(packs):
            for header, offset in read_footer(store, pack)[1]:
                data = read_exactly(store, pack_key(pack), offset, header.stored_bytes)
                writer.add_copy(header, data)
        entry, value = writer.finish()
        value.sync()
        store.publish([(value, pack_key(entry.id))])
        for pack in packs:
            store.delete(pack_key(pack))
