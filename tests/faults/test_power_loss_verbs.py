"""A power cut after any system call of any command that writes: the old state, or the new one.

The calls are recorded by strace and played onto a disk that forgets what was not synced.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.torture.disk import store
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


@pytest.mark.slow
@pytest.mark.parametrize("name", [verb.name for verb in VERBS])
def test_every_command_survives_power_cuts(name: str, ready: Callable[[Verb], Ready]) -> None:
    tally = Tally(f"power cuts under {name}")
    cut(ready(BY_NAME[name]), seeds=1, every=1, tally=tally)
    tally.show()
