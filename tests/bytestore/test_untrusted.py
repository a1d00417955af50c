"""Each look at what stands at a path counts by itself: others may put something else there between.

The whole of a repository is looked at when it is opened (tests/repository/test_untrusted.py); here
is what stands behind that.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mergepipe.api import conversions
from mergepipe.bytestore import unfinished, untrusted
from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.local_writer import LocalWriter
from mergepipe.bytestore.untrusted import (
    beneath,
    check_tree,
    is_real_directory,
    open_plain,
    open_to_change,
    plain_status,
    read_plain,
)
from mergepipe.errors import UnsafeRepository
from mergepipe.packs import index_files

Make = Callable[[Path], object]


def link(path: Path) -> None:
    path.symlink_to(path.with_name("victim"))


KINDS: tuple[Make, ...] = (link, os.mkfifo)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "victim").write_bytes(b"precious")
    return tmp_path / "place"


@pytest.mark.parametrize("make", KINDS)
def test_what_is_no_plain_file_has_no_status(place: Path, make: Make) -> None:
    make(place)
    with pytest.raises(UnsafeRepository):
        plain_status(place)
    with pytest.raises(UnsafeRepository):
        is_real_directory(place)


def test_a_directory_behind_a_link_is_none(place: Path) -> None:
    place.with_name("folder").mkdir()
    place.symlink_to(place.with_name("folder"))
    with pytest.raises(UnsafeRepository):
        is_real_directory(place)
    with pytest.raises(UnsafeRepository):
        beneath(place.parent, "place/file")
    assert not is_real_directory(place.with_name("victim"))
    with pytest.raises(IsADirectoryError):
        read_plain(place.with_name("folder"))


@pytest.mark.parametrize("make", KINDS)
def test_it_is_not_even_opened(place: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """To open a device may do something."""
    make(place)
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(UnsafeRepository):
        open_plain(place, os.O_RDONLY)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_APPEND])
@pytest.mark.parametrize("make", KINDS)
def test_a_file_that_becomes_something_else_meanwhile(
    place: Path, make: Make, flags: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write_bytes(b"plain")
    look = untrusted.status_of

    def look_and_lose(path: Path) -> os.stat_result | None:
        status = look(path)
        monkeypatch.setattr(untrusted, "status_of", look)
        place.unlink()
        make(place)
        return status

    monkeypatch.setattr(untrusted, "status_of", look_and_lose)
    with pytest.raises(UnsafeRepository):
        open_plain(place, flags)
    assert place.with_name("victim").read_bytes() == b"precious"


def test_a_file_with_another_name_is_parted_durably(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.hardlink_to(place.with_name("victim"))
    synced: list[int] = []
    sync = os.fsync

    def noting(descriptor: int) -> None:
        sync(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    def renaming(source: Path, target: Path) -> None:
        assert synced == [len(b"precious")], "it gets its name before it is durable"
        source.replace(target)

    monkeypatch.setattr(os, "fsync", noting)
    monkeypatch.setattr(Path, "rename", renaming)
    descriptor = open_to_change(place, os.O_WRONLY)
    os.write(descriptor, b"changed!")
    os.close(descriptor)
    assert place.with_name("victim").read_bytes() == b"precious"


def test_sessions_and_unfinished_directories_are_no_links(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "000001").write_text("precious")
    root = tmp_path / "store"
    (root / "tmp").mkdir(parents=True)
    (root / "tmp/1-abc").symlink_to(victim)
    with LocalByteStore(root) as store:
        store.remove_dead_sessions()
    (tmp_path / ".x.init-0123456789abcdef").symlink_to(victim)
    taken: list[Path] = []
    unfinished.sweep(tmp_path, ".x.init-", taken.append)
    assert not taken, "what a link leads to is not ours to finish"
    assert (victim / "000001").read_text() == "precious"


def test_a_folder_of_conversions_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "convert-1").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="convert-1"), conversions._locked(tmp_path / "convert-1"):
        pytest.fail("a folder of somebody else's is locked")
    with conversions._locked(tmp_path / "victim"):
        pass


def test_a_file_that_is_gone_on_with_is_no_link(place: Path) -> None:
    place.symlink_to(place.with_name("victim"))
    with ThreadPoolExecutor(1) as flusher, pytest.raises(OSError, match="place"):
        LocalWriter.reopened(place, flusher)


def test_an_index_with_another_name_is_left_to_that(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "index").mkdir()
    (tmp_path / "index/data.mdb").hardlink_to(tmp_path / "victim")
    index_files.leave_other_names(tmp_path / "index")
    assert not (tmp_path / "index/data.mdb").exists()
    (tmp_path / "index/data.mdb").write_bytes(b"its own")
    index_files.leave_other_names(tmp_path / "index")
    assert (tmp_path / "index/data.mdb").read_bytes() == b"its own"
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_of_very_many_files_the_first_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
        link(tmp_path / name / "link")
    monkeypatch.setattr(untrusted, "_MOST_LOOKED_AT", 3)
    check_tree(tmp_path)  # the folders, before what is in them
    monkeypatch.setattr(untrusted, "_MOST_LOOKED_AT", 4)
    with pytest.raises(UnsafeRepository):
        check_tree(tmp_path)
