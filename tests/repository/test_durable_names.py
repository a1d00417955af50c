"""What is written in place is synced, and so is the folder that has its name."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mergepipe.bytestore import whole_disk
from mergepipe.bytestore.whole_disk import WholeDisk
from mergepipe.ids import ObjectId
from mergepipe.repository import layout, push_log, reflog
from mergepipe.repository.push_log import PushEntry, PushLog
from mergepipe.repository.reflog import Reflog, ReflogEntry, Signature

ONE, TWO = ObjectId(bytes(32)), ObjectId(b"\1" * 32)


@pytest.fixture
def synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What was synced, below the test's folder, and whether there was a repository by then."""
    noted: list[tuple[str, bool]] = []
    sync: Callable[[int], None] = os.fsync

    def noting(descriptor: int) -> None:
        sync(descriptor)
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        if place.is_relative_to(tmp_path):
            there = (tmp_path / "new/.mergepipe").exists()
            noted.append((place.relative_to(tmp_path).as_posix(), there))

    monkeypatch.setattr(os, "fsync", noting)
    return noted


def test_a_repository_has_its_name(tmp_path: Path, synced: list[tuple[str, bool]]) -> None:
    layout.initialise(tmp_path / "new")
    assert synced[-1] == ("new", True)


def test_a_line_of_the_log_of_pushes(tmp_path: Path, synced: list[tuple[str, bool]]) -> None:
    PushLog(tmp_path, lambda _: "").append(PushEntry(0, "push", "me", "here", "done"))
    assert (push_log.KEY, False) in synced


def test_a_whole_disk(
    tmp_path: Path, synced: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(whole_disk, "FEWEST", 2)
    monkeypatch.setattr(whole_disk, "_is_known", lambda _: True)
    monkeypatch.setattr(whole_disk, "sync_disk", calls.append)
    with WholeDisk(tmp_path, 2) as disk:
        disk.sync()
        assert len(calls) == 1
        disk.sync_names([tmp_path])
    assert [name for name, _ in synced] == ["."]


def test_a_file_in_place_of_another(tmp_path: Path, synced: list[tuple[str, bool]]) -> None:
    reflog._replace(tmp_path / "log", b"content")
    assert [name for name, _ in synced] == ["log.lock", "."]


def test_a_move_of_a_ref(tmp_path: Path, synced: list[tuple[str, bool]]) -> None:
    entry = ReflogEntry(ONE, TWO, Signature("me", 1, 0), "why")
    Reflog(tmp_path / "logs").append("refs/heads/a/b", entry)
    names = [name for name, _ in synced]
    assert "logs/refs/heads/a/b" in names
    assert {"logs/refs/heads/a", "logs/refs/heads"} <= set(names)
