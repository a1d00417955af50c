"""Every command that writes, and how it is prepared: the table that all drivers of faults share."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .ground import must, write_numbered


def nothing(ground: Path) -> None:
    """No preparation."""


@dataclass(frozen=True, slots=True)
class Verb:
    """A command line, in which `@` is the ground.

    prepare  what is to be there before
    again    exit codes of the command when it is done again after it was done
    leaves   done again, it may refuse, and leave what it had still to remove
    mends    it is there to mend what is damaged: before, fsck has something to say
    reads    it changes nothing
    quiet    what it changes shows only in .mergepipe
    turns    done again, it takes back what it did
    """

    name: str
    argv: tuple[str, ...]
    prepare: Callable[[Path], None] = nothing
    again: tuple[int, ...] = (0,)
    leaves: bool = False
    mends: bool = False
    reads: bool = False
    quiet: bool = False
    turns: bool = False

    def line(self, ground: Path) -> tuple[str, ...]:
        """The command line on a ground."""
        return tuple(part.replace("@", str(ground)) for part in self.argv)


def _named(ground: Path) -> None:
    must("-C", str(ground / "repo"), "tag", "second", "main")


def _worktree_changes(ground: Path) -> None:
    shutil.rmtree(ground / "repo/nested")
    write_numbered(ground / "repo", 6)
    (ground / "repo/new.txt").write_text("new")


def _pushed_from(ground: Path) -> None:
    must("-C", str(ground / "repo"), "pull")
    for number in (6, 7):
        path = str(ground / f"models/{number}")
        must("-C", str(ground / "repo"), "commit", path, "-m", str(number))


def _many_packs(ground: Path) -> None:
    repo = str(ground / "repo")
    for number in range(10, 26):
        folder = write_numbered(ground / "scratch", number)
        must("-C", repo, "commit", str(folder), "-b", f"topic/{number % 4}", "-m", str(number))
    shutil.rmtree(ground / "scratch")
    for number in range(2):
        must("-C", repo, "branch", "-d", "-f", f"topic/{number}")


def _damaged(ground: Path) -> None:
    """A pack whose first record is flipped (the remote has a good one), and a cut index."""
    packs = sorted((ground / "repo/.mergepipe/packs").iterdir(), key=lambda it: -it.stat().st_size)
    data = bytearray(packs[0].read_bytes())
    data[300] ^= 1
    packs[0].chmod(0o644)
    packs[0].write_bytes(data)
    index = ground / "repo/.mergepipe/index/data.mdb"
    index.write_bytes(index.read_bytes()[:9000])


VERBS = (
    Verb("init", ("init", "@/new"), again=(1, 2)),
    Verb("commit", ("-C", "@/repo", "commit", "@/models/6", "-m", "6")),
    Verb(
        "commit of the worktree",
        ("-C", "@/repo", "commit", "-m", "6"),
        _worktree_changes,
    ),
    Verb(
        "merge",
        (
            *("-C", "@/repo", "merge", "main", "other", "--base", "first", "--method", "linear"),
            *("-b", "merged", "-m", "merged", "--if-changed"),
        ),
    ),
    Verb("pull", ("-C", "@/repo", "pull")),
    Verb("fetch", ("-C", "@/repo", "fetch")),
    Verb("push", ("-C", "@/repo", "push", "origin", "main"), _pushed_from),
    Verb("push of all", ("-C", "@/repo", "push", "--all"), _pushed_from),
    Verb("clone", ("clone", "@/remote", "@/copy"), again=(0, 2)),
    Verb("switch", ("-C", "@/repo", "switch", "other")),
    Verb("reset", ("-C", "@/repo", "reset", "--hard", "first")),
    Verb("checkout", ("-C", "@/repo", "checkout", "other", "--to", "@/out")),
    Verb("import", ("-C", "@/repo", "import", "@/models/list.toml")),
    Verb("tag", ("-C", "@/repo", "tag", "new", "main~1"), again=(1,)),
    Verb(
        "rename of a branch",
        ("-C", "@/repo", "branch", "-m", "other", "renamed"),
        again=(1,),
        leaves=True,
    ),
    Verb("removal of a branch", ("-C", "@/repo", "branch", "-d", "-f", "other"), again=(1,)),
    Verb("rollback", ("-C", "@/repo", "rollback", "main", "first", "-m", "back"), again=(1,)),
    Verb("revert", ("-C", "@/repo", "revert", "second"), _named, again=(1,)),
    Verb("gc", ("-C", "@/repo", "gc", "--no-reflog", "--prune=now"), _many_packs, quiet=True),
    Verb("prune", ("-C", "@/repo", "prune", "main", "--keep-last", "1"), _many_packs, quiet=True),
    Verb("fsck --repair", ("-C", "@/repo", "fsck", "--repair"), _damaged, mends=True),
)
# What only reads may fail, and changes nothing.
READERS = (
    Verb("log", ("-C", "@/repo", "log", "--all"), reads=True),
    Verb("status", ("-C", "@/repo", "status"), reads=True),
    Verb("show", ("-C", "@/repo", "show", "main", "--files"), reads=True),
    Verb("diff", ("-C", "@/repo", "diff", "main", "other"), reads=True),
    Verb("fsck", ("-C", "@/repo", "fsck", "--read-data"), reads=True),
    Verb("du", ("-C", "@/repo", "du"), reads=True),
    Verb("reflog", ("-C", "@/repo", "reflog"), reads=True),
    Verb("branch", ("-C", "@/repo", "branch", "-v"), reads=True),
)


def _deleted(ground: Path) -> None:
    must("-C", str(ground / "repo"), "branch", "-d", "-f", "other")


# What goes by the time of day, beside those above, which all note it.
TIMED = (
    Verb("gc with grace", ("-C", "@/repo", "gc"), _many_packs, quiet=True),
    Verb(
        "prune with grace",
        ("-C", "@/repo", "prune", "main", "--keep-last", "1", "--later"),
        _many_packs,
        quiet=True,
    ),
    Verb("undo", ("-C", "@/repo", "undo"), _deleted, turns=True),
    Verb(
        "expiry of moves", ("-C", "@/repo", "reflog", "main", "--expire", "1.year.ago"), quiet=True
    ),
    Verb("log since", ("-C", "@/repo", "log", "--since", "2.weeks.ago"), reads=True),
    Verb("doctor", ("-C", "@/repo", "doctor"), reads=True),
)
BY_NAME = {verb.name: verb for verb in (*VERBS, *READERS, *TIMED)}
