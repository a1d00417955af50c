"""The ground on which commands are struck: a repository, its remote, and models beside them.

One directory holds all of it, so that a copy of the directory is a copy of the world.
"""

import hashlib
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mergepipe.api import Repository
from mergepipe.cli.main import main
from mergepipe.repository.layout import DIRECTORY
from tests.repository.checkpoints import Array, Raw, bf16, write_model
from tests.torture.models import finish, in_child

# What a killed command may leave, until the next one that does the same.
_UNFINISHED = re.compile(r"\.mp-export-[0-9a-f]{16}|\.(?:mergepipe\.init|.+\.clone)-[0-9a-f]{16}")
CLOCK = 1_700_000_000
_ROWS = 40


def weights(number: int) -> dict[str, Array | Raw]:
    """A model of some 90 KiB that shares a tensor with all others; 0 is what all came from."""
    base = np.random.default_rng(0)
    shared = base.standard_normal((20, 256))
    mine = base.standard_normal((_ROWS, 256))
    if number:
        mine[number % _ROWS :] += np.random.default_rng(number).standard_normal(256) / 16
    return {"layer.shared": bf16(shared), "layer.mine": bf16(mine)}


def write_numbered(folder: Path, number: int) -> Path:
    """Model `number` in a directory, with a few files that name it."""
    write_model(folder, weights(number), config_json='{"model_type": "tiny"}')
    (folder / "nested").mkdir(exist_ok=True)
    (folder / "nested/number.txt").write_text(str(number))
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    return folder


def mp(*argv: str) -> int:
    """Run a command in this process, as if it were `mp`; its exit code."""
    return main(list(argv))


def quietly(work: Callable[[], int]) -> int:
    """Do it in a child that says nothing; its exit code, negative for a signal."""

    def silent() -> None:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            if "FAULTS_LOUD" not in os.environ:
                os.dup2(nowhere.fileno(), 2)
        sys.stdout.flush()
        os._exit(work())

    return finish(in_child(silent))


def run(*argv: str) -> int:
    """A command in a child."""
    return quietly(lambda: mp(*argv))


def must(*argv: str) -> None:
    """A command that has to work."""
    code = run(*argv)
    assert code == 0, (argv, code)


def make(ground: Path) -> None:
    """A repository of some branches, a remote that is a commit ahead, and models to come.

    The clock stands still for commits, so that a command done again makes the same ids.
    """
    repo, remote = str(ground / "repo"), str(ground / "remote")
    for number in range(8):
        write_numbered(ground / f"models/{number}", number)
    must("init", remote)
    _small_blocks(ground / "remote")
    for number in range(3):
        must("-C", remote, "commit", str(ground / f"models/{number}"), "-m", str(number))
    must("clone", remote, repo)
    _small_blocks(ground / "repo")
    must("-C", remote, "commit", str(ground / "models/3"), "-m", "3")
    commit = ("-C", repo, "commit")
    must(*commit, str(ground / "models/4"), "-b", "other", "-m", "4")
    must(*commit, str(ground / "models/5"), "-b", "doomed", "-m", "5")
    must("-C", repo, "branch", "-d", "-f", "doomed")
    must("-C", repo, "tag", "first", "main~2")
    listed = ground / "models/list.toml"
    listed.write_text(
        '[[model]]\npath = "6"\nbranch = "six"\nmessage = "6"\n'
        '[[model]]\npath = "7"\nbranch = "seven"\nbase = "six"\nmessage = "7"\n'
    )


def _small_blocks(root: Path) -> None:
    """Blocks of 4 KiB, stored as they are: what is struck is not the codecs."""
    must("-C", str(root), "config", "store.block_size", "4KiB")
    must("-C", str(root), "config", "store.codec", "raw")


@dataclass(frozen=True, slots=True)
class World:
    """All that a user can see: refs of every repository, and every file outside of them."""

    refs: dict[str, str]
    files: dict[str, str]


def look(ground: Path) -> World:
    """The world as it is. Not in a process that forks others later: it opens indexes."""
    refs: dict[str, str] = {}
    files: dict[str, str] = {}
    for folder, folders, names in os.walk(ground):
        here = Path(folder)
        folders[:] = [name for name in folders if not _UNFINISHED.fullmatch(name)]
        if DIRECTORY in folders:
            folders.remove(DIRECTORY)
            with Repository.open(here) as repository:
                where = here.relative_to(ground).as_posix()
                head = repository.refs.head()
                refs[f"{where}:HEAD"] = head.branch or str(head.commit)
                for name, tip in repository.refs.list().items():
                    commit = repository.objects.commit(tip)
                    # Not the id: the manifest of a merge holds what was measured on the way.
                    ids = [commit.snapshot, *commit.parents]
                    refs[f"{where}:{name}"] = " ".join(each.hex() for each in ids)
        for name in names:
            if not _UNFINISHED.fullmatch(name):
                path = here / name
                mode = path.lstat().st_mode
                assert stat.S_ISREG(mode), path
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                files[path.relative_to(ground).as_posix()] = f"{digest} {bool(mode & 0o100)}"
    return World(refs, files)


def repositories(ground: Path) -> Iterator[Path]:
    """Every repository of the world."""
    for name in ("repo", "remote", "copy", "new"):
        if (ground / name / DIRECTORY).exists():
            yield ground / name


def copied(source: Path, target: Path) -> Path:
    """A copy of the world at another place, which must be one that is always the same."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
    return target


def between(now: dict[str, str], before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What is neither as it was nor as it will be."""
    return [
        f"{name}: {now.get(name)}, not {before.get(name)} nor {after.get(name)}"
        for name in sorted({*now, *before, *after})
        if now.get(name) not in (before.get(name), after.get(name))
    ]
