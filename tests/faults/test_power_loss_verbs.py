"""A power cut after any system call of any command that writes: the old state, or the new one.

The calls are recorded by strace and played onto a disk that forgets what was not synced.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.properties.trees import write_tree
from tests.torture.disk import store
from tests.torture.models import model, new_repository, opened
from tests.torture.syscalls import record, require_strace
from tests.torture.test_power_loss import states

from .limits import Tally
from .striking import Ready, grounds, hold
from .verbs import BY_NAME, VERBS, Verb

COMMAND = """
import os, sys
from mergepipe.cli.main import main
code = main(sys.argv[1:])
os.write(1, b"done")
os._exit(code)
"""


@pytest.fixture(scope="module")
def ready() -> Iterator[Callable[[Verb], Ready]]:
    require_strace()
    with grounds() as make:
        yield make


def cut(verb: Ready, seeds: int, every: int, tally: Tally) -> None:
    """Cut the power in every `every`-th different state that a run goes through."""
    verb.fresh()
    calls = record(COMMAND, *verb.argv, log=verb.place.parent / "trace")
    verb.fresh()
    seen: set[bytes] = set()
    for number, disk, done, survives in states(verb.place, calls, seeds):
        shutil.rmtree(verb.place)
        store(disk.top, verb.place, survives)
        key = fingerprint(verb.place)
        if key in seen:
            continue
        seen.add(key)
        if len(seen) % every == 0:
            hold(verb, 0 if done else 1, f"power cut after {calls[number].shown()}", tally)


def fingerprint(root: Path) -> bytes:
    """What stands on the disk."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        digest.update(f"{path}\0".encode() + (path.read_bytes() if path.is_file() else b"/"))
    return digest.digest()


def test_a_pull_survives_some_power_cuts(ready: Callable[[Verb], Ready]) -> None:
    cut(ready(BY_NAME["pull"]), seeds=0, every=12, tally=Tally("pull"))


def test_a_name_that_a_power_cut_left_beside_its_file_goes(tmp_path: Path) -> None:
    """A rename changes two names: the new one may be durable, and the old one's end not yet."""
    write_tree(model(0), tmp_path / "model")
    new_repository(tmp_path / "repo")
    with opened(tmp_path / "repo") as repo:
        repo.commit(tmp_path / "model", message="0")
        for folder, to in ((tmp_path / "repo", None), (tmp_path / "out", tmp_path / "out")):
            repo.checkout("main", to=to)
            left = folder / "nested/.mp-export-0123456789abcdef"
            left.write_bytes(b"a name too many")
            repo.checkout("main", to=to)
            assert not left.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", [verb.name for verb in VERBS])
def test_every_command_survives_power_cuts(name: str, ready: Callable[[Verb], Ready]) -> None:
    tally = Tally(f"power cuts under {name}")
    cut(ready(BY_NAME[name]), seeds=1, every=1, tally=tally)
    tally.show()
