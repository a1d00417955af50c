"""A disk that runs out of room, or of inodes, at any point of a commit: all is as it was."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mergepipe.errors import NoSpace
from tests.torture.models import (
    commit_model,
    finish,
    in_child,
    new_repository,
    opened,
    problems,
    unfinished,
    verify,
)

DISK_KIB = 3072
INODES = 400


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    where = tmp_path / "disk"
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_KIB}k,nr_inodes={INODES}", "tmpfs", where],
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode().strip()}")
    yield where
    subprocess.run(["umount", "--lazy", where], check=True)


def fill(disk: Path, leave_bytes: int) -> Path:
    status = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(bytes(max(0, status.f_bavail * status.f_frsize - leave_bytes)))
    return filler


def use_up_inodes(disk: Path, leave: int) -> Path:
    """As many empty files as leave room for `leave` more; the folder that holds them."""
    folder = disk / "filler"
    folder.mkdir()
    for number in range(max(0, os.statvfs(disk).f_favail - leave)):
        (folder / str(number)).touch()
    return folder


def no_space_or_done(disk: Path, scratch: Path, use_up: Callable[[], Path]) -> None:
    root = disk / "repo"
    new_repository(root)
    with opened(root) as repo:
        commit_model(repo, 0, scratch)
    filler = use_up()
    try:
        with opened(root) as repo:
            commit_model(repo, 1, scratch)
    except NoSpace as error:
        assert error.exit_code == 15
        expected = [0]
    else:
        expected = [1, 0]
    assert unfinished(root) == []
    assert verify(root, scratch) == {"refs/heads/main": expected}  # readable on the full disk
    shutil.rmtree(filler) if filler.is_dir() else filler.unlink()
    with opened(root) as repo:
        commit_model(repo, 2, scratch)
    assert verify(root, scratch) == {"refs/heads/main": [2, *expected]}
    assert problems(root) == []


def attempt(disk: Path, tmp_path: Path, use_up: Callable[[], Path]) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    # In a child: a full disk under a memory map is a signal.
    assert finish(in_child(lambda: no_space_or_done(disk, scratch, use_up))) == 0


@pytest.mark.parametrize("leave_kib", [0, 4, 16, 40, 48, 100, 600])
def test_a_full_disk_stops_a_commit_cleanly(disk: Path, tmp_path: Path, leave_kib: int) -> None:
    attempt(disk, tmp_path, lambda: fill(disk, leave_kib << 10))


@pytest.mark.parametrize("leave", [0, 1, 2, 4, 7])
def test_a_disk_without_inodes_stops_a_commit_cleanly(
    disk: Path, tmp_path: Path, leave: int
) -> None:
    attempt(disk, tmp_path, lambda: use_up_inodes(disk, leave))


@pytest.mark.slow
@pytest.mark.parametrize("leave_kib", range(160))
def test_a_disk_full_at_every_point(disk: Path, tmp_path: Path, leave_kib: int) -> None:
    attempt(disk, tmp_path, lambda: fill(disk, leave_kib << 10))


@pytest.mark.slow
@pytest.mark.parametrize("leave", range(40))
def test_inodes_used_up_at_every_point(disk: Path, tmp_path: Path, leave: int) -> None:
    attempt(disk, tmp_path, lambda: use_up_inodes(disk, leave))
