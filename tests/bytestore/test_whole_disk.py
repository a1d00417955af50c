"""One call for the file system of many files, where it is as good as an fsync of each."""

import errno
import os
from pathlib import Path

import pytest

from mergepipe.bytestore import whole_disk
from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.whole_disk import FEWEST, WholeDisk
from mergepipe.errors import NoSpace


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that make something durable, in order."""
    calls: list[str] = []
    fsync = os.fsync

    def one(descriptor: int) -> None:
        calls.append("file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", one)
    monkeypatch.setattr(whole_disk, "sync_disk", lambda descriptor: calls.append("disk"))
    return calls


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_disk, "_is_known", lambda directory: True)


def swaps(count: int) -> list[tuple[str, bytes | None, bytes | None]]:
    return [(f"refs/heads/{number:04}", None, b"1\n") for number in range(count)]


@pytest.mark.usefixtures("known")
def test_many_values_cost_three_calls(tmp_path: Path, synced: list[str]) -> None:
    with LocalByteStore(tmp_path) as store:
        assert store.swap_together(swaps(10 * FEWEST))
        assert len(store.values("refs/")) == 10 * FEWEST
    assert synced.count("disk") == 1
    assert synced.count("file") <= 3  # the folder of the refs, and those above it


@pytest.mark.usefixtures("known")
def test_names_in_many_folders_are_one_more_call(tmp_path: Path, synced: list[str]) -> None:
    with LocalByteStore(tmp_path) as store:
        told: list[tuple[str, bytes | None, bytes | None]] = [
            (f"refs/heads/{number:04}/a", None, b"1\n") for number in range(FEWEST)
        ]
        assert store.swap_together(told)
    assert synced == ["disk", "disk"]


def test_few_are_synced_one_by_one(tmp_path: Path, synced: list[str]) -> None:
    with LocalByteStore(tmp_path) as store:
        assert store.swap_together(swaps(FEWEST - 1))
    assert "disk" not in synced
    assert synced.count("file") >= FEWEST - 1


def test_where_the_call_may_mean_nothing_each_is_synced(
    tmp_path: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_disk, "mount_of", lambda path: ("nfs4", "/models"))
    with LocalByteStore(tmp_path) as store:
        assert store.swap_together(swaps(FEWEST))
    assert "disk" not in synced
    assert synced.count("file") >= FEWEST


@pytest.mark.usefixtures("known")
def test_a_disk_that_fails_leaves_every_value_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    with LocalByteStore(tmp_path) as store:
        store.put("refs/heads/0000", b"0\n")
        monkeypatch.setattr(whole_disk, "sync_disk", full)
        told = [("refs/heads/0000", b"0\n", b"1\n"), *swaps(FEWEST)[1:]]
        with pytest.raises(NoSpace, match="no space left"):
            store.swap_together(told)
        assert store.values("refs/") == {"refs/heads/0000": b"0\n"}
        assert not [path for path in (tmp_path / "tmp").rglob("*") if path.is_file()]


def test_one_that_is_elsewhere_moves_none(tmp_path: Path) -> None:
    with LocalByteStore(tmp_path) as store:
        store.put("refs/heads/0001", b"2\n")
        assert not store.swap_together(swaps(3))
        assert store.values("refs/") == {"refs/heads/0001": b"2\n"}


def test_values_go_before_others_come(tmp_path: Path) -> None:
    with LocalByteStore(tmp_path) as store:
        store.put("refs/heads/a/b", b"1\n")
        store.put("refs/heads/c", b"1\n")
        assert store.swap_together(
            [
                ("refs/heads/a", None, b"2\n"),
                ("refs/heads/c/d", None, b"2\n"),
                ("refs/heads/a/b", b"1\n", None),
                ("refs/heads/c", b"1\n", None),
            ]
        )
        assert store.values("refs/") == {"refs/heads/a": b"2\n", "refs/heads/c/d": b"2\n"}


def test_the_real_call(tmp_path: Path) -> None:
    with WholeDisk(tmp_path, FEWEST) as disk:
        if not disk.at_once:
            pytest.skip("a file system of which it is not known what the call does")
        disk.sync()
        disk.close()
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            disk.sync()
