"""Finding the files of a checkpoint, and reading them while they stay the same."""

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergepipe.errors import (
    ConfigError,
    IncompleteCheckpoint,
    MalformedFile,
    MergepipeError,
    SourceChanged,
    UnsafePath,
)
from mergepipe.formats.tree import open_stable, read_source, scan, scan_file


def write(root: Path, files: dict[str, str]) -> None:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)


def paths(root: Path) -> list[str]:
    return [file.path for file in scan(root)]


def test_finds_files_in_order(tmp_path: Path) -> None:
    write(
        tmp_path, {"b": "1", "a/c": "22", "a.d": "", "é": "", "Z": "", ".hidden": "", "a/b/c": ""}
    )
    (tmp_path / "empty/within").mkdir(parents=True)
    (tmp_path / "b").chmod(0o755)
    found = scan(tmp_path)
    assert [f.path for f in found] == [".hidden", "Z", "a.d", "a/b/c", "a/c", "b", "é"]
    assert [f.executable for f in found] == [False] * 5 + [True, False]
    assert found[4].size == 2
    assert found[4].location == tmp_path / "a/c"
    status = (tmp_path / "b").stat()
    assert (found[5].mtime_ns, found[5].inode) == (status.st_mtime_ns, status.st_ino)


def test_lone_file(tmp_path: Path) -> None:
    write(tmp_path, {"m.safetensors": "x", ".mpignore": "*"})
    assert scan(tmp_path / "m.safetensors") == (scan_file(tmp_path / "m.safetensors"),)
    assert scan_file(tmp_path / "m.safetensors", "d/n").path == "d/n"
    with pytest.raises(UnsafePath):
        scan_file(tmp_path / "m.safetensors", "../n")
    with pytest.raises(MergepipeError, match="there is no"):
        scan(tmp_path / "absent")


def test_skips_repositories_and_unfinished_exports(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            ".mergepipe/HEAD": "", ".git/config": "", "a/.git": "", "a/.mergepipe/x": "", "a/x": "",
            ".mp-export-0123456789abcdef": "", ".mp-export-mine": "",
        },
    )  # fmt: skip
    assert paths(tmp_path) == [".mp-export-mine", "a/x"]


def test_a_repository_is_no_model(tmp_path: Path) -> None:
    for killed in (".mergepipe.init-0123456789abcdef", ".model.clone-0123456789abcdef"):
        (tmp_path / killed).mkdir()
        (tmp_path / killed / "HEAD").write_text("ref: refs/heads/main")
    (tmp_path / ".mergepipe" / "refs").mkdir(parents=True)
    (tmp_path / ".mergepipe" / "HEAD").write_text("ref: refs/heads/main")
    (tmp_path / "config.json").write_text("{}")
    assert [file.path for file in scan(tmp_path)] == ["config.json"]
    (tmp_path / "head").symlink_to(tmp_path / ".mergepipe" / "HEAD")
    for inside in (
        *(".mergepipe", ".mergepipe/refs", ".mergepipe/HEAD", ".", "head"),
        ".mergepipe.init-0123456789abcdef",
    ):
        with pytest.raises(UnsafePath, match="is a repository's own"):
            scan(tmp_path / inside)


def test_links(tmp_path: Path) -> None:
    blobs, model = tmp_path / "blobs", tmp_path / "snapshots/main"
    write(blobs, {"0a1b": "weights"})
    (blobs / "0a1b").chmod(0o700)
    model.mkdir(parents=True)
    (model / "model.safetensors").symlink_to("../../blobs/0a1b")
    [found] = scan(model)
    assert (found.path, found.size, found.executable) == ("model.safetensors", 7, True)
    assert read_source(found, 100) == b"weights"
    (tmp_path / "link-to-model").symlink_to(model)
    assert paths(tmp_path / "link-to-model") == ["model.safetensors"]
    (model / "gone").symlink_to("nowhere/\x1b")
    with pytest.raises(IncompleteCheckpoint, match=r"'gone' links to 'nowhere/\\x1b'"):
        scan(model)
    (model / "gone").unlink()
    (model / "dir").symlink_to(blobs)
    with pytest.raises(UnsafePath, match="'dir' is a link to a directory"):
        scan(model)
    write(model, {".mpignore": "/dir"})
    assert paths(model) == [".mpignore", "model.safetensors"]
    (model / "dir").unlink()
    (model / "loop").symlink_to("loop")
    with pytest.raises(MergepipeError, match="loop"):
        scan(model)


def test_only_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnsafePath, match="'pipe' is a fifo"):
        scan(tmp_path)
    (tmp_path / "pipe").unlink()
    (tmp_path / "null").symlink_to("/dev/null")
    with pytest.raises(UnsafePath, match="'null' is a device"):
        scan(tmp_path)
    (tmp_path / "null").unlink()
    with socket.socket(socket.AF_UNIX) as sock:
        here = Path.cwd()
        os.chdir(tmp_path)  # the path of a socket is at most 108 bytes
        try:
            sock.bind("sock")
        finally:
            os.chdir(here)
        with pytest.raises(UnsafePath, match="'sock' is a socket"):
            scan(tmp_path)


def test_names_no_snapshot_can_hold(tmp_path: Path) -> None:
    for name in (b"\xff.json", b"a\\b", b"a\nb", b".MERGEPIPE"):
        path = tmp_path / os.fsdecode(name)
        path.touch()
        with pytest.raises(UnsafePath):
            scan(tmp_path)
        path.unlink()
    write(tmp_path, {"a": "", "b": ""})
    (tmp_path / "B").touch()
    if len(list(tmp_path.iterdir())) == 3:  # a case-sensitive file system
        with pytest.raises(UnsafePath, match="letter case"):
            scan(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable(tmp_path: Path) -> None:
    write(tmp_path, {"d/secret": "x"})
    (tmp_path / "d/secret").chmod(0)
    with pytest.raises(MergepipeError, match="cannot read"):
        scan(tmp_path)
    (tmp_path / "d").chmod(0)
    with pytest.raises(MergepipeError, match="cannot read"):
        scan(tmp_path)
    (tmp_path / "d").chmod(0o700)


def test_ignore_files(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            ".mpignore": "# a comment\n*.bin\n!keep.bin\n/top\nlogs/\n**/deep/*.txt\n",
            "model.bin": "", "keep.bin": "", "top": "", "sub/top": "", "logs/a": "",
            "x/logs/keep.bin": "",
            "x/deep/a.txt": "", "x/deep/a.json": "", "sub/model.bin": "", "sub/other.bin": "",
            "sub/.mpignore": "!model.bin\n/only-here\n", "sub/only-here": "", "only-here": "",
            "sub/sub/only-here": "", "sub/sub/.mpignore": "*.bin\n", "sub/sub/model.bin": "",
        },
    )  # fmt: skip
    assert paths(tmp_path) == [
        ".mpignore", "keep.bin", "only-here", "sub/.mpignore", "sub/model.bin", "sub/sub/.mpignore",
        "sub/sub/only-here", "sub/top", "x/deep/a.json",
    ]  # fmt: skip


def test_an_ignore_file_that_is_too_large(tmp_path: Path) -> None:
    (tmp_path / ".mpignore").write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(ConfigError, match="mpignore"):
        scan(tmp_path)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from("abcdef"), st.binary(max_size=300), min_size=1), st.data())
def test_reads_what_is_there(tmp_path_factory: pytest.TempPathFactory, files, data) -> None:
    root = tmp_path_factory.mktemp("tree")
    for name, content in files.items():
        (root / name).write_bytes(content)
    for source in scan(root):
        content = files[source.path]
        start = data.draw(st.integers(0, len(content)))
        out = bytearray(data.draw(st.integers(0, len(content) - start)))
        with open_stable(source) as reader:
            reader.read_into(start, memoryview(out))
        assert out == content[start : start + len(out)]


def test_reads_from_many_threads(tmp_path: Path) -> None:
    content = os.urandom(1 << 20)
    (tmp_path / "f").write_bytes(content)
    out = bytearray(len(content))
    with open_stable(scan_file(tmp_path / "f")) as reader, ThreadPoolExecutor(4) as threads:
        for at in range(0, len(content), 4096):
            threads.submit(reader.read_into, at, memoryview(out)[at : at + 4096])
    assert out == content


def test_change_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"12345678")
    source = scan_file(path)
    with (
        pytest.raises(SourceChanged, match=r"'f' changed.*size was 8 and is 9"),
        open_stable(source),
    ):
        path.write_bytes(b"123456789")
    source = scan_file(path)
    with pytest.raises(SourceChanged, match="time"), open_stable(source):
        os.utime(path, ns=(source.mtime_ns, source.mtime_ns + 1))
    source = scan_file(path)
    path.unlink()
    with pytest.raises(SourceChanged, match="gone"), open_stable(source):
        pytest.fail("it opened")
    (tmp_path / "other").write_bytes(b"123456789")
    os.utime(tmp_path / "other", ns=(source.mtime_ns, source.mtime_ns))
    (tmp_path / "other").rename(path)
    if path.stat().st_ino != source.inode:
        with pytest.raises(SourceChanged, match="file was"), open_stable(source):
            pytest.fail("it opened")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(SourceChanged), open_stable(source):
        pytest.fail("it opened")


def test_short_read_and_errors_of_the_body(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"12345678")
    source = scan_file(path)
    with pytest.raises(SourceChanged, match="was 8 and is 4"), open_stable(source) as reader:
        os.truncate(path, 4)
        reader.read_into(0, memoryview(bytearray(8)))
    source = scan_file(path)
    with pytest.raises(SourceChanged, match="size") as caught, open_stable(source):
        os.truncate(path, 2)
        raise MalformedFile("because it was cut")
    assert isinstance(caught.value.__context__, MalformedFile)
    with pytest.raises(MalformedFile, match="allowed"):
        read_source(scan_file(path), 1)
