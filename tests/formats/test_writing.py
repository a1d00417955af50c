"""Files going out: whole or not at all, and never through a link."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergepipe.bytestore import whole_disk
from mergepipe.bytestore.whole_disk import FEWEST, WholeDisk
from mergepipe.errors import MergepipeError, NoSpace, UnsafePath
from mergepipe.formats.export_files import ExportFile, publish
from mergepipe.formats.export_folders import is_unfinished_export
from mergepipe.formats.tree import scan
from mergepipe.formats.writing import ExportDirectory


def export(root: Path, path: str, content: bytes, executable: bool = False) -> None:
    with (
        ExportDirectory(root) as directory,
        directory.create(path, len(content), executable) as file,
    ):
        file.write_at(0, content)
        file.publish()


def everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "d/b", "d/e/c", "é/f"]), st.binary(max_size=99)))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    root = tmp_path_factory.mktemp("out") / "new"
    before = open_descriptors()
    with ExportDirectory(root) as directory:
        for path, content in files.items():
            with directory.create(path, len(content)) as file:
                file.write_at(len(content) // 2, content[len(content) // 2 :])
                file.write_at(0, memoryview(content)[: len(content) // 2])
                file.publish()
    assert {f.path: f.location.read_bytes() for f in scan(root)} == files
    assert open_descriptors() == before
    with ExportDirectory(root) as directory:
        for path in files:
            directory.remove(path)
            directory.remove(path)
    assert everything(root) == []
    assert open_descriptors() == before


def test_many_threads(tmp_path: Path) -> None:
    content = os.urandom(1 << 20)
    with ExportDirectory(tmp_path) as directory, directory.create("f", len(content)) as file:
        with ThreadPoolExecutor(4) as threads:
            for at in range(0, len(content), 1000):
                threads.submit(file.write_at, at, content[at : at + 1000])
        file.publish()
    assert (tmp_path / "f").read_bytes() == content


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_respect_the_umask(tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        export(tmp_path, "plain", b"")
        export(tmp_path, "tool", b"", executable=True)
    finally:
        os.umask(old)
    assert (tmp_path / "plain").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "tool").stat().st_mode & 0o777 == 0o777 & ~umask


def test_invisible_until_published_and_gone_when_aborted(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    with ExportDirectory(tmp_path) as directory:
        with directory.create("f", 3) as file:
            file.write_at(0, b"new")
            assert (tmp_path / "f").read_bytes() == b"old"
        assert everything(tmp_path) == ["f"]
        with pytest.raises(ZeroDivisionError), directory.create("g", 3) as file:
            raise ZeroDivisionError
        with pytest.raises(MergepipeError, match="only 2 of 3"), directory.create("f", 3) as file:
            file.write_at(1, b"ew")
            file.publish()
    assert everything(tmp_path) == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"


def test_never_through_a_link(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "f").write_bytes(b"mine")
    (root / "dir").symlink_to(outside)
    (root / "f").symlink_to(outside / "f")
    before = open_descriptors()
    for path in ("dir/f", "dir/new", "dir/new/f"):
        with pytest.raises(UnsafePath, match="link"):
            export(root, path, b"evil")
    with ExportDirectory(root) as directory, pytest.raises(UnsafePath, match="link"):
        directory.remove("dir/f")
    export(root, "f", b"new")
    assert not (root / "f").is_symlink()
    assert everything(outside) == ["f"]
    assert (outside / "f").read_bytes() == b"mine"
    with ExportDirectory(root) as directory:
        (root / "l").symlink_to(outside / "f")
        directory.remove("l")
    assert (outside / "f").read_bytes() == b"mine"
    assert open_descriptors() == before


def test_what_is_written_or_removed_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync = os.fsync

    def noting(descriptor: int) -> None:
        sync(descriptor)
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append(place.relative_to(tmp_path).as_posix())

    monkeypatch.setattr(os, "fsync", noting)
    export(tmp_path, "d/f", b"new")
    assert synced[0] == ".", "the name of a new folder"
    assert is_unfinished_export(Path(synced[1]).name), "the bytes, before they have their name"
    assert synced[2] == "d", "that name"
    synced.clear()
    (tmp_path / "d/g").touch()
    with ExportDirectory(tmp_path) as directory:
        directory.remove("d/f")
    assert synced == ["d"]


@pytest.mark.parametrize(
    "path", ["../f", "/f", "a/../f", ".mergepipe/f", ".git/hooks/f", "a\\f", ""]
)
def test_unsafe_paths(tmp_path: Path, path: str) -> None:
    with pytest.raises(UnsafePath):
        export(tmp_path / "root", path, b"")
    with ExportDirectory(tmp_path / "root") as directory, pytest.raises(UnsafePath):
        directory.remove(path)
    assert everything(tmp_path) == ["root"]


def test_something_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "f").touch()
    with pytest.raises(UnsafePath, match="a directory is there"):
        export(tmp_path, "d", b"x")
    with pytest.raises(UnsafePath, match="where a directory has to be"):
        export(tmp_path, "f/g", b"x")
    with ExportDirectory(tmp_path) as directory, pytest.raises(UnsafePath):
        directory.remove("d")
    with pytest.raises(MergepipeError):
        ExportDirectory(tmp_path / "f")
    assert everything(tmp_path) == ["d", "d/e", "f"]


def test_remove_keeps_directories_in_use(tmp_path: Path) -> None:
    export(tmp_path, "a/b/c", b"")
    export(tmp_path, "a/d", b"")
    with ExportDirectory(tmp_path) as directory:
        directory.remove("a/b/c")
        directory.remove("a/x/y")
    assert everything(tmp_path) == ["a", "a/d"]


def test_too_little_space_is_seen_beforehand(tmp_path: Path) -> None:
    with ExportDirectory(tmp_path) as directory:
        directory.require_space(1)
        with pytest.raises(NoSpace, match=r"needs 4194304\.0 TiB"):
            directory.require_space(1 << 62)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_no_space_while_writing(tmp_path: Path) -> None:
    with ExportDirectory(tmp_path) as directory, directory.create("f", 4) as file:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, file._descriptor)
        os.close(full)
        with pytest.raises(NoSpace, match="/f'") as caught:
            file.write_at(0, b"1234")
        assert caught.value.exit_code == 15
    assert everything(tmp_path) == []


def test_what_a_killed_export_left_is_swept(tmp_path: Path) -> None:
    code = (
        "import sys, os, signal, pathlib\n"
        "from mergepipe.formats.writing import ExportDirectory\n"
        "file = ExportDirectory(pathlib.Path(sys.argv[1])).create('d/f', 4)\n"
        "file.write_at(0, b'1234')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path])
    assert done.returncode == -signal.SIGKILL
    [left] = (tmp_path / "d").iterdir()
    assert is_unfinished_export(left.name)
    assert scan(tmp_path) == ()
    (tmp_path / "mine").write_text("mine")
    link = left.with_name(f".mp-export-{'0' * 16}")
    link.symlink_to(tmp_path / "mine")
    with ExportDirectory(tmp_path) as one, ExportDirectory(tmp_path) as other:
        file = one.create("d/f", 1)
        assert not left.exists()
        assert link.is_symlink(), "what it leads to is not even opened"
        link.unlink()
        (tmp_path / "mine").unlink()
        again = other.create("d/g", 1)  # sweeps too, and leaves what is in use
        file.write_at(0, b"1")
        file.publish()
        again.write_at(0, b"2")
        again.publish()
    assert everything(tmp_path) == ["d", "d/f", "d/g"]


def many(directory: ExportDirectory, names: range) -> list[ExportFile]:
    """Files that are written, and closed, and not yet published."""
    files = []
    for number in names:
        files.append(directory.create(f"d/{number}", number % 3, many=True))
        if number % 3:
            files[-1].write_at(0, b"x" * (number % 3))
    return files


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WholeDisk]:
    monkeypatch.setattr(whole_disk, "_is_known", lambda directory: True)
    with WholeDisk(tmp_path, FEWEST) as disk:
        yield disk


def test_of_many_files_none_is_kept_open(tmp_path: Path, disk: WholeDisk) -> None:
    before = open_descriptors()
    with ExportDirectory(tmp_path) as directory:
        files = many(directory, range(40))
        assert open_descriptors() <= before + 6
        assert scan(tmp_path) == ()
        publish(files, disk=disk)
    assert {f.path: f.location.read_bytes() for f in scan(tmp_path)} == {
        f"d/{number}": b"x" * (number % 3) for number in range(40)
    }
    assert len(everything(tmp_path)) == 41, "what stood for them is gone"
    assert open_descriptors() == before


def test_of_many_files_those_in_use_stay_and_those_of_the_dead_go(
    tmp_path: Path, disk: WholeDisk
) -> None:
    code = (
        "import sys, os, signal, pathlib\n"
        "from mergepipe.formats.writing import ExportDirectory\n"
        "directory = ExportDirectory(pathlib.Path(sys.argv[1]))\n"
        "for name in 'd/a', 'd/b':\n"
        "    directory.create(name, 4, many=True).write_at(0, b'1234')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path])
    assert done.returncode == -signal.SIGKILL
    left = set((tmp_path / "d").iterdir())
    assert len(left) == 3
    assert all(is_unfinished_export(path.name) for path in left)
    with ExportDirectory(tmp_path) as one, ExportDirectory(tmp_path) as other:
        files = many(one, range(2))
        assert not left & set((tmp_path / "d").iterdir())
        theirs = many(other, range(1, 3))  # sweeps too
        publish(files, disk=disk)
        publish(theirs, disk=disk)
    assert everything(tmp_path) == ["d", "d/0", "d/1", "d/2"]


def test_of_many_files_one_that_is_not_whole_ends_all(tmp_path: Path, disk: WholeDisk) -> None:
    with ExportDirectory(tmp_path) as directory:
        files = [*many(directory, range(2)), directory.create("d/short", 4, many=True)]
        with pytest.raises(MergepipeError, match="only 0 of 4 bytes"):
            publish(files, disk=disk)
    assert everything(tmp_path) == ["d"]
