"""A link, a fifo, a device, a folder for a file: at paths of a repository, under every command.

All but the folder is refused by each command that comes by that repository, readers too. Whatever a
command says, it says it: none waits, none ends in a traceback, and nothing outside is changed. The
short form is tests/repository/test_untrusted.py.
"""

import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mergepipe.repository.layout import DIRECTORY
from tests.repository.planting import Make, places, put

from . import ground as world
from .limits import Tally
from .striking import Ready, grounds
from .verbs import BY_NAME, READERS, VERBS, Verb

_REFUSED = 1
_CRASHED = 70
_HANGS_S = 600
_REMOTE = ("push", "push of all", "pull", "fetch", "clone")
"""Commands that come by the remote, too; `clone` by nothing else."""


def _null(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))


def _kinds(victim: Path) -> dict[str, Make]:
    return {
        "link to a file": lambda path: path.symlink_to(victim / "note.txt"),
        "link to a folder": lambda path: path.symlink_to(victim),
        "link to nothing": lambda path: path.symlink_to(victim / "new"),
        "fifo": os.mkfifo,
        "device": _null,
        "folder": Path.mkdir,
    }


@pytest.fixture(scope="module")
def ready() -> Iterator[Callable[[Verb], Ready]]:
    with grounds() as make:
        yield make


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder of a user's own."""
    folder = tmp_path / "victim"
    (folder / "1-00000000").mkdir(parents=True)
    for name in ("data.mdb", "lock.mdb", "note.txt", "1-00000000/000001"):
        (folder / name).write_text("precious\n")
    return folder


def _run(argv: tuple[str, ...]) -> int:
    def work() -> int:
        signal.alarm(_HANGS_S)
        try:
            return world.mp(*argv)
        except Exception:
            return _CRASHED

    return world.quietly(work)


def _all(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


def plant(verb: Ready, victim: Path, where: str, every: int, tally: Tally) -> None:
    """Run a command with each kind at every `every`-th path of `repo` or `remote`."""
    verb.fresh()
    root = verb.place / where
    before = _all(victim)
    wrong: list[object] = []
    for place in list(places(root))[::every]:
        path = root / DIRECTORY / place
        for kind, make in _kinds(victim).items():
            if kind == "folder" and path.is_dir():
                continue
            try:
                undo = put(path, make)
            except PermissionError:
                assert kind == "device", kind
                verb.fresh()
                continue
            code = _run(verb.argv)
            if kind == "folder":
                verb.fresh()
            else:
                undo()
            if _all(victim) != before or (
                not 0 <= code < _CRASHED if kind == "folder" else code != _REFUSED
            ):
                wrong.append((place, kind, code))
            tally.note("runs", "refused" if code else "of no account")
    assert not wrong, (verb.verb.name, wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "where"),
    [
        *((verb.name, "repo") for verb in (*VERBS, *READERS) if verb.name not in ("init", "clone")),
        *((name, "remote") for name in _REMOTE),
    ],
)
def test_what_is_planted(
    name: str, where: str, victim: Path, ready: Callable[[Verb], Ready]
) -> None:
    tally = Tally(f"planted in {where} under {name}")
    plant(ready(BY_NAME[name]), victim, where, every=4, tally=tally)
    tally.show()
