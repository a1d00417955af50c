"""A source file that changes while it is read: refused, and the repository as it was."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mergepipe.errors import SourceChanged
from tests.torture.models import model, new_repository, opened, problems, unfinished

FILE = "weights.bin"
SIZE = 24 << 20  # several pieces, so that some are read before the change and some after


def grow(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"more")


def shrink(file: Path) -> None:
    os.truncate(file, SIZE // 2)


def rewrite(file: Path) -> None:
    """Same size, other bytes."""
    with file.open("r+b") as stream:
        stream.seek(SIZE - 100)
        stream.write(b"changed")


def replace(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(bytes(SIZE))
    other.rename(file)


def restore_time(file: Path) -> None:
    """Other bytes, and the time put back: the inode's change still shows in what is read."""
    status = file.stat()
    shrink(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


class Meddler:
    """A progress that changes the file once something of it was read."""

    def __init__(self, change: Callable[[], None]) -> None:
        self.change = change
        self.done = False

    def start(self, what: str, total_bytes: int) -> None:
        pass

    def advance(self, raw_bytes: int, stored_bytes: int = 0) -> None:
        if not self.done:
            self.done = True
            self.change()


@pytest.mark.parametrize("change", [grow, shrink, rewrite, replace, restore_time])
def test_a_file_that_changes_is_refused(tmp_path: Path, change: Callable[[Path], None]) -> None:
    root, source = tmp_path / "repo", tmp_path / "source"
    new_repository(root)
    source.mkdir()
    (source / "config.json").write_bytes(model(0)["config.json"][0])
    (source / FILE).write_bytes(os.urandom(SIZE))
    os.utime(source / FILE, ns=(10**18, 10**18))
    with opened(root) as repo:
        meddler = Meddler(lambda: change(source / FILE))
        if change is replace:
            # What was open stays open: the old bytes are whole, so either answer is right.
            try:
                repo.commit(source, branch="main", progress=meddler)
            except SourceChanged:
                pass
            else:
                assert meddler.done
                return
        else:
            with pytest.raises(SourceChanged, match=FILE):
                repo.commit(source, branch="main", progress=meddler)
        assert meddler.done
        assert repo.refs.list() == {}
    assert unfinished(root) == []
    assert not list((root / ".mergepipe/packs").iterdir())
    assert problems(root) == []
