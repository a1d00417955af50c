"""Links, fifos, sockets at every path of a repository, and of one that is a remote by path.

Every command refuses it, readers too, none waits, and nothing outside is made, changed or removed.
"""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.cli.main import main
from mergepipe.errors import UnsafeRepository, WorktreeDirty
from mergepipe.repository import layout

from .planting import places, put

_COMMANDS = (
    ["log"],
    ["status"],
    ["fsck"],
    ["fsck", "--repair"],
    ["gc"],
    ["branch"],
    ["commit", "-m", "x"],
    ["config"],
    ["tag", "t"],
)
_EVERYWHERE = ["log"], ["gc"]  # readers and writers, at each of some forty places


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small repository with a commit, and files of a user beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MP_DIR", raising=False)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with Repository.init(folder) as repository:
        repository.commit(message="first")
    (folder / ".mergepipe/incoming").mkdir()
    (folder / ".mergepipe/tmp/123-abc").mkdir()
    (folder / ".mergepipe/tmp/123-abc/000001").write_text("left over")
    victim = tmp_path / "victim"
    (victim / "1-00000000").mkdir(parents=True)
    for name in ("data.mdb", "lock.mdb", "note.txt", "1-00000000/000001"):
        (victim / name).write_text("precious\n")
    return folder


def _all(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


def test_what_is_no_plain_file_is_refused_wherever_it_is(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = tmp_path / "victim"
    before = _all(victim)
    makers: list[Callable[[Path], object]] = [
        lambda path: path.symlink_to(victim),
        lambda path: path.symlink_to(victim / "note.txt"),
        lambda path: path.symlink_to(victim / "new"),
        os.mkfifo,
    ]
    for place in list(places(model)):
        for make in makers:
            undo = put(model / ".mergepipe" / place, make)
            with pytest.raises(UnsafeRepository, match=r"model/\.mergepipe"):
                Repository.open(model)
            for command in _EVERYWHERE:
                assert main(["-C", str(model), *command]) == 1, (place, command)
            undo()
            assert _all(victim) == before, place
    assert "trust nothing else" in capsys.readouterr().err
    assert main(["-C", str(model), "log"]) == 0


@pytest.mark.parametrize("place", ["packs", "refs", "tmp", "index"])
def test_a_file_where_a_directory_belongs(model: Path, place: str) -> None:
    folder = model / ".mergepipe" / place
    folder.rename(model.with_name("aside"))
    folder.write_text("")
    with pytest.raises(UnsafeRepository, match="no directory"):
        layout.check(model / ".mergepipe")


@pytest.mark.parametrize("place", ["index", "tmp", "lock", "store.lock", "refs/heads/main"])
@pytest.mark.parametrize("kind", ["link", "fifo", "socket"])
def test_every_command_refuses(model: Path, tmp_path: Path, place: str, kind: str) -> None:
    victim = tmp_path / "victim"
    target = victim if place in ("index", "tmp") else victim / "note.txt"
    makers: dict[str, Callable[[Path], object]] = {
        "link": lambda path: path.symlink_to(target),
        "fifo": os.mkfifo,
        "socket": _socket,
    }
    before = _all(victim)
    put(model / ".mergepipe" / place, makers[kind])
    for command in _COMMANDS:
        assert main(["-C", str(model), *command]) == 1, command
    mine = str(tmp_path / "mine")
    assert main(["init", mine]) == 0
    assert main(["clone", str(model), str(tmp_path / "copy")]) == 1
    assert main(["-C", mine, "remote", "add", "origin", str(model)]) == 0
    assert main(["-C", mine, "fetch"]) == 1
    assert _all(victim) == before
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("victim"), os.mkfifo])
def test_the_repository_itself_is_a_real_directory(
    model: Path, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    (model / ".mergepipe").rename(tmp_path / "aside")
    make(model / ".mergepipe")
    before = _all(tmp_path / "victim")
    for command in (["log"], ["fsck"], ["commit", "-m", "x"]):
        assert main(["-C", str(model), *command]) == 1
    assert main(["clone", str(model), str(tmp_path / "copy")]) == 1
    assert _all(tmp_path / "victim") == before


@pytest.mark.parametrize(
    "place",
    [
        *("lock", "store.lock", "swap.lock", "index.lock", "HEAD", "config.toml", "worktree"),
        *("logs/HEAD", "logs/refs/heads/main", "refs/heads/main"),
        *("index/data.mdb", "index/lock.mdb"),
    ],
)
def test_a_second_name_of_a_file_outside_never_writes_there(
    model: Path, tmp_path: Path, place: str
) -> None:
    """A hard link, as an archive can bring it: what is changed is a copy."""
    outside = tmp_path / "outside"
    within = model / ".mergepipe" / place
    if within.exists():
        outside.write_bytes(within.read_bytes())
        within.unlink()
    else:
        outside.write_bytes(b"precious\n")
    os.link(outside, within)
    content = outside.read_bytes()
    (model / "more.json").write_text("[]")
    for command in (["log"], ["commit", "-m", "second"], ["tag", "t"], ["gc"], ["fsck"]):
        assert main(["-C", str(model), *command]) == 0, command
    assert outside.read_bytes() == content


def test_a_link_among_files_that_are_checked_out_is_no_file(model: Path, tmp_path: Path) -> None:
    """Not even one to the same bytes, which others may change later."""
    with Repository.open(model) as repository:
        repository.checkout("main", to=tmp_path / "out")
        repository.checkout("main", to=tmp_path / "out")
        (tmp_path / "out/config.json").rename(tmp_path / "same.json")
        (tmp_path / "out/config.json").symlink_to(tmp_path / "same.json")
        with pytest.raises(WorktreeDirty):
            repository.checkout("main", to=tmp_path / "out")
        repository.checkout("main", to=tmp_path / "out", force=True)
    assert not (tmp_path / "out/config.json").is_symlink()


def test_links_on_the_way_to_a_repository_are_the_users_own(model: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(model.parent)
    with Repository.open(tmp_path / "elsewhere/model") as repository:
        assert len(list(repository.log())) == 1
