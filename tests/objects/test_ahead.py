"""Objects that are read many at a time are those that are read one by one."""

from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.ids import ObjectId
from mergepipe.objects.ahead import ObjectsAhead
from mergepipe.packs import pack_starts
from mergepipe.packs.pack_starts import PackStarts
from mergepipe.packs.reader import pack_key
from tests.repository.checkpoints import WHO


def test_models_are_read_before_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    with Repository.init(tmp_path / "repo", who=WHO) as repo:
        for number in range(3):
            (model / "own.bin").write_bytes(bytes([number]) * 5000)
            repo.commit(model, message="m", branch=f"b{number}")
        commits = list(repo.refs.list().values())
        objects = repo.objects
        whole = {commit: objects.canonical(commit) for commit in commits}
        ahead = ObjectsAhead(objects)
        gone = ObjectId(b"\7" * 32)
        seen = []
        for commit in ahead.models([*commits, gone]):
            if commit == gone:
                continue
            seen.append(commit)
            snapshot = objects.commit(commit).snapshot
            wanted = [commit, snapshot, *objects.snapshot(snapshot).tensor_ids()]
            whole |= {each: objects.canonical(each) for each in wanted}
            with monkeypatch.context() as patch:
                patch.setattr(objects, "canonical", None)  # none is asked for by itself
                assert all(ahead.canonical(each) == whole[each] for each in wanted)
        assert seen == commits
        damaged = repo.storage.ask(lambda view: view.object(commits[0]))
        assert damaged is not None and isinstance(repo.store, LocalByteStore)
        path = repo.store.path(pack_key(damaged.pack))
        path.chmod(0o600)
        data = bytearray(path.read_bytes())
        data[damaged.end - 1] ^= 1
        path.write_bytes(data)
        found = objects.read_together(commits, 1 << 20, PackStarts(repo.store).read)
        assert found == {commit: whole[commit] for commit in commits[1:]}
        assert objects.read_together(commits, 0, PackStarts(repo.store).read) == {}


def test_the_starts_of_a_few_packs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryByteStore()
    for key in "abc":
        store.put(key, key.encode() * 10)
    read: list[str] = []
    read_into = store.read_into

    def noted(key: str, offset: int, out: memoryview) -> int:
        read.append(key)
        return read_into(key, offset, out)

    monkeypatch.setattr(store, "read_into", noted)
    monkeypatch.setattr(pack_starts, "_MOST_STARTS", 2)
    starts = PackStarts(store)
    for key in "aabbcca":
        assert bytes(starts.read(key, 2, 3)) == key.encode() * 3
    assert read == ["a", "b", "c", "a"]
