"""A disk that fills up at any point of a commit: NoSpace, and everything as it was."""

import os
import subprocess
from collections.abc import Iterator
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


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    where = tmp_path / "disk"
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_KIB}k", "tmpfs", where], capture_output=True
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


def no_space_or_done(disk: Path, scratch: Path, leave_kib: int) -> None:
    root = disk / "repo"
    new_repository(root)
    with opened(root) as repo:
        commit_model(repo, 0, scratch)
    filler = fill(disk, leave_kib << 10)
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
    filler.unlink()
    with opened(root) as repo:
        commit_model(repo, 2, scratch)
    assert verify(root, scratch) == {"refs/heads/main": [2, *expected]}
    assert problems(root) == []


@pytest.mark.parametrize("leave_kib", [0, 4, 16, 40, 48, 100, 600])
def test_a_full_disk_stops_a_commit_cleanly(disk: Path, tmp_path: Path, leave_kib: int) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    # In a child: a full disk under a memory map is a signal.
    child = in_child(lambda: no_space_or_done(disk, scratch, leave_kib))
    assert finish(child) == 0


@pytest.mark.slow
@pytest.mark.parametrize("leave_kib", range(0, 120, 2))
def test_a_disk_full_at_every_point(disk: Path, tmp_path: Path, leave_kib: int) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert finish(in_child(lambda: no_space_or_done(disk, scratch, leave_kib))) == 0
