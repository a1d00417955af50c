"""Bad input: one clear error, its exit code, and a repository as it was."""

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mergepipe.cli.failures import understood
from mergepipe.errors import MergepipeError
from mergepipe.repository import locks
from tests.cli.conftest import Mp
from tests.cli.models import raw_safetensors, tensors, write_model, write_sharded


def _truncated(directory: Path) -> None:
    whole = write_model(directory) / "model.safetensors"
    whole.write_bytes(whole.read_bytes()[:-40])


def _half_a_header(directory: Path) -> None:
    whole = write_model(directory) / "model.safetensors"
    whole.write_bytes(whole.read_bytes()[:20])


def _overlapping(directory: Path) -> None:
    header = {
        "one": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
        "two": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
    }
    raw_safetensors(directory / "model.safetensors", header, bytes(24))


def _out_of_range(directory: Path) -> None:
    header = {"one": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}
    raw_safetensors(directory / "model.safetensors", header, bytes(16))


def _missing_shard(directory: Path) -> None:
    directory.rmdir()
    (write_sharded(directory) / "b.safetensors").unlink()


def _link_to_a_directory(directory: Path) -> None:
    (directory / "link").symlink_to("/")


def _dangling_link(directory: Path) -> None:
    (directory / "model.safetensors").symlink_to("blobs/gone")


def _backslash(directory: Path) -> None:
    (directory / "..\\..\\etc").write_text("x")


def _control_character(directory: Path) -> None:
    (directory / "a\nb").write_text("x")


@pytest.mark.parametrize(
    ("spoil", "code", "kind", "names"),
    [
        (_truncated, 12, "malformed_file", ["model.safetensors"]),
        (_half_a_header, 12, "malformed_file", ["model.safetensors"]),
        (_overlapping, 12, "malformed_file", ["model.safetensors", "two"]),
        (_out_of_range, 12, "malformed_file", ["model.safetensors", "one"]),
        (_missing_shard, 1, "incomplete_checkpoint", ["b.safetensors"]),
        (_dangling_link, 1, "incomplete_checkpoint", ["model.safetensors"]),
        (_link_to_a_directory, 1, "unsafe_path", ["link"]),
        (_backslash, 1, "unsafe_path", ["etc"]),
        (_control_character, 1, "unsafe_path", [r"a\nb"]),
    ],
)
def test_a_bad_model_changes_nothing(
    committed: Path,
    tmp_path: Path,
    mp: Mp,
    spoil: Callable[[Path], None],
    code: int,
    kind: str,
    names: list[str],
) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    spoil(bad)
    before = _state(committed)
    error = mp("commit", bad, "--json", expect=code).document["error"]
    assert (error["code"], error["kind"]) == (code, kind)
    assert all(name in error["message"] for name in names), error
    assert _state(committed) == before


def test_a_path_that_is_not_there(committed: Path, mp: Mp) -> None:
    assert "there is no 'nowhere'" in mp("commit", "nowhere", expect=1).err


def test_a_file_that_changes_while_it_is_read(committed: Path, tmp_path: Path, mp: Mp) -> None:
    busy = tmp_path / "busy"
    busy.mkdir()
    (busy / "weights.bin").write_bytes(bytes(1 << 20))
    before = _state(committed)
    with _touched_when_opened(busy / "weights.bin"):
        error = mp("commit", busy, "--json", expect=1).document["error"]
    assert error["kind"] == "source_changed"
    assert "weights.bin" in error["message"]
    assert _state(committed) == before


@contextmanager
def _touched_when_opened(path: Path) -> Iterator[None]:
    """Whoever opens the file finds that it changed since they looked."""
    over = False

    def touch(event: str, arguments: tuple[object, ...]) -> None:
        if not over and event == "open" and str(arguments[0]).endswith(path.name):
            os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))

    sys.addaudithook(touch)
    try:
        yield
    finally:
        over = True


def test_a_second_writer_waits_then_gives_up(
    committed: Path, tmp_path: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MP_LOCK_TIMEOUT")
    mp("config", "core.lock_timeout", "0.05")
    other = write_model(tmp_path / "other", tensors(5))
    before = _state(committed)
    with locks.acquire(committed / ".mergepipe" / "lock", timeout_s=1):
        error = mp("commit", other, "--json", expect=11).document["error"]
        assert mp("branch", "side", expect=11).err.startswith("error: process ")
    assert error["kind"] == "locked"
    assert _state(committed) == before
    mp("commit", other)


def test_no_repository(tmp_path: Path, mp: Mp) -> None:
    for arguments in (["log"], ["status"], ["commit"], ["show"], ["config"], ["branch"]):
        refused = mp(*arguments, expect=10)
        assert refused.out == ""
        assert "mp init" in refused.err
    error = mp("--json", "log", expect=10).document["error"]
    assert (error["code"], error["kind"]) == (10, "no_repository")


def test_mp_dir_that_is_no_repository(
    tmp_path: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MP_DIR", str(tmp_path))
    assert "MP_DIR" in mp("log", expect=10).err
    monkeypatch.setenv("MP_DIR", str(tmp_path / "nowhere"))
    assert "MP_DIR" in mp("log", expect=10).err


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (["log", "mian"], "revision_not_found", "did you mean main?"),
        (["show", "main~7"], "revision_not_found", "history ends"),
        (["show", "main@{9}"], "revision_not_found", "mp reflog"),
        (["diff", "nosuch"], "revision_not_found", "nosuch"),
        (["checkout", "nosuch", "--to", "x"], "revision_not_found", "nosuch"),
        (["switch", "mian"], "revision_not_found", "did you mean main?"),
        (["reset", "0123abcd"], "revision_not_found", "0123abcd"),
        (["tag", "-d", "v9"], "revision_not_found", "no tag 'v9'"),
        (["log", ""], "revision_not_found", "not a revision"),
    ],
)
def test_a_revision_that_is_not_there(
    committed: Path, mp: Mp, arguments: list[str], kind: str, said: str
) -> None:
    error = mp(*arguments, "--json", expect=1).document["error"]
    assert error["kind"] == kind
    assert said in f"{error['message']} {error['hint']}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lgo"], "`mp log`"),
        (["log", "--onelin"], "--oneline"),
        (["log", "-n", "many"], "'many'"),
        (["switch", "a", "b"], "mp switch -c a b makes one there"),
        (["commit", "-m"], "requires an argument"),
        (["-C", "/nowhere", "log"], "/nowhere"),
        (["branch", "-x"], "-x"),
        (["branch", "a..b"], "'..'"),
        (["branch", "-d"], "which branch"),
        (["branch", "HEAD"], "stands for HEAD"),
        (["init", "--block-size", "huge", "new"], "not a size"),
        (["config", "--unset"], "--unset takes one key"),
        (["init"], "there is a repository already"),
    ],
)
def test_usage_errors(committed: Path, mp: Mp, arguments: list[str], said: str) -> None:
    refused = mp(*arguments, expect=2)
    assert refused.out == ""
    assert said in refused.err
    error = mp("--json", *arguments, expect=2).document["error"]
    assert error["code"] == 2
    assert said in error["message"] + error["hint"]


def test_a_damaged_pack_is_found_when_it_is_read(committed: Path, mp: Mp) -> None:
    for pack in (committed / ".mergepipe/packs").iterdir():
        damaged = bytearray(pack.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        pack.chmod(0o644)
        pack.write_bytes(damaged)
    error = mp("checkout", "main", "--to", "out", "--json", expect=12).document["error"]
    assert error["code"] == 12
    assert not (committed / "out/model.safetensors").exists()


def test_a_damaged_head_says_how_to_go_on(committed: Path, mp: Mp) -> None:
    (committed / ".mergepipe/HEAD").write_text("nonsense\n")
    assert "mp reflog" in mp("log", expect=12).err


def test_a_newer_format_is_named(committed: Path, mp: Mp) -> None:
    config = committed / ".mergepipe/config.toml"
    config.write_text(config.read_text().replace("format = 1", "format = 99"))
    assert "format 99" in mp("log", expect=1).err


def test_a_directory_that_may_not_be_written(committed: Path, mp: Mp) -> None:
    (committed / "file").write_text("in the way")
    refused = mp("checkout", "main", "--to", "file", expect=1)
    assert "file" in refused.err
    assert "Traceback" not in refused.err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), 15, "no space left"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 15, "no space left"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), 1, "permission denied: 'a/b'"),
        (OSError(errno.EROFS, "Read-only file system", "a/b"), 1, "read-only: 'a/b'"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a\x1bb"), 1, r"there is no 'a\x1bb'"),
        (OSError(errno.EIO, "Input/output error", "a/b"), 1, "Input/output error: 'a/b'"),
        (MemoryError(), 1, "out of memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("division by zero"), 1, "unexpected ZeroDivisionError"),
    ],
)
def test_what_the_system_says_in_words(error: BaseException, code: int, said: str) -> None:
    found = understood(error)
    assert isinstance(found, MergepipeError)
    assert found.exit_code == code
    assert said in found.message


def _state(repository: Path) -> dict[str, bytes]:
    """All that a failed command must leave as it was: packs, refs, HEAD, logs, tmp."""
    root = repository / ".mergepipe"
    found = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for folder in ("packs", "refs", "logs", "tmp")
        for path in (root / folder).rglob("*")
        if path.is_file()
    }
    return found | {"HEAD": (root / "HEAD").read_bytes(), "files": _names(repository)}


def _names(repository: Path) -> bytes:
    names = sorted(path.name for path in repository.iterdir())
    return json.dumps(names).encode()
