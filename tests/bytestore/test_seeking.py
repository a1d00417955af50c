"""Listing from a key on: what a page of a long listing begins with."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.bytestore.protocol import ByteStore, items_after, keys_after

KEYS = ("refs/a", "refs/a.b", "refs/b/a", "refs/b/c/d", "refs/b/e", "refs/b-", "refs/c")
BETWEEN = ("", "refs/", "refs/0", "refs/b", "refs/b/", "refs/b/c/", "refs/b/c/z", "refs/z")


@pytest.fixture(params=[LocalByteStore, MemoryByteStore])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ByteStore]:
    local = request.param is LocalByteStore
    with LocalByteStore(tmp_path) if local else MemoryByteStore() as store:
        for key in KEYS:
            store.put(key, key.encode())
        yield store


def test_what_comes_after_a_key_is_listed_in_order(store: ByteStore) -> None:
    listed = list(store.list("refs/"))
    assert listed == sorted(KEYS)
    for after in (*KEYS, *BETWEEN):
        expected = [key for key in listed if key > after]
        assert list(keys_after(store, "refs/", after)) == expected
        items = list(items_after(store, "refs/", after))
        assert items == [(key, key.encode()) for key in expected]
    assert list(keys_after(store, "refs/b/", "refs/b/a")) == ["refs/b/c/d", "refs/b/e"]


def test_folders_before_the_key_are_not_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalByteStore(tmp_path) as store:
        for number in range(20):
            store.put(f"refs/{number:02}/model", b"")
        entered: list[str] = []
        scan = os.scandir

        def counting(path: str) -> object:
            entered.append(os.fspath(path))
            return scan(path)

        monkeypatch.setattr(os, "scandir", counting)
        assert list(store.keys_after("refs/", "refs/17/model")) == [
            "refs/18/model",
            "refs/19/model",
        ]
        assert len(entered) == 4  # the folder of all, the key's own, and two after it
