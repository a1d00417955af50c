"""gc beside every command that reads or writes the same packs: nothing that either needs is lost.

What gc would take is just what the other is about to lean on: the same commit, merge, push or fetch
was done before and let go of, and all packs are older than any grace. Processes take turns as a
seed says (turns.py). Both have to succeed, and what the command did is there: refs, files, bytes.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from tests.torture.models import finish, in_child, problems, unfinished

from . import ground as world
from .limits import Tally
from .striking import Ready, grounds
from .turns import take_turns
from .verbs import BY_NAME, Verb

GRACE = {"none": ("--prune=now",), "default": ()}
TIMES = int(os.environ.get("FAULTS", "1"))
_EACH = 14  # of 18 x 2: some 500


@dataclass(frozen=True, slots=True)
class Race:
    """A command beside a gc of `repo` or `remote`."""

    verb: str
    place: str

    def __str__(self) -> str:
        return f"{self.verb} in {self.place}"


RACES = (
    *(Race(name, "repo") for name in ("commit", "commit of the worktree", "merge", "import")),
    *(Race(name, place) for name in ("push", "pull", "fetch") for place in ("repo", "remote")),
    *(Race(name, "remote") for name in ("push of all", "clone")),
    *(Race(name, "repo") for name in ("checkout", "switch", "reset", "prune", "gc", "fsck")),
)


def _let_go(ground: Path) -> None:
    """What the commands will make or bring was there, and is garbage; packs are years old."""
    repo, remote = str(ground / "repo"), str(ground / "remote")
    world.must("-C", repo, "push", "origin", "main:gone", "other:away")
    world.must("-C", remote, "branch", "-d", "-f", "gone")
    world.must("-C", remote, "branch", "-d", "-f", "away")
    for root in (repo, remote):
        world.must("-C", root, "config", "core.lock_timeout", "1000")
        for number in (3, 6, 7):
            path = str(ground / f"models/{number}")
            world.must("-C", root, "commit", path, "-b", "gone", "-m", str(number))
        world.must("-C", root, "branch", "-d", "-f", "gone")
    merge = ("merge", "main", "other", "--base", "first", "--method", "linear")
    world.must("-C", repo, *merge, "-b", "gone", "-m", "merged")
    world.must("-C", repo, "branch", "-d", "-f", "gone")
    for pack in ground.glob("*/.mergepipe/packs/*.pack"):
        os.utime(pack, (world.CLOCK, world.CLOCK))


def _prepared(verb: Verb) -> Verb:
    def prepare(ground: Path) -> None:
        verb.prepare(ground)
        _let_go(ground)

    return replace(verb, prepare=prepare)


@pytest.fixture(scope="module")
def ready() -> Iterator[Callable[[Verb], Ready]]:
    with grounds() as make:
        yield make


def race(verb: Ready, place: str, options: tuple[str, ...], seed: int, tally: Tally) -> None:
    """One race, and all that must be true after it."""
    verb.fresh()
    collect = ("-C", str(verb.place / place), "gc", "--no-reflog", *options)
    works = [lambda: world.mp(*verb.argv), lambda: world.mp(*collect)]
    codes, changes = take_turns(works, seed)
    how = f"{verb.verb.name} beside gc {' '.join(options)} in {place}, seed {seed}"
    assert codes == [0, 0], (how, codes)
    assert finish(in_child(partial(_check, verb))) == 0, how
    tally.note("races")
    tally.counts["turns"] += changes


def _check(verb: Ready) -> None:
    for _ in range(2):
        now = world.look(verb.place)
        assert not (wrong := world.between(now.refs, verb.after.refs, verb.after.refs)), wrong
        assert not (wrong := world.between(now.files, verb.after.files, verb.after.files)), wrong
        for root in world.repositories(verb.place):
            assert problems(root) == [], root.name
            assert world.mp("-C", str(root), "gc", "--no-reflog", "--prune=now") == 0
            assert unfinished(root) == [], root.name


@pytest.mark.parametrize(
    "which", [Race("commit", "repo"), Race("push", "remote"), Race("merge", "repo")], ids=str
)
def test_some_races(which: Race, ready: Callable[[Verb], Ready]) -> None:
    verb = ready(_prepared(BY_NAME[which.verb]))
    for seed in range(4):
        race(verb, which.place, GRACE["default" if seed % 4 == 3 else "none"], seed, Tally("some"))


@pytest.mark.slow
@pytest.mark.parametrize("which", RACES, ids=str)
def test_races(which: Race, ready: Callable[[Verb], Ready]) -> None:
    tally = Tally(f"gc beside {which}")
    verb = ready(_prepared(BY_NAME[which.verb]))
    for grace, options in GRACE.items():
        for seed in range(_EACH * TIMES):
            race(verb, which.place, options, seed, tally)
            tally.note(f"grace {grace}")
    tally.show()
